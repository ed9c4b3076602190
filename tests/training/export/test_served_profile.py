"""What a run says of its training window: the same checkouts are no drift, smaller carts are."""

from dataclasses import replace

import pytest

from contract.drift import DriftLimits, drift
from contract.drift_profile import Profile
from contract.manifest import DRIFT_BASELINE
from contract.pair_features import PAIR_FEATURES
from contract.served import CART_VECTOR, LEAD, SCORE
from training.export.served_profile import served_profile
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


def test_checkouts_with_smaller_carts_have_drifted(fitted: tuple[Fit, Recommender]) -> None:
    fit, recommender = fitted
    assert recommender.profile is not None
    windows, _ = fit.ranking_questions()
    asked = [one.situation for one in windows[0].asked if len(one.situation.cart) > 1]
    one_line = [replace(one, cart=one.cart[:1]) for one in asked]
    limits = DriftLimits(min_units=20)
    shifted = drift(recommender.profile, served_profile(recommender, one_line), limits).shifted
    assert "cart_size" in {one.name for one in shifted}
