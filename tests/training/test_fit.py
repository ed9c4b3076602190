"""A fit of a shop with favourites and pairs: it learns them, repeats itself, and resumes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from contract.clock import to_us
from contract.errors import UserError
from tests.training.conftest import small_recipe
from training.data.baskets import read_baskets
from training.data.source import Source, read_source
from training.data.storage import read_events
from training.evaluation.comparison import Comparison
from training.fit import Fit
from training.recipes import recipe
from training.recommender import Recommender
from training.trainer import History

CPU = torch.device("cpu")


def test_it_beats_every_counting_baseline_and_item_knn_from_the_cart_alone(
    source: Source, fitted: tuple[Fit, Recommender]
) -> None:
    fit, recommender = fitted
    comparison = Comparison("basket-completion", source, recommender.vocabulary)
    comparison.add_counting()
    comparison.add_lightgbm(fit)
    comparison.add_recommender(recommender, 1.0)
    rows = {row["name"]: row["metrics"] for row in comparison.figures("test").rows}
    ndcg = {name: metrics["NDCG@5"]["mean"] for name, metrics in rows.items()}
    assert set(ndcg) >= {"popularity", "item-knn", "blend", "lightgbm", "tillwise"}
    assert ndcg["tillwise"] > ndcg["popularity"] + 0.05
    assert ndcg["tillwise"] > ndcg["personal-frequency"]
    assert ndcg["tillwise/cart-only"] >= 0.95 * ndcg["item-knn"]
    assert all(0 <= m["mean"] <= 1 for metrics in rows.values() for m in metrics.values())


def test_next_basket_has_tifuknn_in_its_table(
    source: Source, fitted: tuple[Fit, Recommender]
) -> None:
    comparison = Comparison("next-basket", source, fitted[1].vocabulary)
    comparison.add_counting()
    comparison.add_recommender(fitted[1], 1.0)
    names = [row["name"] for row in comparison.figures("test").rows]
    assert names[:4] == ["popularity", "personal-frequency", "recency-frequency", "tifuknn"]
    assert "tillwise" in names


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(source: Source) -> None:
    settings = ["tower_epochs=1", "ranker_epochs=1", "tower_examples=200", "ranker_examples=80"]
    first, second, other = (
        Fit(source, small_recipe(*settings, f"seed={seed}"), device=CPU).run() for seed in (3, 3, 4)
    )
    for model in ("towers", "ranker"):
        a, b, c = (getattr(r, model).state_dict() for r in (first, second, other))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert not all(torch.equal(a[name], c[name]) for name in a)


def test_an_interrupted_fit_goes_on_and_ends_the_same(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = small_recipe("tower_examples=200", "ranker_examples=80", "tower_epochs=2")
    whole = Fit(source, chosen, device=CPU).run()
    cut_off = Fit(source, chosen, device=CPU, checkpoints=tmp_path)
    count, batches = 0, Fit._train

    def interrupted(self: Fit, *arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        batches(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Fit, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut_off.run()
    monkeypatch.undo()
    assert {path.name for path in tmp_path.iterdir()} == {"towers.pt", "ranker.pt"}
    resumed_fit = Fit(source, chosen, device=CPU, checkpoints=tmp_path)
    resumed = resumed_fit.run()
    assert isinstance(resumed_fit.report.histories["towers"], History)
    for model in ("towers", "ranker"):
        a, b = (getattr(r, model).state_dict() for r in (whole, resumed))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("tower_examples=100", "ranker_examples=60", "tower_epochs=1", "ranker_epochs=1")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "_train_ranker", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Fit(source, small_recipe(*few), device=CPU, checkpoints=tmp_path).run()
    monkeypatch.undo()
    for changed in ("id_dropout=0.9", "negatives=16", "dimension=32"):
        other = Fit(source, small_recipe(*few, changed), device=CPU, checkpoints=tmp_path)
        with pytest.raises(UserError, match=r"towers\.pt: written with other settings or data"):
            other.run()


def test_models_learn_only_from_what_was_written_under_personalization(
    shop_folder: Path,
) -> None:
    events = read_events(shop_folder)
    every_third = [number % 3 == 0 for number in range(len(events))]
    agreed = events["purposes"].to_pylist()
    mixed = [["analytics"] if no else given for no, given in zip(every_third, agreed, strict=True)]
    column = events.column_names.index("purposes")
    withheld = events.set_column(column, "purposes", pa.array(mixed, pa.list_(pa.string())))
    absent = events.filter(pa.array([not no for no in every_third]))
    learned, without = read_baskets(withheld), read_baskets(absent)
    assert learned.basket_id == without.basket_id
    assert len(learned) == len(events) - sum(every_third)
    nobody = events.set_column(column, "purposes", pa.array([["analytics"]] * len(events)))
    with pytest.raises(UserError, match="none of them written under personalization"):
        read_baskets(nobody)


def test_the_protocol_keeps_its_catalogue(source: Source) -> None:
    window_cut = to_us(source.window.train_until)
    other = source.baskets.vocabulary(window_cut, 100)
    with pytest.raises(UserError, match="items of 5 or more training baskets"):
        Comparison("basket-completion", source, other)


def test_what_the_ranker_learns_from_lies_after_what_it_is_told(
    fitted: tuple[Fit, Recommender],
) -> None:
    fit, _ = fitted
    asked, held_out, _ = fit.ranking_questions()
    assert min(q.situation.now_us for q in asked) >= fit.ranker_us
    assert max(q.situation.now_us for q in [*asked, *held_out]) < fit.cut_us
    assert min(q.situation.now_us for q in held_out) >= fit.validate_us
    known = [q.situation.view for q in asked if q.situation.view.known]
    assert max(int(v.interactions["occurred_us"].max()) for v in known) < fit.ranker_us
    assert 0.1 < 1 - len(known) / len(asked) < 0.45  # a quarter is asked as unknown
    assert all(
        not set(fit.vocabulary.indices(q.situation.cart)) & set(q.targets.tolist()) for q in asked
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["dimension"], "expected key=value"),
        (["speed=9"], "expected key=value with a key of"),
        (["dimension=x"], "'x' is not a int"),
        (["dropout=nan"], "finite"),
        (["heads=3"], "does not divide"),
        (["heads=0"], "heads must be more than zero"),
        (["batch_size=0"], "batch_size must be more than zero"),
        (["dropout=1.5"], "dropout is a share from 0 to 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe("demo", settings)


def test_too_little_data_is_refused_with_the_reason(source: Source, shop_folder: Path) -> None:
    with pytest.raises(UserError, match="no item stands in 5000 or more baskets"):
        Fit(source, small_recipe("min_item_baskets=5000"), device=CPU)
    with pytest.raises(UserError, match="--train-until: 'soon' is not a date"):
        read_source(shop_folder, {"train_until": "soon"})


@pytest.mark.gpu
def test_bfloat16_on_cuda_reaches_the_losses_of_float32_on_the_cpu(source: Source) -> None:
    chosen = small_recipe("tower_epochs=2")
    histories = []
    for name, compiled in (("cpu", False), ("cuda", False), ("cuda", True)):
        fit = Fit(source, chosen, device=torch.device(name), compiled=compiled)
        recommender = fit.run()
        vectors = recommender.towers.cpu().eval().item_vectors()
        assert torch.isfinite(vectors).all()
        histories.append(fit.report.histories)
    for stage in ("towers", "ranker"):
        on_cpu, *on_cuda = ([h[stage].train_loss[0], h[stage].validation[0]] for h in histories)
        for found in on_cuda:
            assert np.allclose(on_cpu, found, rtol=0.05), stage


@pytest.mark.gpu
def test_an_interrupted_fit_on_cuda_goes_on(source: Source, tmp_path: Path) -> None:
    chosen = small_recipe("tower_examples=200", "ranker_examples=80", "tower_epochs=2")
    cuda = torch.device("cuda")
    whole = Fit(source, chosen, device=cuda, checkpoints=tmp_path)
    whole.run()
    assert (tmp_path / "towers.pt").exists()
    resumed = Fit(source, chosen, device=cuda, checkpoints=tmp_path)
    resumed.run()
    assert resumed.report.histories["towers"] == whole.report.histories["towers"]


@pytest.mark.gpu
def test_too_large_for_the_cuda_device_names_what_to_lower(source: Source) -> None:
    chosen = small_recipe("batch_size=1200", "negatives=20000000")
    message = "towers: the CUDA device has not enough memory; lower `--set batch_size=` or"
    with pytest.raises(UserError, match=message):
        Fit(source, chosen, device=torch.device("cuda")).run()
