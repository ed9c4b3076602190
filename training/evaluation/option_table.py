"""The `options` protocol: the order of ways to pay and to deliver against the popularity order."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from contract.errors import UserError
from contract.figures import Figures
from contract.option_order import OPTION_ORDER, OptionOrder, OrderTable
from training.commands import peak_mib
from training.data.storage import make_folder
from training.evaluation.uplift_metrics import interval, resamples
from training.options.choices import Choice, Kind, read_choices, read_olist
from training.options.fit import chances_of, fit_order, log_losses, popularity

_FEWEST = 1_000
_RESAMPLES = 200
_KINDS: tuple[Kind, ...] = ("payment", "shipping")


def option_table(path: Path, seeds: int, output: Path | None) -> Figures:
    """Olist's payments (a file) or simulated checkouts (a folder); with `output` the tables of the
    first split go there as serving reads them. UserError as the readers raise it."""
    figures = Figures("benchmark options")
    read = {"payment": read_olist(path)} if path.is_file() else {}
    read = read or {kind: read_choices(path, kind) for kind in _KINDS}
    tables = {}
    for kind, choices in read.items():
        if len(choices) < _FEWEST:
            raise UserError(f"{path}: {len(choices)} choices; at least {_FEWEST} are needed")
        tables[kind] = _compare(figures, kind, choices, seeds)
    if output is not None:
        make_folder(output)
        told = OptionOrder(payment=tables.get("payment"), shipping=tables.get("shipping"))
        (output / OPTION_ORDER).write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")
        figures.notes.append(f"{OPTION_ORDER}: of the first split")
    figures.notes += [
        f"{seeds} splits by person, 60 % learned from, 20 % chosen on, 20 % tested; low and high: "
        f"{_RESAMPLES} bootstrap resamples of the test choices",
        "gain: log-loss of the popularity order (of the region where there are any) less ours",
        "Olist: from the order's value alone; instalments and parts would tell the answer. No "
        "public data of shipping choices exists: those are synthetic"
        if path.is_file()
        else "synthetic; public data of shipping choices does not exist",
    ]
    return figures


def _compare(figures: Figures, kind: str, choices: Sequence[Choice], seeds: int) -> OrderTable:
    rows: dict[str, dict[str, list[float]]] = {}
    first, began = None, time.perf_counter()
    for seed in tqdm(range(seeds), desc=kind, unit="split", disable=None):
        people = max(one.subject for one in choices) + 1
        place = np.random.default_rng(seed).random(people)
        train = [one for one in choices if place[one.subject] < 0.6]
        check = [one for one in choices if 0.6 <= place[one.subject] < 0.8]
        test = [one for one in choices if place[one.subject] >= 0.8]
        models = {
            "popularity": popularity(train, by_region=False),
            "popularity-by-region": popularity(train, by_region=True),
            "tillwise": fit_order(train, check),
        }
        first = first or models["tillwise"]
        losses = {name: log_losses(table, test) for name, table in models.items()}
        weight = resamples(len(test), _RESAMPLES, seed)
        for name, table in models.items():
            row = rows.setdefault(name, {})
            told = [_first(table, one) == one.taken for one in test]
            _keep(row, "log-loss", float(losses[name].mean()))
            _keep(row, "top-1", float(np.mean(told)))
            gained = losses["popularity-by-region"] - losses[name]
            ends = interval((weight[1:] @ gained) / weight[1:].sum(1))
            for metric, value in zip(("gain", "low", "high"), (gained.mean(), *ends), strict=True):
                _keep(row, metric if metric == "gain" else f"gain {metric}", float(value))
            for which, chosen in _slices(test).items():
                if chosen.any():
                    _keep(row, f"{which} top-1", float(np.array(told)[chosen].mean()))
    for name, row in rows.items():
        figures.add(f"{kind}/{name}" if name != "tillwise" else kind + "/tillwise", row)
    figures.add(kind, {}, seconds=time.perf_counter() - began, peak_mib=peak_mib())
    assert first is not None
    return first


def _keep(row: dict[str, list[float]], metric: str, value: float) -> None:
    row.setdefault(metric, []).append(value)


def _first(table: OrderTable, choice: Choice) -> str:
    chances = chances_of(table, choice)
    return choice.options[max(range(len(chances)), key=chances.__getitem__)]


def _slices(test: Sequence[Choice]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    middle = float(np.median([one.value for one in test]))
    return {
        "with history": np.array([bool(one.own) for one in test]),
        "without history": np.array([not one.own for one in test]),
        "mobile": np.array([one.device == "mobile" for one in test]),
        "dear": np.array([one.value > middle for one in test]),
    }
