"""What the fault tests share with those of the gateway."""

from tests.serving.conftest import release_root

__all__ = ["release_root"]
