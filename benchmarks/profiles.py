"""When requests are sent: a profile is a list of segments, a segment a rate held for a while."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = 5
_SPIKE = 5
_SOAK_PARTS = 10
ARRIVALS = ("even", "poisson")


@dataclass(frozen=True)
class Segment:
    """`rate` requests per second for `seconds`."""

    name: str
    rate: float
    seconds: float


def steady(rate: float, seconds: float) -> list[Segment]:
    """The same rate throughout."""
    return [Segment("steady", rate, seconds)]


def step(rate: float, seconds: float) -> list[Segment]:
    """Rises to `rate` in five equal steps."""
    rates = [rate * (number + 1) / _STEPS for number in range(_STEPS)]
    return [Segment(f"step {one:g}/s", one, seconds / _STEPS) for one in rates]


def spike(rate: float, seconds: float) -> list[Segment]:
    """Five times the rate in the middle fifth."""
    return [
        Segment("before", rate, seconds * 2 / 5),
        Segment(f"spike {rate * _SPIKE:g}/s", rate * _SPIKE, seconds / 5),
        Segment("after", rate, seconds * 2 / 5),
    ]


def soak(rate: float, seconds: float) -> list[Segment]:
    """The same rate throughout, told in ten parts, so that what grows with time shows."""
    part = seconds / _SOAK_PARTS
    return [Segment(f"part {number + 1}", rate, part) for number in range(_SOAK_PARTS)]


PROFILES = {"steady": steady, "step": step, "spike": spike, "soak": soak}


def schedule(segments: Sequence[Segment], arrivals: str, seed: int) -> list[tuple[float, int]]:
    """(seconds since the start, number of its segment) of every request, in order.

    `even` spaces them equally; `poisson` draws them as shoppers come, who do not know each other.
    """
    draw = random.Random(seed)
    planned: list[tuple[float, int]] = []
    began = 0.0
    for number, segment in enumerate(segments):
        ends, at = began + segment.seconds, began
        while True:
            gap = 1 / segment.rate
            at += gap if arrivals == "even" else draw.expovariate(segment.rate)
            # Counted from the end of the first gap, and not lost to rounding on the last one.
            if at > ends + 1e-9:
                break
            planned.append((at, number))
        began = ends
    return planned
