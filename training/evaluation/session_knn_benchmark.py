"""The `session-knn` protocol: the next click at every position of every test session.

Settings are fixed by the protocol (m=500, k=50, the latest two items, idf weight 1), so nothing is
chosen and `valid.parquet` is not read. The current item is never recommended, by any row. Measures
one prediction at a time, as serving makes them.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from contract.figures import Figures
from contract.session_knn import SessionKnn
from training.commands import peak_mib
from training.data.clicks import UNKNOWN, Clicks, read_clicks

CUTOFF = 20
M, K, QUERY_ITEMS = 500, 50, 2
_WARM_UP = 50

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Quality = tuple[float, float]  # MRR and HR at CUTOFF
Predict = Callable[[Ints], Ints]  # session so far, oldest first -> at most CUTOFF items


def session_knn_table(folder: Path) -> Figures:
    """VMIS-kNN, last-item kNN and popularity on the click files in `folder`.

    Raises UserError as `read_clicks` does.
    """
    clicks = read_clicks(folder)
    figures = Figures("benchmark session-knn")
    for name, build in (("popularity", _popularity), ("last-item-knn", _last_item_knn)):
        began = time.perf_counter()
        _add(figures, name, clicks, build(clicks), began)
    began = time.perf_counter()
    knn = protocol_knn(clicks)
    _add(figures, "session-knn", clicks, lambda seen: _next_clicks(knn, seen)[0][:CUTOFF], began)
    figures.notes += _notes(clicks, knn)
    return figures


def protocol_knn(clicks: Clicks) -> SessionKnn:
    """VMIS-kNN over the training clicks, with the settings of the protocol."""
    return SessionKnn.fit(
        clicks.session,
        clicks.item,
        clicks.occurred_us,
        num_items=clicks.num_items,
        m=M,
        k=K,
        query_items=QUERY_ITEMS,
    )


def _next_clicks(knn: SessionKnn, seen: Ints) -> tuple[Ints, Floats]:
    """The window is the latest two clicks, also when both are of one item."""
    return knn.score(seen[-QUERY_ITEMS:], drop=seen[-1:])


def _popularity(clicks: Clicks) -> Predict:
    """Items by the number of sessions that hold them."""
    best = np.argsort(-np.diff(_sessions_by_item(clicks).indptr), kind="stable")[: CUTOFF + 1]

    def predict(seen: Ints) -> Ints:
        return np.asarray(best[best != seen[-1]][:CUTOFF], np.int64)

    return predict


def _last_item_knn(clicks: Clicks) -> Predict:
    """Items by the cosine of their sessions with those of the current item."""
    held = _sessions_by_item(clicks)
    together = (held @ held.T).tocsr()
    norm = np.sqrt(np.maximum(together.diagonal(), 1.0))
    together = sp.csr_array(sp.diags_array(1 / norm) @ together @ sp.diags_array(1 / norm))

    def predict(seen: Ints) -> Ints:
        item = int(seen[-1])
        if item == UNKNOWN:
            return np.empty(0, np.int64)
        row = slice(together.indptr[item], together.indptr[item + 1])
        near, cosine = together.indices[row], together.data[row]
        ranked = near[np.lexsort((near, -cosine))]
        return np.asarray(ranked[ranked != item][:CUTOFF], np.int64)

    return predict


def _sessions_by_item(clicks: Clicks) -> sp.csr_array:
    """[N, S], 1 where the session holds the item."""
    held = sp.csr_array(
        (np.ones(len(clicks.item)), (clicks.item, clicks.session)),
        shape=(clicks.num_items, int(clicks.session.max()) + 1),
    )
    held.data[:] = 1.0
    return held


def _add(figures: Figures, name: str, clicks: Clicks, predict: Predict, began: float) -> None:
    for session in clicks.test_sessions[:_WARM_UP]:
        predict(session[:1])
    elapsed_ms: list[float] = []
    reciprocal: list[float] = []
    for session in clicks.test_sessions:
        for place in range(1, len(session)):
            start = time.perf_counter_ns()
            ranked = predict(session[:place])
            elapsed_ms.append((time.perf_counter_ns() - start) / 1e6)
            at = np.flatnonzero(ranked == session[place])
            reciprocal.append(1.0 / (1 + int(at[0])) if len(at) else 0.0)
    mrr, hr = _quality(reciprocal)
    metrics = {f"MRR@{CUTOFF}": [mrr], f"HR@{CUTOFF}": [hr]}
    for share in (50, 90, 99):
        metrics[f"p{share}_ms"] = [float(np.percentile(elapsed_ms, share))]
    figures.add(name, metrics, seconds=time.perf_counter() - began, peak_mib=peak_mib())


def _notes(clicks: Clicks, knn: SessionKnn) -> list[str]:
    low, high = _range_of_ties(clicks, knn)
    predictions = sum(len(session) - 1 for session in clicks.test_sessions)
    return [
        f"{predictions} predictions in {len(clicks.test_sessions)} sessions of two clicks or more, "
        f"{clicks.num_items} items, {len(clicks.item)} training clicks; the current "
        "item is dropped",
        f"session-knn: m={M}, k={K}, {QUERY_ITEMS} items, idf log(sessions / sessions with the "
        "item) with weight 1, all training sessions; equal scores are ordered by item id",
        f"other orders of its equal scores give MRR@{CUTOFF} {low[0]:.4f} to {high[0]:.4f}, "
        f"HR@{CUTOFF} {low[1]:.4f} to {high[1]:.4f}",
        "peak MiB is of the whole process so far, not of the row alone",
    ]


def _range_of_ties(clicks: Clicks, knn: SessionKnn) -> tuple[Quality, Quality]:
    """(MRR, HR) when among equal scores the wanted item stands last, and when it stands first."""
    last: list[float] = []
    first: list[float] = []
    for session in clicks.test_sessions:
        for place in range(1, len(session)):
            items, scores = _next_clicks(knn, session[:place])
            at = np.flatnonzero(items == session[place])
            better = int((scores > scores[at[0]]).sum()) if len(at) else CUTOFF
            as_good = int((scores >= scores[at[0]]).sum()) if len(at) else CUTOFF + 1
            first.append(1 / (better + 1) if better < CUTOFF else 0.0)
            last.append(1 / as_good if as_good <= CUTOFF else 0.0)
    return _quality(last), _quality(first)


def _quality(reciprocal: list[float]) -> Quality:
    ranks = np.array(reciprocal)
    return float(ranks.mean()), float((ranks > 0).mean())
