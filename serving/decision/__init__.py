"""The checkout decision: one straight line of stages, each within the request's remaining time."""
