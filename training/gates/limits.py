"""Every threshold of the gates in one place; `retrain --gate key=value` changes one for a run."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from contract.errors import UserError
from training.recipes import with_settings


@dataclass(frozen=True)
class Limits:
    """Shares are of one; `loss` means relative to the champion's figure.

    The defaults are for a shop of thousands of baskets a week; what they let through and what not
    is measured in docs/lab.md.
    """

    # quality: of NDCG@5 over all questions, and of each slice.
    quality_loss: float = 0.02
    slice_loss: float = 0.05
    min_slice: int = 100  # questions; smaller slices are told, not judged
    # calibration: share of the ranker's probability that stands in the wrong bin.
    calibration_error: float = 0.10
    calibration_worse: float = 0.05  # than the champion's
    # cold start: as `slice_loss`, for new items and new shoppers, who are few and noisy.
    cold_loss: float = 0.10
    # data health, of the fresh window.
    unknown_items: float = 0.02  # share of lines whose item the catalogue does not have
    duplicate_events: float = 0.01
    unpriced_lines: float = 0.5
    min_purchases: int = 100
    empty_days: float = 0.2  # share of its days with under a quarter of the usual purchases
    least_volume: float = 0.4  # purchases a day against the weeks before
    most_volume: float = 2.5
    # drift: of fresh against training figures, beyond chance (see contract.drift).
    drift_psi: float = 0.25
    drift_ks: float = 0.20
    drift_shoppers: int = 50  # of fewer nothing is said
    # leakage.
    single_feature_auc: float = 0.985
    jump: float = 0.5  # NDCG@5 may rise so much, relative to the champion
    known_afterwards: float = 0.10  # share of purchases foretold by events that came in later
    # fairness: least ratio of the worst served group to the best (see contract.fairness).
    offer_ratio: float = 0.8
    exposure_ratio: float = 0.8
    quality_ratio: float = 0.8
    min_group: int = 50  # people; smaller groups are named, not judged
    # parity and latency.
    parity: float = 1e-4
    slower: float = 0.35  # of a decision, relative to the champion's; of the 99th percentile too
    decision_ms: float = 60.0  # so long it may take anyway; a checkout has 100 ms in all
    less_full: float = 0.05  # of the answers, than with the champion

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise UserError(f"--gate {field.name}: must be more than zero")


def limits(settings: Sequence[str] | None) -> Limits:
    """The limits changed by `key=value` texts; UserError naming what is wrong."""
    try:
        changed: Limits = with_settings(Limits(), list(settings or []))
    except UserError as error:
        raise UserError(str(error).replace("--set", "--gate")) from None
    return changed
