"""What a network's offers earn on people whom it has not learned from: whether it may go out.

The estimate is doubly robust, over the policy that offers nothing to anybody, and its interval is
over people (contract.off_policy). The chances are told by members that did not learn from the
person, and the log's own decisions say what came of them.
"""

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from contract.off_policy import LEAST_PEOPLE, doubly_robust
from contract.policy import NO_OFFER
from training.data.model_file import read_model
from training.data.offer_log import Floats, OfferLog
from training.evaluation.off_policy import Terms, always, as_logged, chances, outcome_model

EVIDENCE = "evidence.json"


class Evidence(BaseModel):
    """Minor units a decision over no offer, with the ends of the 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float
    low: float
    high: float
    offered: float = Field(ge=0, le=1)  # share of decisions in which it would offer something
    decisions: int
    people: int
    tried: int  # people who by chance were offered just what it would have offered them

    @classmethod
    def of(cls, log: OfferLog, told: Floats) -> Self:
        """Of the chances `told` [N, A] of decisions, each by who has not seen the person."""
        model, wished = outcome_model(log), chances(log, told, Terms())
        by_network, by_nobody = (
            doubly_robust(as_logged(log, target, model))
            for target in (wished, always(log, log.arms[NO_OFFER]))
        )
        gained = by_network.less(by_nobody)
        alike = (log.arm != NO_OFFER) & (wished[np.arange(len(log)), log.arm] > 0)
        return cls(
            gain=gained.value,
            low=gained.low,
            high=gained.high,
            offered=float(1.0 - wished[:, NO_OFFER].mean()),
            decisions=len(log),
            people=len(np.unique(log.subject)),
            tried=len(np.unique(log.subject[alike])),
        )

    @property
    def refused(self) -> str | None:
        """Why the network may not go out; None where its offers are shown to pay."""
        if self.offered == 0:
            return f"it would offer nothing to anybody, judged on {self._judged_on}"
        if self.tried < LEAST_PEOPLE:
            return (
                f"only {self.tried} people were by chance offered what it would offer them, fewer "
                f"than {LEAST_PEOPLE}, on {self._judged_on}"
            )
        if self.low > 0:
            return None
        told = "lose money" if self.gain <= 0 else "are not shown to pay for themselves"
        return (
            f"its offers {told}: {self.said}. Log more decisions made at random (`explore_share`) "
            "and fit again, or release without it: the shop keeps the offers that it promises to "
            "everybody"
        )

    @property
    def said(self) -> str:
        """The estimate in words."""
        return (
            f"{self.gain:+.2f} minor units a decision over no offer (95 % from {self.low:+.2f} to "
            f"{self.high:+.2f}), on {self._judged_on}"
        )

    @property
    def _judged_on(self) -> str:
        return f"{self.decisions:,} decisions of {self.people:,} people it has not learned from"


def write_evidence(folder: Path, evidence: Evidence) -> None:
    """Beside the weights of the network."""
    (folder / EVIDENCE).write_text(evidence.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_evidence(folder: Path) -> Evidence:
    """What `write_evidence` wrote. UserError where it is not there."""
    return read_model(folder / EVIDENCE, Evidence, "fit again with `tillwise-train uplift`")
