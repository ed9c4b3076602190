"""From choices to the tables of `contract.option_order`, with how much to trust them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from contract.option_order import OrderTable, Shares, probabilities
from training.options.choices import Choice

_PARTS = 20
_SHRINKS = (20.0, 100.0, 400.0)
_PERSONAL = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_LEAST = 1e-6


def fit_order(train: Sequence[Choice], validation: Sequence[Choice]) -> OrderTable:
    """The tables of `train`; how far they are shrunk, and what own choices weigh, are those with
    the least log-loss on `validation`."""
    tables = [_table(train, shrink, 4.0) for shrink in _SHRINKS]
    best = min(tables, key=lambda table: log_losses(table, validation).mean())
    if not any(choice.own for choice in validation):
        return best
    weighed = [best.model_copy(update={"personal": personal}) for personal in _PERSONAL]
    return min(weighed, key=lambda table: log_losses(table, validation).mean())


def popularity(train: Sequence[Choice], *, by_region: bool) -> OrderTable:
    """The order that is compared with: what everybody takes, or everybody of the region."""
    full = _table(train, _SHRINKS[0], 1e9)
    return OrderTable(
        everywhere=full.everywhere, regions=full.regions if by_region else {}, personal=1e9
    )


def chances_of(table: OrderTable, choice: Choice) -> list[float]:
    """The chance of each of the choice's options."""
    return probabilities(
        table,
        choice.options,
        region=choice.region,
        device=choice.device,
        value=choice.value,
        own=choice.own,
    )


def log_losses(
    table: OrderTable, choices: Sequence[Choice]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of every choice: minus the logarithm of the chance of what was taken."""
    told = [chances_of(table, one)[one.options.index(one.taken)] for one in choices]
    return -np.log(np.maximum(told, 1e-12))


def _table(train: Sequence[Choice], shrink: float, personal: float) -> OrderTable:
    counts = Counter(one.taken for one in train)
    names = sorted(set(counts) | {name for one in train for name in one.options})
    # Of those who could take it: an option that few regions have is not rare where it is.
    could = Counter(name for one in train for name in one.options)
    everywhere = {n: (counts[n] + 1.0) / (could[n] + len(names)) for n in names}
    edges = np.unique(np.quantile([one.value for one in train], np.arange(1, _PARTS) / _PARTS))
    regions = _regions(train, everywhere, shrink)

    def base(one: Choice) -> Shares:
        return regions.get(one.region or "", everywhere)

    def part(one: Choice) -> str:
        return str(int(np.searchsorted(edges, one.value, side="right")))

    devices = _factors(train, base, lambda one: one.device, shrink)
    by_value = _factors(train, base, part, shrink)
    return OrderTable(
        everywhere=everywhere,
        regions=regions,
        devices=devices,
        value_edges=tuple(edges.tolist()),
        values=tuple(by_value.get(str(place), {}) for place in range(len(edges) + 1)),
        personal=personal,
    )


def _regions(train: Sequence[Choice], everywhere: Shares, shrink: float) -> dict[str, Shares]:
    here: dict[str, list[Choice]] = defaultdict(list)
    for one in train:
        if one.region is not None:
            here[one.region].append(one)
    shares = {}
    for region, choices in here.items():
        counts = Counter(one.taken for one in choices)
        options = sorted({name for one in choices for name in one.options})
        prior = sum(everywhere[name] for name in options)
        shares[region] = {
            name: (counts[name] + shrink * everywhere[name] / prior) / (len(choices) + shrink)
            for name in options
        }
    return shares


def _factors(
    train: Iterable[Choice],
    base: Callable[[Choice], Shares],
    group: Callable[[Choice], str | None],
    shrink: float,
) -> dict[str, Shares]:
    """For every group and option: how often it was taken over how often it would be at the shares
    of the region, both with `shrink` more of what would be."""
    taken: dict[tuple[str, str], float] = defaultdict(float)
    expected: dict[tuple[str, str], float] = defaultdict(float)
    for one in train:
        name = group(one)
        if name is None:
            continue
        taken[name, one.taken] += 1.0
        shares = base(one)
        total = sum(shares.get(option, _LEAST) for option in one.options)
        for option in one.options:
            expected[name, option] += shares.get(option, _LEAST) / total
    factors: dict[str, Shares] = defaultdict(dict)
    sizes: dict[str, float] = defaultdict(float)
    for (name, _), count in taken.items():
        sizes[name] += count
    for (name, option), would in expected.items():
        more = shrink * would / max(sizes[name], 1.0)
        factors[name][option] = (taken[name, option] + more) / (would + more)
    return {name: {o: max(f, _LEAST) for o, f in held.items()} for name, held in factors.items()}
