"""Measurements of running parts: each module starts what it needs, prints a table, writes JSON."""
