"""What one release answers to the questions, as arrays that a later step reads from a file."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.encoding import FIRST_ITEM, Vocabulary
from contract.pair_features import PAIR_FEATURES
from training.evaluation import metrics
from training.evaluation.released import Ranked, Released
from training.gates.calibration import EDGES, Reliability, binned
from training.gates.leakage import feature_auc
from training.gates.operation import Timed
from training.retraining.questions import K, Questions

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
UNKNOWN_CASES, LIVE_CASES = 1_000, 500
LATENCY_CASES = 150


@dataclass(frozen=True)
class Answers:
    """Of T questions; U of them were also asked as if nobody were known, V with live histories.
    Items are indices of the questions' vocabulary, -1 for nothing shown."""

    ranked: Numbers  # [T, K]
    unknown: Numbers  # [U, K]
    top_scores: npt.NDArray[np.float32]  # [T] of the best candidate
    promised: Floats  # [bins], see gates.calibration
    came: Floats
    held: Floats
    checkouts: int  # of which something was among the candidates
    live_ndcg: Floats  # [V]
    frozen_ndcg: Floats  # [V] the same questions
    auc: Floats  # [F] of each pair feature alone, mean over the V

    @property
    def reliability(self) -> Reliability:
        """For the calibration gate."""
        return Reliability(self.checkouts, self.promised, self.came, self.held)

    def as_bytes(self) -> bytes:
        """For one file; the same answers are the same bytes."""
        file = io.BytesIO()
        held: dict[str, Any] = {o.name: np.asarray(getattr(self, o.name)) for o in fields(self)}
        np.savez(file, **held)
        return file.getvalue()

    @classmethod
    def parse(cls, content: bytes) -> "Answers":
        """What `as_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            found: dict[str, Any] = {one.name: held[one.name] for one in fields(cls)}
        found["checkouts"] = int(found["checkouts"])
        return cls(**found)


def answers(release: Released, questions: Questions, name: str) -> Answers:
    """All that the gates want to know of `release`; `name` is what the progress bar calls it."""
    to_union = _translation(release.vocabulary, questions.vocabulary)
    wanted = _wanted(release.vocabulary, questions)
    ranked, top, sums, checkouts = [], [], np.zeros((3, len(EDGES) - 1)), 0
    known = release.rank(questions.situations(release.rules), label=name)
    for answer, targets in zip(known, wanted, strict=True):
        ranked.append(_shown(answer, to_union))
        top.append(answer.scores.max(initial=-np.inf))
        relevant = np.isin(answer.index, targets)
        if relevant.any():
            sums += np.stack(binned(_softmax(answer.scores), relevant))
            checkouts += 1
    table = np.stack(ranked)
    few = questions.situations(release.rules, unknown=True)[:UNKNOWN_CASES]
    unknown = [_shown(one, to_union) for one in release.rank(few, label=f"{name}, cart only")]
    live, auc = _live(release, questions, wanted, to_union, name)
    return Answers(
        table,
        np.stack(unknown),
        np.array(top, np.float32),
        sums[0],
        sums[1],
        sums[2],
        checkouts,
        live,
        ndcg(table[: len(live)], questions.targets[: len(live)]),
        auc,
    )


def _live(
    release: Released,
    questions: Questions,
    wanted: list[Numbers],
    to_union: Numbers,
    name: str,
) -> tuple[Floats, Floats]:
    """NDCG with everything that was known at each decision, and the AUC of each feature alone."""
    asked = questions.live(release.rules, LIVE_CASES)
    shown, areas = [], []
    for answer, targets in zip(
        release.rank(asked, label=f"{name}, live"), wanted[: len(asked)], strict=True
    ):
        shown.append(_shown(answer, to_union))
        relevant = np.isin(answer.index, targets)
        if relevant.any() and not relevant.all():
            areas.append(feature_auc(answer.features.astype(np.float64), relevant))
    auc = np.mean(areas, axis=0) if areas else np.full(len(PAIR_FEATURES), 0.5)
    return ndcg(np.stack(shown), questions.targets[: len(asked)]), auc


def ndcg(ranked: Numbers, targets: list[Numbers]) -> Floats:
    """NDCG@K of each question."""
    values: Floats = metrics.per_case(ranked, targets)[f"NDCG@{K}"]
    return values


def _translation(own: Vocabulary, union: Vocabulary) -> Numbers:
    """The index in the questions' vocabulary of each of a release's indices."""
    table = np.full(len(own), -1, np.int64)
    table[FIRST_ITEM:] = union.indices(own.item_ids)
    return table


def _wanted(own: Vocabulary, questions: Questions) -> list[Numbers]:
    """The targets in the release's own indices; what it does not know is none of its candidates."""
    back = np.full(len(questions.vocabulary), -1, np.int64)
    back[FIRST_ITEM:] = own.indices(questions.vocabulary.item_ids)
    return [back[targets] for targets in questions.targets]


def _shown(answer: Ranked, to_union: Numbers) -> Numbers:
    best = to_union[answer.best(K)]
    return np.pad(best, (0, K - len(best)), constant_values=-1)


def _softmax(scores: npt.NDArray[np.float32]) -> Floats:
    raised = np.exp(scores.astype(np.float64) - scores.max())
    chances: Floats = raised / raised.sum()
    return chances


def timed(champion: Released, challenger: Released, questions: Questions) -> Timed:
    """CPU milliseconds of single decisions by both in this process, in turn, on the same checkouts;
    a first round that warms up is left out."""
    asked = [(one.decide, one.rules) for one in (champion, challenger)]
    cases = [questions.live(rules, LATENCY_CASES) for _, rules in asked]
    spent: tuple[list[float], list[float]] = ([], [])
    for number, pair in enumerate(zip(*cases, strict=True)):
        # Whoever goes second finds warm caches, so each goes first every other time.
        for side in (0, 1) if number % 2 else (1, 0):
            spent[side].append(_cpu_ms(partial(asked[side][0], pair[side])))
    warm = len(spent[0]) // 10
    return Timed(np.array(spent[0][warm:]), np.array(spent[1][warm:]))


def _cpu_ms(work: Callable[[], Any]) -> float:
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1e6
