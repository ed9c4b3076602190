"""The `redeem` protocol: propensity to redeem a coupon of Complete Journey's targeted campaigns."""

import time

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from contract.figures import Figures
from training.commands import peak_mib
from training.data.campaigns import FEATURES, Campaigns, read_campaigns

NAME = "propensity-to-redeem"
VALIDATE_FROM, TEST_FROM = np.datetime64("2017-08-01"), np.datetime64("2017-09-15")
_SETTINGS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 50,
    "lambda_l2": 10.0,
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
}
Floats = npt.NDArray[np.float64]


def redeem_table(seeds: int) -> Figures:
    """AUC and log-loss on the campaigns that start last, of the model and of what is simpler."""
    rows = read_campaigns()
    train = rows.where(rows.starts < VALIDATE_FROM)
    check = rows.where((rows.starts >= VALIDATE_FROM) & (rows.starts < TEST_FROM))
    test = rows.where(rows.starts >= TEST_FROM)
    figures = Figures("benchmark redeem")
    share = np.full(len(test.redeemed), train.redeemed.mean())
    figures.add("base-rate", _measured(test, [share]))
    figures.add("base-rate-of-type", _measured(test, [_by_type(train, test)]))
    own = test.features[:, FEATURES.index("redeemed_share")]
    figures.add("own-share-before", {"AUC": [auc(test.redeemed, own)]})
    began = time.perf_counter()
    boosters = [_fitted(train, check, seed) for seed in range(seeds)]
    told = [np.asarray(one.predict(test.features), np.float64) for one in boosters]
    seconds = time.perf_counter() - began
    figures.add(NAME, _measured(test, told), seconds=seconds, peak_mib=peak_mib())
    figures.notes += [
        f"{len(train.redeemed)} sendings learned from, {len(check.redeemed)} chosen on, "
        f"{len(test.redeemed)} from {TEST_FROM} on tested; {test.redeemed.mean():.1%} redeemed",
        "the campaigns were targeted, not randomised: this says who redeems, not what a coupon "
        "changes; it is no uplift, and no offer is decided by it",
    ]
    return figures


def auc(redeemed: npt.NDArray[np.bool_], told: Floats) -> float:
    """The chance that who redeemed is told more than who did not; half where they are equal."""
    _, place, counts = np.unique(told, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    ones = int(redeemed.sum())
    zeros = len(redeemed) - ones
    return float((rank[redeemed].sum() - ones * (ones + 1) / 2.0) / (ones * zeros))


def _measured(test: Campaigns, told: list[Floats]) -> dict[str, list[float]]:
    clipped = [np.clip(one, 1e-6, 1 - 1e-6) for one in told]
    losses = [-np.log(np.where(test.redeemed, one, 1 - one)).mean() for one in clipped]
    return {
        "AUC": [auc(test.redeemed, one) for one in told],
        "log-loss": [float(loss) for loss in losses],
    }


def _by_type(train: Campaigns, test: Campaigns) -> Floats:
    kinds, known = np.array(train.kind), sorted(set(train.kind))
    shares = {kind: float(train.redeemed[kinds == kind].mean()) for kind in known}
    return np.array([shares.get(kind, float(train.redeemed.mean())) for kind in test.kind])


def _fitted(train: Campaigns, check: Campaigns, seed: int) -> lgb.Booster:
    data = lgb.Dataset(train.features, train.redeemed.astype(float))
    held_out = lgb.Dataset(check.features, check.redeemed.astype(float), reference=data)
    return lgb.train(
        _SETTINGS | {"seed": seed, "bagging_fraction": 0.8, "bagging_freq": 1},
        data,
        300,
        valid_sets=[held_out],
        callbacks=[lgb.early_stopping(30, verbose=False)],
    )
