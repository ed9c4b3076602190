"""The small catalogue of the data side's tests."""

from tests.training.data.conftest import catalogue_file

__all__ = ["catalogue_file"]
