"""The networks. Shape suffixes: B batch, L sequence length, U distinct items, D space, N vocabulary."""
