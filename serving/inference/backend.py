"""What the decision needs of anything that runs models, embedded today or a model server later."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from contract.encoding import Encoded
from contract.errors import UserError

Outputs = dict[str, npt.NDArray[np.generic]]


class InferenceFailed(Exception):  # noqa: N818 - it names what happened
    """A model did not answer, or answered with something that is not a number."""


class ServerNotReady(UserError):  # noqa: N818 - it names what happened
    """A model server does not have the release's models yet; asking again may help."""


class InferenceBackend(Protocol):
    """Runs the models of one release, one request at a time as the caller sees it.

    `remote`: the models run in another process, so that their failure is no fault of this one.
    """

    remote: bool

    @property
    def away(self) -> bool:
        """Whether it is known just now that the models do not answer."""
        ...

    async def run(self, model: str, inputs: Encoded) -> Outputs:
        """The outputs of `model`, without a batch dimension.

        `inputs` holds one request's tensors by name, without a batch dimension; those that the
        model does not take are left out. Raises InferenceFailed, or TimeoutError where the time
        that time_left() names has run out.
        """
        ...

    def close(self, wait_s: float = 0.0) -> None:
        """End the work; requests that still wait fail with InferenceFailed. What runs just now may
        go on, and is waited for up to `wait_s` seconds."""
        ...


def finite(outputs: Outputs, name: str) -> npt.NDArray[Any]:
    """The output `name`; InferenceFailed where it holds NaN or infinity."""
    output = outputs[name]
    if not np.isfinite(output).all():
        raise InferenceFailed(f"output {name} is not finite")
    return output
