"""Choices as they are read, tables from them, and the benchmark by command."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.option_order import OptionOrder
from tests.training.data.test_simulate import run
from training.__main__ import main
from training.data.storage import CHECKOUTS_FILE, read_parquet
from training.options.choices import Choice, read_choices, read_olist
from training.options.fit import fit_order, log_losses, popularity


def olist(path: Path, rows: list[tuple[str, int, str, int, float]]) -> Path:
    names = ("order_id", "payment_sequential", "payment_type", "payment_installments")
    columns = dict(zip((*names, "payment_value"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)
    return path


def test_an_order_of_olist_is_its_first_type_and_its_whole_value(tmp_path: Path) -> None:
    path = olist(
        tmp_path / "paid.parquet",
        [
            ("a", 2, "voucher", 1, 5.0),
            ("a", 1, "credit_card", 8, 20.0),
            ("b", 1, "boleto", 1, 9.99),
            ("c", 1, "not_defined", 1, 0.0),
        ],
    )
    first, second = read_olist(path)
    assert (first.taken, first.value) == ("credit_card", 2_500)
    assert (second.taken, second.value) == ("boleto", 999)
    assert first.options == ("boleto", "credit_card")


def test_instalments_and_parts_are_no_part_of_a_choice(tmp_path: Path) -> None:
    one = [("a", 1, "credit_card", 1, 30.0), ("b", 1, "boleto", 1, 10.0)]
    other = [
        ("a", 1, "credit_card", 12, 20.0),
        ("a", 2, "credit_card", 3, 10.0),
        ("b", 1, "boleto", 9, 10.0),
    ]
    paths = tmp_path / "one.parquet", tmp_path / "other.parquet"
    assert read_olist(olist(paths[0], one)) == read_olist(olist(paths[1], other))


def test_earlier_choices_are_those_before_and_only_where_agreed(
    catalogue_file: Path, tmp_path: Path
) -> None:
    folder = run(catalogue_file, tmp_path, num_shoppers=300)
    choices = read_choices(folder, "payment")
    log = read_parquet(folder / CHECKOUTS_FILE).to_pylist()
    assert len(choices) == sum(row["payment_type"] is not None for row in log)
    seen: dict[int, list[str]] = {}
    for one in choices:
        before = seen.setdefault(one.subject, [])
        if one.region is None:
            assert one.own == {}
        else:
            assert one.own == {name: before.count(name) for name in set(before)}
        before.append(one.taken)
    assert any(one.own for one in choices)


def planted(size: int, seed: int) -> list[Choice]:
    """North pays by card, South by wallet; dear orders by invoice more often; some have habits."""
    rng = np.random.default_rng(seed)
    names, choices = ("card", "invoice", "wallet"), []
    for subject in range(size):
        region = "North" if rng.random() < 0.7 else "South"
        value = float(rng.uniform(0, 10_000))
        shares = np.array([0.7, 0.1, 0.2] if region == "North" else [0.2, 0.1, 0.7])
        shares[1] *= 4 if value > 5_000 else 1
        usual = names[rng.integers(0, 3)] if rng.random() < 0.3 else None
        taken = usual or str(rng.choice(names, p=shares / shares.sum()))
        own = {usual: 5} if usual else {}
        choices.append(Choice(names, taken, value, subject, region, None, own))
    return choices


def test_what_moves_choices_is_learned() -> None:
    train, check, test = planted(6_000, 1), planted(2_000, 2), planted(3_000, 3)
    ours = log_losses(fit_order(train, check), test).mean()
    by_region = log_losses(popularity(train, by_region=True), test).mean()
    everywhere = log_losses(popularity(train, by_region=False), test).mean()
    assert ours < by_region - 0.1
    assert by_region < everywhere - 0.03


def test_a_region_with_few_is_near_everybody() -> None:
    train = planted(3_000, 1)
    alone = Choice(("card", "invoice", "wallet"), "invoice", 100.0, 9_999, "Island")
    table = fit_order([*train, alone], planted(500, 2))
    everywhere = table.everywhere
    total = sum(everywhere.values())
    for name, share in table.regions["Island"].items():
        assert share == pytest.approx(everywhere[name] / total, abs=0.06)


def test_the_benchmark_writes_what_serving_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    value = rng.uniform(1, 100, 2_000)
    kinds = np.where(rng.random(2_000) < value / 100, "credit_card", "boleto").tolist()
    rows = [(str(n), 1, kind, 1, float(value[n])) for n, kind in enumerate(kinds)]
    data, figures = olist(tmp_path / "paid.parquet", rows), tmp_path / "figures.json"
    asked = ["benchmark", "options", "--data", str(data), "--seeds", "2"]
    assert main([*asked, "--json", str(figures), "--output", str(tmp_path)]) == 0
    told = {row["name"]: row["metrics"] for row in json.loads(figures.read_text())["rows"]}
    assert told["payment/tillwise"]["gain low"]["mean"] > 0
    table = OptionOrder.model_validate_json((tmp_path / "option_order.json").read_bytes())
    assert table.payment is not None
    assert table.shipping is None
    assert main(["benchmark", "options"]) == 2
    assert "options needs --data" in capsys.readouterr().err
