"""Experiments as they run: sums from the event log, statistics, reports."""
