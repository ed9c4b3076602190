"""What a gateway remembers: the event log, the features made from it, and the control store."""
