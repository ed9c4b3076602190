"""`evaluate-policy` and `fairness` on a simulated log: figures, reports, refusals, statuses."""

import json
import shutil
from pathlib import Path

import pytest

from contract.clock import FixedClock, from_us
from tests.training.data.test_simulate import run as simulated
from training.__main__ import main
from training.data.offer_log import Floats
from training.export.release import export
from training.run_folder import Run
from training.uplift.evidence import read_evidence, write_evidence


@pytest.fixture(scope="module")
def learned(
    catalogue_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, Path]:
    folder = tmp_path_factory.mktemp("policy")
    data = simulated(catalogue_file, folder / "shop", num_shoppers=900)
    offers = folder / "offers"
    assert main(["uplift", "--data", str(data), "--output", str(offers)]) == 0
    return str(data), str(offers), folder


def test_a_policy_is_judged(learned: tuple[str, str, Path], tmp_path: Path) -> None:
    data, offers, _ = learned
    told = tmp_path / "told.json"
    asked = ["evaluate-policy", "--data", data, "--uplift", offers, "--json", str(told)]
    assert main([*asked, "--holdout-share", "0.2", "--explore-share", "0.5"]) == 0
    rows = {row["name"]: row["metrics"] for row in json.loads(told.read_text())["rows"]}
    doubly = rows["offers/DR"]
    assert doubly["low"]["mean"] < doubly["margin"]["mean"] < doubly["high"]["mean"]
    assert abs(doubly["off"]["mean"]) < 0.2
    assert rows["offers/overlap"]["effective"]["mean"] >= 100
    assert rows["offers/overlap"]["unsupported"]["mean"] == 0.0


def test_the_policy_that_a_release_carries_is_judged_from_its_files(
    learned: tuple[str, str, Path], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, offers, _ = learned
    models, releases = tmp_path / "models", tmp_path / "releases"
    clock = FixedClock(from_us(0))
    sure = shutil.copytree(offers, tmp_path / "offers")
    enough = {"offered": 0.5, "tried": 400, "low": 0.1}  # as of many more decisions
    write_evidence(sure, read_evidence(sure).model_copy(update=enough))
    made = export(run, models, releases, clock, {}, uplift=sure)
    (releases / "current").write_text(made.manifest.release_id)
    folders = ["--releases", str(releases), "--models", str(models)]

    def judged(*policy: str) -> dict[str, dict[str, float]]:
        told = tmp_path / "told.json"
        asked = ["evaluate-policy", "--data", data, *policy, "--explore-share", "0.5"]
        assert main([*asked, "--json", str(told)]) == 0
        return {
            row["name"].rpartition("/")[2]: {n: m["mean"] for n, m in row["metrics"].items()}
            for row in json.loads(told.read_text())["rows"]
            if "/" in row["name"]
        }

    by_folder, live = judged("--uplift", offers), judged("--release", "live", *folders)
    assert by_folder.keys() == live.keys() >= {"IPS", "SNIPS", "DR", "overlap"}
    for name, figures in live.items():
        assert figures == pytest.approx(by_folder[name], rel=1e-3, abs=1e-3), name
    later = FixedClock(from_us(60_000_000))
    plain = export(run, models, releases, later, {}).manifest.release_id
    capsys.readouterr()
    asked = ["evaluate-policy", "--data", data, "--release", plain, *folders]
    assert main(asked) == 2
    assert "carries no uplift network" in capsys.readouterr().err
    (releases / made.manifest.release_id / "offer_arms.json").write_text("{}")
    assert main([*asked[:4], made.manifest.release_id, *folders]) == 2
    assert "offer_arms.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (["--always", "free_shipping", "--held-out-by", "0"], 3, "overlap: only"),
        (["--always", "half_price"], 2, "the arms are none, "),
        (["--always", "none", "--price", "-1"], 2, "--price -1.0: out of range"),
        (["--always", "none", "--price", "inf"], 2, "--price inf: out of range"),
        (["--always", "none", "--explore-share", "2"], 2, "--explore-share 2.0: out of range"),
        (["--always", "none", "--explore-share", "nan"], 2, "--explore-share nan: out of range"),
        (["--always", "none", "--holdout-share", "nan"], 2, "--holdout-share nan: out of range"),
        (["--always", "none", "--offers", "gone.json"], 2, "gone.json: no such file"),
    ],
)
def test_refusals(
    learned: tuple[str, str, Path],
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    status: int,
    said: str,
) -> None:
    assert main(["evaluate-policy", "--data", learned[0], *asked]) == status
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "tillwise-train" in one]
    assert said in line


def test_a_book_of_offers_bounds_the_policy(
    learned: tuple[str, str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, offers, _ = learned
    ten = {
        "offer_id": "ten",
        "title": "Ten",
        "discount": {"kind": "percent", "percent": 10},
        "currency": "USD",
    }
    book = {"holdout_share": 0.3, "explore_share": 0.6, "offers": [ten]}
    file = tmp_path / "book.json"
    file.write_text(json.dumps(book))
    asked = ["evaluate-policy", "--data", data, "--uplift", offers, "--offers", str(file)]
    assert main(asked) == 0
    file.write_text(json.dumps(book | {"offers": [ten | {"discount": {"kind": "nothing"}}]}))
    assert main(asked) == 2
    assert "offers.0.discount" in capsys.readouterr().err


def test_the_report_of_fairness(
    learned: tuple[str, str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, offers, _ = learned
    output = tmp_path / "report"
    asked = ["fairness", "--data", data, "--uplift", offers, "--output", str(output)]
    assert main([*asked, "--least-people", "20"]) == 0
    page = (output / "fairness.html").read_text()
    assert "In short" in page
    assert page.count("<svg") >= 3
    assert "Offered something, by region: least for" in page
    assert "floor 0.9 by region" in page
    assert "lottery 0.25" in page
    assert "Week by week" in page
    told = json.loads((output / "fairness.json").read_text())
    assert {one["attribute"] for one in told["Offers"]} == {"region"}
    capsys.readouterr()
    assert main(["fairness", "--data", data, "--output", str(output)]) == 2
    assert "nothing to audit" in capsys.readouterr().err


def test_everybody_too_few(learned: tuple[str, str, Path], tmp_path: Path) -> None:
    data, offers, _ = learned
    output = tmp_path / "report"
    asked = ["fairness", "--data", data, "--uplift", offers, "--output", str(output)]
    assert main([*asked, "--least-people", "100000", "--gate"]) == 0
    page = (output / "fairness.html").read_text()
    assert "too few people to say anything" in page
    assert "Too small to judge" in page


def test_demographics_that_match_nobody_are_refused(
    learned: tuple[str, str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, offers, _ = learned
    people = tmp_path / "people.csv"
    people.write_text("subject_id,age\nsomebody-else,65+\nanother,19-24\n")
    asked = ["fairness", "--data", data, "--uplift", offers, "--output", str(tmp_path / "report")]
    assert main([*asked, "--demographics", str(people), "--gate"]) == 3
    assert "fairness/groups: age: no two groups of 50 people" in capsys.readouterr().err


def test_a_policy_that_knows_one_region_is_refused(
    learned: tuple[str, str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unfair policy, planted: whoever is not in the first region is offered nothing."""
    from training.data.checkouts import read_checkouts
    from training.evaluation import off_policy

    data, offers, _ = learned
    table = read_checkouts(Path(data))
    context = table.filter(table["arm"].is_valid())["context"].to_pylist()
    first = sorted({one["region"] for one in context})[0]
    usual = off_policy.chances

    def unfair(*asked: object) -> Floats:
        target = usual(*asked)  # type: ignore[arg-type]
        away = [one["region"] != first for one in context]
        target[away] = 0.0
        target[away, 0] = 1.0
        return target

    monkeypatch.setattr(off_policy, "chances", unfair)
    asked = ["fairness", "--data", data, "--uplift", offers, "--output", str(tmp_path / "report")]
    assert main([*asked, "--least-people", "20", "--gate"]) == 3
    assert "fairness/offers: offered something by region" in capsys.readouterr().err
