"""What the parts of a world file are made of: checked numbers, names and weights."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Probability = Annotated[float, Field(ge=0, le=1)]
# A behavioural rate whose odds are shifted; 0 and 1 have no finite odds.
Rate = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
DeviceName = Literal["desktop", "mobile", "tablet", "other"]


def _some_weight(weights: list[float] | dict[str, float]) -> list[float] | dict[str, float]:
    if sum(weights.values() if isinstance(weights, dict) else weights) <= 0:
        raise ValueError("needs at least one weight above 0")
    return weights


some_weight = AfterValidator(_some_weight)
Weights = Annotated[dict[Name, Weight], some_weight]


class Part(BaseModel):
    """A part of a world: nothing in it is unknown, nothing changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
