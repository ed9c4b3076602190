"""The gateway: events in, checkout decisions out. It never imports torch or training."""
