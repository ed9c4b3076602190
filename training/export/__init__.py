"""From a fitted run to the files that serving loads."""
