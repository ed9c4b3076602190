"""`replace` under the name by which retraining knows it."""

from contract.whole_file import replace as replace
