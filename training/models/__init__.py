"""The networks. Shape suffixes: B batch, L length, U distinct items, D space, N vocabulary."""
