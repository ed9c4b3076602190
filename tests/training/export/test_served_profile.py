"""A run says what its training window looks like to whoever serves it."""

import pytest

from contract.drift import drift
from contract.drift_profile import Profile
from contract.manifest import DRIFT_BASELINE
from contract.pair_features import PAIR_FEATURES
from contract.served import CART_VECTOR, LEAD, SCORE
from training.fit import Fit
from training.recommender import Recommender
from training.run_folder import Run


def test_a_run_carries_its_profile(run: Run, fitted: tuple[Fit, Recommender]) -> None:
    _, recommender = fitted
    held = Profile.model_validate_json((run.folder / DRIFT_BASELINE).read_bytes())
    assert held == recommender.profile
    assert {one.name for one in held.columns} == {*PAIR_FEATURES, SCORE, LEAD}
    (cart,) = held.vectors
    assert (cart.name, len(cart.total)) == (CART_VECTOR, run.recipe.dimension)
    assert {one.verdict for one in drift(held, held).columns} <= {"stable", "too_few"}
    assert max(one.psi for one in drift(held, held).columns) == pytest.approx(0.0)
