"""Review items: what a person should look at because something changed, with what is known of it.

Whoever watches a measure (KPIs, drift, fairness) tells its findings; what is told again while it
lasts stays one item. What returns after it was closed, or more than a day after it had ended, opens
the same one again, and whoever is told of openings is told once more.
"""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from contract.events import Note

Source = Literal["kpi", "drift", "fairness", "guard"]
SOURCES: Final[tuple[Source, ...]] = ("kpi", "drift", "fairness", "guard")
State = Literal["open", "acknowledged", "closed"]
Deed = Literal["opened", "ended", "returned", "reopened", "acknowledged", "closed"]
MOST_STEPS: Final = 50
FLICKERS_WITHIN: Final = timedelta(days=1)  # what was over for less is the same trouble still

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Contribution(_Strict):
    """How much of the change one slice explains: `share` of it (they need not add up to 1), with
    what was expected of that slice and what was seen."""

    dimension: Name
    value: Annotated[str, StringConstraints(max_length=200)]
    share: float
    expected: float | None = None
    seen: float | None = None


class Before(_Strict):
    """Something that went live before the change: a release, or a version of the rules, the offers
    or the experiments."""

    kind: Literal["release", "canary", "rollback", "rules", "offers", "experiments", "catalogue"]
    name: Name
    at: datetime
    by: str | None = None
    note: str = ""


class Finding(_Strict):
    """What somebody who watches a measure has found.

    `key` names the alarm: the same while it lasts. `metric` is as the KPIs name it, in its own
    unit; `low` to `high` is where it was expected. `since`: when it changed, as far as that can be
    told; `seen_at`: up to when was looked. `causes` are suggestions, the likeliest first.
    """

    key: Name
    source: Source
    metric: Name
    title: Words
    slices: dict[Name, str] = {}
    expected: float | None = None
    seen: float | None = None
    low: float | None = None
    high: float | None = None
    since: datetime
    seen_at: datetime
    contributions: Annotated[tuple[Contribution, ...], Field(max_length=20)] = ()
    before: Annotated[tuple[Before, ...], Field(max_length=20)] = ()
    detail: dict[Name, JsonValue] = {}


class Step(_Strict):
    """Something that happened to an item. `by` is the key that did it, `who` the person's name, as
    the caller told it."""

    deed: Deed
    at: datetime
    by: str
    who: str = ""
    note: Note = ""


class Review(_Strict):
    """One item. `finding` is the latest word on it; `ended_at` says since when the alarm is no
    longer raised, whatever a person did about it."""

    review_id: str
    state: State
    finding: Finding
    opened_at: datetime
    seen_at: datetime
    ended_at: datetime | None = None
    reopened: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[tuple[Step, ...], Field(max_length=MOST_STEPS)] = ()

    @classmethod
    def opened(cls, review_id: str, finding: Finding, step: Step) -> "Review":
        """A new one."""
        return cls(
            review_id=review_id,
            state="open",
            finding=finding,
            opened_at=step.at,
            seen_at=step.at,
            steps=(step,),
        )

    def again(self, finding: Finding, by: str, at: datetime) -> "Review":
        """After the same was found once more: reopened if it had ended meanwhile and a person had
        closed it, or it was over for longer than alarms flicker. One that was closed while it
        lasted stays closed until it has ended."""
        since = finding.since if self.ended_at is not None else self.finding.since
        kept = {"finding": finding.model_copy(update={"since": since}), "seen_at": at}
        if self.ended_at is None:
            return self.model_copy(update=kept)
        kept |= {"ended_at": None}
        if self.state != "closed" and at - self.ended_at <= FLICKERS_WITHIN:
            return self.model_copy(update=kept)._with(Step(deed="returned", at=at, by=by))
        kept |= {"state": "open", "reopened": self.reopened + 1}
        return self.model_copy(update=kept)._with(Step(deed="reopened", at=at, by=by))

    def over(self, by: str, at: datetime) -> "Review":
        """After it was found no more."""
        if self.ended_at is not None:
            return self
        return self.model_copy(update={"ended_at": at})._with(Step(deed="ended", at=at, by=by))

    def moved(self, to: Literal["acknowledged", "closed"], step: Step) -> "Review":
        """After a person did something about it; the same one where that is so already.
        ValueError: what is closed can not be acknowledged."""
        if self.state == to:
            return self
        if self.state == "closed":
            raise ValueError("it is closed already")
        return self.model_copy(update={"state": to})._with(step)

    def _with(self, step: Step) -> "Review":
        # The first one stays: when it was opened.
        kept = (*self.steps[:1], *self.steps[1:][-(MOST_STEPS - 2) :])
        return self.model_copy(update={"steps": (*kept, step)})
