"""The networks. Shape suffixes: B batch, L length, U distinct items, D space, N vocabulary."""

import logging

# torchrec's import trips a deprecation warning inside torch itself, which no user can act on.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
