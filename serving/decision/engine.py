"""The models' part of decisions where the models run in this process: one thread takes whatever
waits, up to a batch, and carries it from the encoding to the ranker's scores. Under load the models
answer several checkouts at once and nobody pays for handing work from thread to thread; a lone
checkout is not kept waiting for company.

All that the event loop has read by the time it turns to something else comes to the thread at once:
told of each by itself it would begin with the first alone, and the loop would wait for it.

Every release has an engine of its own: a release on trial whose models hang, or are slow, must
neither delay the live one nor look no worse than it to the guard."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, thread_time
from weakref import WeakKeyDictionary, finalize

import numpy as np

from contract.candidates import MAX_CANDIDATES
from contract.encoding import Encoded, Situation
from contract.features import SubjectState
from contract.items import Floats, Indices
from contract.manifest import RANKER
from contract.pair_features import PAIR_FEATURES
from serving.decision import ranking, reasons, retrieval, towers
from serving.decision.candidate_set import CandidateSet, Owed, Ranked
from serving.decision.checkout import Checkout
from serving.decision.deadline import tell
from serving.decision.eligibility import Eligible
from serving.decision.offer_policy import asked_about, may_be_asked
from serving.decision.vector_cache import VectorCache, VectorCaches
from serving.inference.backend import InferenceFailed, Outputs
from serving.inference.embedded import MAX_BATCH, EmbeddedBackend
from serving.inference.loading import start_aside
from serving.inference.release import Release, compute_single_threaded

_QUEUE = "queue"
# Of the processor a batch takes about this much at most: those behind it wait for it. By the clock
# it would be cut short just where others want the processor too, and cost more than it has to.
_MOST_BATCH_MS = 12.0
_FIRST_GUESS_MS = 3.0
_NEWEST = 0.1  # what the latest batch counts in the mean


@dataclass(eq=False)
class Work:
    """One checkout on its way through the engine, and what has come of it so far."""

    checkout: Checkout
    may: Eligible
    state: SubjectState
    until: float  # the perf_counter from which on nothing more is made of it
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"
    began: float = field(default_factory=perf_counter)
    situation: Situation | None = None
    encoded: Encoded | None = None
    keys: dict[str, bytes] = field(default_factory=dict)  # of what each tower is asked
    vectors: dict[str, Floats] = field(default_factory=dict)
    near: retrieval.Nearest | None = None  # of `vectors`, where all of a batch were searched for
    search_seconds: float = 0.0  # its share of that search
    found: CandidateSet | None = None
    ranked: Ranked | None = None
    owed: Owed | None = None
    taken: bool = False  # by the thread
    # (stage, perf_counter at its beginning and end, what went wrong) of every stage so far.
    stages: list[tuple[str, float, float, str | None]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nobody waits for more, or no time is left for it."""
        return self.done.done() or perf_counter() >= self.until

    def note(self, stage: str, began: float, error: Exception | None = None) -> float:
        """The stage `stage` has ended; when."""
        wrong, now = None if error is None else type(error).__name__, perf_counter()
        self.stages.append((stage, began, now, wrong))
        return now

    def skip(self, stage: str, why: str) -> None:
        """The stage `stage` was not tried."""
        now = perf_counter()
        self.stages.append((stage, now, now, why))


class Engines:
    """The engines of the releases that decide; each ends with its release."""

    def __init__(self, caches: VectorCaches) -> None:
        self._caches = caches
        self._of: WeakKeyDictionary[Release, Engine] = WeakKeyDictionary()

    def of(self, release: Release) -> "Engine":
        """The engine of `release`, begun when it is first asked for."""
        engine = self._of.get(release)
        if engine is None:
            engine = self._of[release] = Engine(self._caches.of(release))
            finalize(release, engine.close).atexit = False
        return engine

    def close(self) -> None:
        """End all of them."""
        for engine in list(self._of.values()):
            engine.close()


class Engine:
    """The thread and its queue. `run` is called from one event loop."""

    def __init__(self, cache: VectorCache, max_batch: int = MAX_BATCH) -> None:
        self._cache = cache
        self._max_batch = max_batch
        # What the ranker is asked, filled in anew for every batch: as large as it is, the system
        # would have to give it page by page.
        self._pairs = np.zeros((max_batch, MAX_CANDIDATES, len(PAIR_FEATURES)), np.float32)
        self._waiting: deque[Work] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._at = _QUEUE  # the stage that runs just now
        # Of work for one decision, moving means: by the clock, and of the processor.
        self._each_ms = self._each_cpu_ms = _FIRST_GUESS_MS
        self._told = True  # of all that waits, or will be in this turn of the loop
        self._under_way = 0
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        start_aside(self._thread)

    async def run(
        self, checkout: Checkout, may: Eligible, state: SubjectState, reserve_ms: float
    ) -> Work:
        """What the engine makes of `checkout` while more than `reserve_ms` are left of its time;
        its stages are told to the deadline. What was made by then stands in the answer."""
        loop = asyncio.get_running_loop()
        deadline = checkout.deadline
        allowed_ms = deadline.remaining_ms() - reserve_ms
        until = perf_counter() + allowed_ms / 1_000
        work = Work(checkout, may, state, until, loop, loop.create_future())
        stuck = self._stuck_in(checkout)
        if stuck is not None or allowed_ms <= 0 or not self._enter(work):
            work.skip(stuck or "encode", "NotTried")
        else:
            late = loop.call_later(allowed_ms / 1_000, self._late, work, allowed_ms)
            try:
                await work.done
            finally:  # also when the caller has gone away
                late.cancel()
                self._withdraw(work)
        deadline.record(work.stages[:])
        return work

    def expected_ms(self) -> float:
        """When a decision that came now would be done; 0 where nobody is before it, whatever the
        last ones took: else one bad moment would close the engine for good."""
        before = len(self._waiting) + self._under_way
        return (before + 1) * self._each_ms if before else 0.0

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        with self._condition:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._condition.notify()
        for work in left:
            work.checkout.place.drop()
        _deliver(left)

    def _enter(self, work: Work) -> bool:
        """Whether the engine takes `work`; a closed one does not."""
        with self._condition:
            if self._closed:
                return False
            work.checkout.place.hold()
            self._waiting.append(work)
        if self._told:
            self._told = False
            work.loop.call_soon(self._tell)
        return True

    def _tell(self) -> None:
        """The loop has entered what it had: the thread may begin, if it waits."""
        self._told = True
        with self._condition:
            self._condition.notify()

    def _withdraw(self, work: Work) -> None:
        """Give the place of `work` back, unless the thread has it in hand."""
        if work.taken:
            return
        with self._condition:
            if work not in self._waiting:
                return
            self._waiting.remove(work)
        work.checkout.place.drop()

    def _stuck_in(self, checkout: Checkout) -> str | None:
        """The stage that the thread hangs in, once its breaker says that it does."""
        breaker = checkout.release.breakers.get(self._at)
        return self._at if breaker is not None and breaker.is_open else None

    def _late(self, work: Work, waited_ms: float) -> None:
        """Nothing came in time: blame what runs just now, and wait no longer."""
        if work.done.done():
            return
        work.done.set_result(None)
        stage = "encode" if self._at == _QUEUE else self._at
        checkout = work.checkout
        breaker = checkout.release.breakers.get(self._at)
        if breaker is not None:
            breaker.late(waited_ms, crowded=checkout.deadline.crowded())
        work.note(stage, work.began, TimeoutError())

    # Everything below runs on the thread.

    def _serve(self) -> None:
        compute_single_threaded()
        # Each turn in a call of its own: what an idle thread still names, the last requests and
        # with them their release, would stay in memory.
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Wait for work and do one batch of it; False once the engine is closed."""
        with self._condition:
            self._at = _QUEUE
            while not self._closed and not self._waiting:
                self._condition.wait()
            if self._closed:
                return False
            batch = self._next()
            self._under_way = len(batch)
        began, began_cpu = perf_counter(), thread_time()
        asked = [work for work in batch if not work.over]
        try:
            self._answer(asked)
        except Exception as error:  # nothing may end this thread
            tell("engine", error)
        # Before anybody hears of it: who asks next must not think that it still runs.
        self._at, self._under_way = _QUEUE, 0
        if asked:
            took_ms = (perf_counter() - began) * 1_000 / len(asked)
            self._each_ms += _NEWEST * (took_ms - self._each_ms)
            cpu_ms = (thread_time() - began_cpu) * 1_000 / len(asked)
            self._each_cpu_ms += _NEWEST * (cpu_ms - self._each_cpu_ms)
        for work in batch:
            work.checkout.place.drop()
        _deliver(batch)
        return True

    def _next(self) -> list[Work]:
        """The oldest of what waits."""
        most = min(self._max_batch, max(1, int(_MOST_BATCH_MS / max(self._each_cpu_ms, 0.001))))
        batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        for work in batch:
            work.taken = True
        return batch

    def _answer(self, batch: list[Work]) -> None:
        self._each("encode", batch, _encode)
        for model, (output, source) in towers.SOURCES.items():
            unknown = [work for work in batch if not self._held(model, source, work)]
            take = partial(self._take, model, output, source)
            self._model(model, unknown, partial(_ask_tower, model), take)
        self._search([work for work in batch if work.vectors and not work.over])
        self._each("retrieval", [work for work in batch if work.vectors], _retrieve)
        # With one tower silent its features are zero, which the ranker never saw in training.
        whole = [
            work
            for work in batch
            if work.found is not None and len(work.vectors) == len(towers.SOURCES)
        ]
        self._model(RANKER, whole, self._rank, _take_scores)
        # Where later stages choose among many, what will be shown is not known yet.
        self._attribute([work for work in whole if work.ranked and not work.checkout.depth])
        self._expect([work for work in batch if work.situation is not None])

    def _held(self, model: str, source: str, work: Work) -> bool:
        """Whether `model` has nothing to do: there is no question, or its answer is held."""
        if work.encoded is None:
            return True
        began = perf_counter()
        work.keys[model], held = self._cache.ask(model, work.encoded)
        if held is not None:
            work.vectors[source] = held
            work.note(model, began)
        return held is not None

    def _take(self, model: str, output: str, source: str, work: Work, outputs: Outputs) -> None:
        vector: Floats = np.asarray(outputs[output], np.float32)  # embedded, so it is finite
        work.vectors[source] = vector
        self._cache.put(work.keys[model], vector, work.checkout.generation)

    def _rank(
        self, models: EmbeddedBackend, batch: Sequence[Work]
    ) -> list[Outputs | InferenceFailed]:
        rows = self._pairs[: len(batch)]
        for own, work in zip(rows, batch, strict=True):
            ranking.put(own, _found(work))
        return models.infer_batch(RANKER, {"pair_features": rows})

    def _search(self, batch: Sequence[Work]) -> None:
        """The nearest items for all of `batch` in one pass; if that fails, each tries alone."""
        if len(batch) < 2:
            return
        self._at, began = "retrieval", perf_counter()
        release = batch[0].checkout.release
        try:
            found = retrieval.nearest(release, [(work.may, work.vectors) for work in batch])
        except Exception as error:
            tell("retrieval", error)
            return
        each = (perf_counter() - began) / len(batch)
        for work, near in zip(batch, found, strict=True):
            work.near, work.search_seconds = near, each

    def _attribute(self, batch: Sequence[Work]) -> None:
        """What the scores of those that will be shown owe to which evidence, for all of `batch` at
        once. Who is not asked for here is asked for when the answer is written, if time is left."""
        asked = [work for work in batch if not work.over]
        if not asked or (release := asked[0].checkout.release).explainer is None:
            return
        self._at, began = "attributions", perf_counter()
        places = [_first_places(work) for work in asked]
        try:
            pairs = [_found(work).pairs[own] for work, own in zip(asked, places, strict=True)]
            rows = reasons.owed(release, np.concatenate(pairs))
            assert rows is not None
        except Exception as error:
            tell("attributions", error)
            return
        end = 0
        for work, own in zip(asked, places, strict=True):
            begin, end = end, end + len(own)
            work.owed = Owed(own, rows[begin:end])
            work.note("attributions", began)

    def _expect(self, batch: Sequence[Work]) -> None:
        """How likely a purchase is with each offer, for all of `batch` at once. Who is not answered
        for here is asked about when offers are considered."""
        asked = [work for work in batch if not work.over and may_be_asked(work.checkout)]
        if not asked or (judge := asked[0].checkout.release.offer_judge) is None:
            return
        self._at, began = "offers", perf_counter()
        try:
            found = judge.chances([asked_about(work.checkout, work.state) for work in asked])
        except Exception as error:
            tell("offers", error)
            return
        for work, expected in zip(asked, found, strict=True):
            work.checkout.expected.append(expected)
            work.note("offers", began)

    def _each(self, stage: str, batch: Sequence[Work], act: Callable[[Work], None]) -> None:
        self._at, now = stage, perf_counter()
        for work in batch:
            if work.done.done() or now >= work.until:
                continue
            # With its share of what was done for all of them before; nothing was before the first.
            began = now - work.search_seconds
            try:
                act(work)
            except Exception as error:
                tell(stage, error)
                now = work.note(stage, began, error)
            else:
                now = work.note(stage, began)
                came_back = work.checkout.release.breakers.get(stage)
                if came_back is not None:
                    came_back.succeeded()

    def _model(
        self,
        model: str,
        batch: Sequence[Work],
        ask: Callable[[EmbeddedBackend, Sequence[Work]], list[Outputs | InferenceFailed]],
        take: Callable[[Work, Outputs], None],
    ) -> None:
        """Run `model` on all of `batch` at once, and let each `take` its part."""
        asked = [work for work in batch if not work.over]
        if not asked:
            return
        release = asked[0].checkout.release
        breaker, models = release.breakers[model], release.models
        assert isinstance(models, EmbeddedBackend)
        if not breaker.allows():
            for work in asked:
                work.skip(model, "NotTried")
            return
        self._at, began = model, perf_counter()
        answered = False
        try:
            outcomes = ask(models, asked)
        except Exception as error:  # the breaker waits for word all the same
            tell(model, error)
            outcomes = [InferenceFailed(type(error).__name__)] * len(asked)
        for work, outcome in zip(asked, outcomes, strict=True):
            try:
                if isinstance(outcome, InferenceFailed):
                    raise outcome
                take(work, outcome)
            except Exception as error:
                tell(model, error)
                work.note(model, began, error)
            else:
                work.note(model, began)
                answered = True
        if answered:
            breaker.succeeded()
        else:
            for _ in asked:
                breaker.failed()


def _encode(work: Work) -> None:
    work.situation, work.encoded = work.checkout.encoded(work.state)


def _ask_tower(
    model: str, models: EmbeddedBackend, batch: Sequence[Work]
) -> list[Outputs | InferenceFailed]:
    return models.infer(model, [work.encoded for work in batch if work.encoded is not None])


def _retrieve(work: Work) -> None:
    assert work.situation is not None
    work.found = retrieval.retrieve(
        work.checkout.release, work.situation, work.may, work.vectors, work.near
    )


def _take_scores(work: Work, outputs: Outputs) -> None:
    work.ranked = ranking.ranked(_found(work), outputs, work.checkout.limit)


def _found(work: Work) -> CandidateSet:
    assert work.found is not None
    return work.found


def _first_places(work: Work) -> Indices:
    assert work.ranked is not None
    return work.ranked.places[: work.checkout.request.num_results]


def _deliver(batch: Sequence[Work]) -> None:
    for loop in dict.fromkeys(work.loop for work in batch):
        own = [work.done for work in batch if work.loop is loop]
        with suppress(RuntimeError):  # the loop was closed, so nobody waits any more
            loop.call_soon_threadsafe(_settle, own)


def _settle(futures: "list[asyncio.Future[None]]") -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
