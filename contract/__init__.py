"""Pure functions that must answer alike in training and in serving: no I/O, no torch, no clock."""
