"""What a fitted uplift network says of a log whose arms may be others than it was fitted on: each
arm of the log is answered for by the network's arm that is nearest to its discount, as in the
gateway (contract.offer_arms); about any other the network says nothing."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contract.errors import UserError
from contract.policy import NO_OFFER
from training.data.checkouts import read_offer_arms
from training.data.offer_log import Floats, OfferLog
from training.uplift.fit import predicted
from training.uplift.run_folder import read_uplift


def network_chances(uplift: Path, data: Path, log: OfferLog) -> tuple[Floats, frozenset[str]]:
    """[N, A] the chance of the outcome under every arm of `log`, read from `data`, and the arms
    that the network in `uplift` speaks of. UserError where there is none."""
    model, arms = read_uplift(uplift)
    discounts = {arm.name: arm.discount for arm in read_offer_arms(data).arms}
    columns: Mapping[str, int | None] = {
        name: arms.column(discounts[name]) for name in log.arms[1:] if name in discounts
    }
    known = {name: column for name, column in columns.items() if column is not None}
    if not known:
        raise UserError(
            f"{uplift}: says nothing of {', '.join(log.arms[1:])}; it was learned from "
            f"{', '.join(arm.name for arm in arms.arms)}"
        )
    answer = predicted(model, log)[0]
    told = np.repeat(answer[:, :1], len(log.arms), axis=1)
    for name, column in known.items():
        told[:, log.arms.index(name)] = answer[:, column]
    assert log.arms[NO_OFFER] not in known
    return told, frozenset(known)
