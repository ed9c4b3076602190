"""Releases and their models: load, verify, swap while running, and infer off the event loop."""
