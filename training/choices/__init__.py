"""Learning how people pay and have things delivered."""
