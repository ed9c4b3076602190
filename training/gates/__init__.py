"""The gates between a challenger and the shop: each a pure function from figures to a `Verdict`.

A gate never reads, fits or writes anything; what it judges was measured before. So every refusal
can be replayed from the figures in the report.
"""
