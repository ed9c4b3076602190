"""Learning what offers change: the network, what it is compared with, and the table of both."""
