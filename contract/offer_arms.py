"""The arms that an uplift network tells apart, as they go with a release beside the model: which
discount each was learned from, and which arm speaks for an offer."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.fields import Name
from contract.offer_features import OFFER_FEATURES, OFFER_FEATURES_VERSION, offer_feature_hash
from contract.offers import Discount, PercentOff

NO_OFFER_ARM: Final = "none"
# An offer is answered for by an arm of its kind that takes off between half and twice as much.
_FURTHEST: Final = 2.0


class Arm(BaseModel):
    """An arm by the name that the log gave it, and what it takes off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    discount: Discount


class OfferArms(BaseModel):
    """The columns of the model's answer after the first, which is no offer.

    `features`, their version and their hash are what the network was trained on; it must not be
    asked about others (`problem`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=64)]
    features: tuple[str, ...] = OFFER_FEATURES
    features_version: int = OFFER_FEATURES_VERSION
    feature_hash: str = ""  # logs of decisions say none, nor do networks of before there was one

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or NO_OFFER_ARM in names:
            raise ValueError(f"arms: names must differ, and none of them is {NO_OFFER_ARM!r}")
        return self

    def of_this_version(self) -> Self:
        """The same arms as of a network that is fitted by this version."""
        said = {
            "features": OFFER_FEATURES,
            "features_version": OFFER_FEATURES_VERSION,
            "feature_hash": offer_feature_hash(),
        }
        return self.model_copy(update=said)

    @property
    def problem(self) -> str | None:
        """Why this version can not ask the model; None where it can."""
        if self.feature_hash == offer_feature_hash():
            return None
        return (
            f"learned from offer features {self.features_version} ({self.feature_hash[:12]}), this "
            f"version has {OFFER_FEATURES_VERSION} ({offer_feature_hash()[:12]}); fit with "
            "`tillwise-train uplift` and export again"
        )

    def column(self, discount: Discount) -> int | None:
        """The column of the model's answer that speaks for `discount`: the arm of its kind that is
        nearest by ratio; None where none is near enough to say anything."""
        near = [
            (ratio, place)
            for place, arm in enumerate(self.arms, start=1)
            if arm.discount.kind == discount.kind
            and (ratio := _apart(arm.discount, discount)) <= _FURTHEST
        ]
        return min(near)[1] if near else None


def _apart(one: Discount, other: Discount) -> float:
    """How many times the larger of two discounts of a kind is the smaller."""
    sizes = [size_of(one), size_of(other)]
    return max(sizes) / min(sizes)


def size_of(discount: Discount) -> float:
    """What discounts of a kind are told apart by."""
    if isinstance(discount, PercentOff):
        return discount.percent
    return float(discount.amount) if discount.kind == "amount" else 1.0


def split_answer(answer: list[float]) -> tuple[list[float], list[float]]:
    """The model's answer [2 * A] as chance of the outcome and expected spend under every arm, no
    offer first."""
    half = len(answer) // 2
    return answer[:half], answer[half:]
