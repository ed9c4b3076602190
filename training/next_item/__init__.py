"""Sequence models that say what comes next: data, training, and the answer that is measured."""
