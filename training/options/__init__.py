"""Learning in which order to show ways to pay and to deliver."""
