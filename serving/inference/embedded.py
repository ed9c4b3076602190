"""ONNX Runtime in this process. One thread runs all models of a release, so that the event loop
never computes; it takes whatever waits for a model, up to a batch, and adds no delay of its own."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import onnxruntime

from contract.encoding import Encoded
from contract.manifest import Tensor
from serving.inference.backend import InferenceFailed, Outputs, finite

MAX_BATCH = 8
# The fused bias and GELU works row by row, which takes two to five times as long as both apart; the
# numbers are the same to the bit.
_NOT_FUSED = ["BiasGeluFusion"]
_ONNX_TYPES = {"int64": "tensor(int64)", "float32": "tensor(float)"}


@dataclass(frozen=True)
class ModelFile:
    """A model as it lies in the repository: verified bytes and what the manifest says of them."""

    name: str
    content: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    # Verified files beside it, by name: an exporter may keep large weights outside the model file.
    beside: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Job:
    number: int
    inputs: Encoded
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Outputs]"


class Session:
    """One model in ONNX Runtime; callable from any thread."""

    def __init__(self, model: ModelFile) -> None:
        """Raises InferenceFailed when the file is no model or its tensors differ."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # failures come back as exceptions, not on the console
        if model.beside:
            options.add_external_initializers_from_files_in_memory(
                list(model.beside),
                list(model.beside.values()),
                [len(content) for content in model.beside.values()],
            )
        try:
            self._session = onnxruntime.InferenceSession(
                model.content,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_NOT_FUSED,
            )
        except Exception as error:  # ONNX Runtime raises a class of its own per kind of fault
            raise InferenceFailed(f"cannot be loaded: {_first_line(error)}") from error
        self.inputs = tuple(tensor.name for tensor in model.inputs)
        self.outputs = tuple(tensor.name for tensor in model.outputs)
        problems = _differences("input", self._session.get_inputs(), model.inputs)
        problems += _differences("output", self._session.get_outputs(), model.outputs)
        if problems:
            raise InferenceFailed("; ".join(problems))

    def infer(self, batch: Encoded) -> Outputs:
        """Outputs for inputs that carry a batch dimension; raises InferenceFailed."""
        try:
            feed = {name: batch[name] for name in self.inputs}
            found = self._session.run(list(self.outputs), feed)
        except Exception as error:
            raise InferenceFailed(_first_line(error)) from error
        return dict(zip(self.outputs, found, strict=True))


class EmbeddedBackend:
    """The models of one release behind one inference thread and a queue per model."""

    remote = False
    away = False

    def __init__(
        self,
        sessions: Mapping[str, Session],
        on_batch: Callable[[str, int], None] | None = None,
        max_batch: int = MAX_BATCH,
    ) -> None:
        self.sessions = dict(sessions)
        self._on_batch = on_batch
        self._max_batch = max_batch
        self._waiting: dict[str, deque[_Job]] = {name: deque() for name in sessions}
        self._numbers = count()
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()

    async def run(self, model: str, inputs: Encoded) -> Outputs:
        """See InferenceBackend."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outputs] = loop.create_future()
        with self._condition:
            if self._closed or model not in self._waiting:
                raise InferenceFailed(f"model {model} is not running")
            job = _Job(next(self._numbers), inputs, loop, answer)
            self._waiting[model].append(job)
            self._condition.notify()
        return await answer

    def infer(self, model: str, inputs: Sequence[Encoded]) -> list[Outputs | InferenceFailed]:
        """The outputs of `model` for each of `inputs`, run as one batch, now and on the calling
        thread; what fails, or answers with something that is not a number, does not fail the
        others."""
        return self._now(model, len(inputs), lambda session: _outcomes(session, inputs))

    def infer_batch(self, model: str, batch: Encoded) -> list[Outputs | InferenceFailed]:
        """The same for inputs that stand together already, each with a batch dimension."""
        size = len(next(iter(batch.values())))
        return self._now(model, size, lambda session: _of_batch(session, batch, size))

    def _now(
        self, model: str, size: int, ask: Callable[[Session], list[Outputs | InferenceFailed]]
    ) -> list[Outputs | InferenceFailed]:
        if self._closed or model not in self.sessions:
            return [InferenceFailed(f"model {model} is not running")] * size
        found = ask(self.sessions[model])
        self._report(model, size)
        return found

    def close(self, wait_s: float = 0.0) -> None:
        """See InferenceBackend."""
        with self._condition:
            self._closed = True
            left = [job for jobs in self._waiting.values() for job in jobs]
            for jobs in self._waiting.values():
                jobs.clear()
            self._condition.notify()
        _deliver([(job, InferenceFailed("the release was closed")) for job in left])
        if wait_s > 0:
            self._thread.join(wait_s)

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._closed and not any(self._waiting.values()):
                    self._condition.wait()
                if self._closed:
                    return
                model, jobs = self._take()
            if jobs:
                _deliver(_answers(self.sessions[model], jobs))
                self._report(model, len(jobs))
            del jobs  # an idle thread must not keep the last request alive

    def _report(self, model: str, size: int) -> None:
        if self._on_batch is not None:
            with suppress(Exception):  # nothing may end this thread, a metric least of all
                self._on_batch(model, size)

    def _take(self) -> tuple[str, list[_Job]]:
        """The oldest job and those behind it for the same model; given-up ones are dropped."""
        heads = {name: jobs[0].number for name, jobs in self._waiting.items() if jobs}
        model = min(heads, key=heads.__getitem__)
        queue, taken = self._waiting[model], list[_Job]()
        while queue and len(taken) < self._max_batch:
            job = queue.popleft()
            if not job.answer.cancelled():
                taken.append(job)
        return model, taken


def _answers(session: Session, jobs: list[_Job]) -> list[tuple[_Job, Outputs | InferenceFailed]]:
    return list(zip(jobs, _outcomes(session, [job.inputs for job in jobs]), strict=True))


def _outcomes(session: Session, inputs: Sequence[Encoded]) -> list[Outputs | InferenceFailed]:
    try:
        # Not np.stack, which takes longer to begin than these arrays take to copy.
        batch = {name: np.array([one[name] for one in inputs]) for name in session.inputs}
    except Exception as error:  # inputs of unequal shape
        if len(inputs) == 1:
            return [InferenceFailed(_first_line(error))]
        return [outcome for one in inputs for outcome in _outcomes(session, [one])]
    return _of_batch(session, batch, len(inputs))


def _of_batch(session: Session, batch: Encoded, size: int) -> list[Outputs | InferenceFailed]:
    try:
        outputs = session.infer(batch)
    except Exception as error:
        if size == 1:
            return [InferenceFailed(_first_line(error))]
        # One bad request must not fail those that happened to wait beside it.
        alone = ({name: batch[name][one : one + 1] for name in batch} for one in range(size))
        return [outcome for one in alone for outcome in _of_batch(session, one, 1)]
    rows: list[Outputs] = [
        {name: output[place] for name, output in outputs.items()} for place in range(size)
    ]
    if all(np.isfinite(output).all() for output in outputs.values()):
        return list(rows)
    return [_finite(row) for row in rows]


def _finite(row: Outputs) -> Outputs | InferenceFailed:
    try:
        return {name: finite(row, name) for name in row}
    except InferenceFailed as error:
        return error


def _deliver(answers: Sequence[tuple[_Job, Outputs | InferenceFailed]]) -> None:
    loops = dict.fromkeys(job.loop for job, _ in answers)
    for loop in loops:
        own = [(job.answer, outcome) for job, outcome in answers if job.loop is loop]
        with suppress(RuntimeError):  # the loop was closed, so nobody waits any more
            loop.call_soon_threadsafe(_settle, own)


def _settle(answers: list[tuple["asyncio.Future[Outputs]", Outputs | InferenceFailed]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if isinstance(outcome, InferenceFailed):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _differences(kind: str, held: Sequence[Any], wanted: Sequence[Tensor]) -> list[str]:
    given = {tensor.name: (tensor.type, tuple(tensor.shape[1:])) for tensor in held}
    expected = {tensor.name: (_ONNX_TYPES[tensor.dtype], tensor.shape) for tensor in wanted}
    problems = [
        f"{kind} {name} is {given.get(name)}, not {tensor}"
        for name, tensor in expected.items()
        if name not in given
        or given[name][0] != tensor[0]
        or len(given[name][1]) != len(tensor[1])
        or any(
            isinstance(a, int) and a != b for a, b in zip(given[name][1], tensor[1], strict=True)
        )
    ]
    if kind == "input":
        problems += [f"input {name} is not in the manifest" for name in given.keys() - expected]
    problems += [
        f"{kind} {tensor.name} has a fixed batch of {tensor.shape[0]}"
        for tensor in held
        if tensor.shape and isinstance(tensor.shape[0], int)
    ]
    return problems


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
