"""Segments learned from behaviour: clusters of shoppers, how well they hold, their names."""
