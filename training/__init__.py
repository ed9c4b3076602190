"""All that happens before a release exists: import, simulate, fit, evaluate, export."""
