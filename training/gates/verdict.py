"""What a gate answers: whether it lets the challenger pass, and by which figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One figure that a gate looked at. `limit` is None for what is told and not judged."""

    name: str
    value: float
    limit: float | None
    passed: bool
    said: str  # one sentence that a person without the code understands
    judged: bool = True  # False: there was too little to judge it by


@dataclass(frozen=True)
class Verdict:
    """A gate's word. `checks` are never empty: a gate that looked at nothing did not pass. One that
    found nothing to judge lets pass, and says that it did not judge."""

    gate: str
    passed: bool
    reason: str
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, gate: str, checks: Sequence[Check]) -> "Verdict":
        """Passes where every check does; the reason is the first that does not, or the last."""
        if not checks:
            raise ValueError(f"{gate}: nothing was looked at")
        failed = [check for check in checks if not check.passed]
        if not failed:
            return cls(gate, True, _passed(checks), tuple(checks))
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return cls(gate, False, failed[0].said + more, tuple(checks))

    @property
    def judged(self) -> bool:
        """Whether there was anything to judge by."""
        return any(check.judged for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For a step's record and the figures."""
        return asdict(self)

    @classmethod
    def parse(cls, held: Mapping[str, Any]) -> "Verdict":
        """What `as_json` gave."""
        checks = tuple(Check(**check) for check in held["checks"])
        return cls(held["gate"], held["passed"], held["reason"], checks)


def _passed(checks: Sequence[Check]) -> str:
    left = [check.said for check in checks if not check.judged]
    more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    untold = f"not judged: {left[0]}{more}" if left else ""
    if len(left) == len(checks):
        return untold
    count = sum(check.limit is not None for check in checks) or len(checks) - len(left)
    said = f"{count} check{'s' if count > 1 else ''}, none outside its limit"
    return f"{said}; {untold}" if left else said
