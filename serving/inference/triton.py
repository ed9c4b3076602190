"""The models of a release on a Triton server.

A server is trusted with a model only after it has answered a probe as the verified file on our own
disk answers it, and only as long as it goes on doing so: "ready" is what a server says of itself
even when the process behind a model is dead. While it is not trusted, requests fail at once and the
decision takes its lower rung, and the server is asked for the model until it is back.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress

from contract.encoding import Encoded, stack
from contract.manifest import MODELS
from serving.inference.backend import InferenceFailed, Outputs, ServerNotReady
from serving.inference.embedded import MAX_BATCH, Session
from serving.inference.probe import probe_inputs
from serving.inference.release import Release
from serving.inference.time_left import time_left
from serving.inference.triton_client import TritonClient
from serving.inference.triton_watch import TritonSettings, WatchedModel

log = logging.getLogger(__name__)

_NO_LIMIT_S = 5.0  # of those who did not say how long they wait: nobody waits for ever
OnState = Callable[[str, bool], None]


class TritonBackends:
    """Makes the backend of each release over one connection; what LiveRelease is given.

    Made in the event loop that serves; called from the thread that loads a release.
    """

    def __init__(
        self,
        client: TritonClient,
        settings: TritonSettings = TritonSettings(),  # noqa: B008 - frozen
        on_state: OnState | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._on_state = on_state or (lambda model, up: None)
        self._loop = asyncio.get_running_loop()
        self._open: set[TritonBackend] = set()

    def __call__(self, release: Release, sessions: Mapping[str, Session]) -> "TritonBackend":
        """The backend of `release`, whose own files `sessions` run.

        Raises ServerNotReady when the server does not answer as they do, unless no release is
        served yet: then the lower rungs are better than nothing.
        """
        once = not self._open
        backend = TritonBackend(
            self._client,
            self._watched(release, sessions),
            self._settings.period_s,
            self._on_state,
            self._open.discard,
        )
        wait_s = self._settings.first_wait_s if once else self._settings.wait_s
        started: Future[str | None] = asyncio.run_coroutine_threadsafe(
            backend.start(wait_s, once=once), self._loop
        )
        problem = started.result()
        if problem is not None and not once:
            backend.close()
            raise ServerNotReady(f"Triton at {self._client.address}: {problem}")
        self._open.add(backend)
        return backend

    async def close(self) -> None:
        """Close the connection, after the backends."""
        await self._client.close()

    def _watched(
        self, release: Release, sessions: Mapping[str, Session]
    ) -> dict[str, WatchedModel]:
        """Every model with a probe of one request and a probe of a full batch."""
        inputs, made = probe_inputs(release), {}
        for name in MODELS:
            entry = release.manifest.model(name)
            one = {tensor.name: inputs[name][tensor.name] for tensor in entry.inputs}
            batches = [stack([one] * size) for size in (1, MAX_BATCH)]
            probes = tuple((batch, sessions[name].infer(batch)) for batch in batches)
            made[name] = WatchedModel(self._client, entry, probes, self._settings, self._in_use)
        return made

    def _in_use(self, model: str) -> set[int]:
        return {backend.version(model) for backend in tuple(self._open)}


class TritonBackend:
    """The models of one release, at the versions that its manifest names."""

    remote = True

    def __init__(
        self,
        client: TritonClient,
        models: Mapping[str, WatchedModel],
        period_s: float,
        on_state: OnState,
        on_close: Callable[["TritonBackend"], None],
    ) -> None:
        self._client = client
        self._models = models
        self._period_s = period_s
        self._on_state = on_state
        self._on_close = on_close
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def away(self) -> bool:
        """See InferenceBackend."""
        return self._problem() is not None

    def version(self, model: str) -> int:
        """The version of `model` that is asked for."""
        return self._models[model].entry.version

    async def run(self, model: str, inputs: Encoded) -> Outputs:
        """See InferenceBackend."""
        watched = self._models.get(model)
        if self._closed or watched is None:
            raise InferenceFailed(f"model {model} is not running")
        if watched.problem is not None:
            raise InferenceFailed(watched.problem)
        entry = watched.entry
        batch = {tensor.name: inputs[tensor.name][None] for tensor in entry.inputs}
        left = time_left()
        outputs = await self._client.infer(entry, batch, _NO_LIMIT_S if left is None else left)
        return {name: found[0] for name, found in outputs.items()}

    def close(self, wait_s: float = 0.0) -> None:
        """See InferenceBackend."""
        self._closed = True
        self._on_close(self)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def start(self, wait_s: float, *, once: bool) -> str | None:
        """Look `once`, or until all models are right, for at most `wait_s`, and go on looking from
        then on; what is wrong at that point."""
        self._loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while await self._look() and not once:
                    await asyncio.sleep(self._period_s)
        problem = self._problem()
        if problem is not None:
            log.warning("Triton at %s: %s", self._client.address, problem)
        for model, watched in self._models.items():
            self._on_state(model, watched.problem is None)
        self._task = asyncio.create_task(self._watch(), name="triton")
        return problem

    def _problem(self) -> str | None:
        problems = [one.problem for one in self._models.values() if one.problem is not None]
        return problems[0] if problems else None

    async def _watch(self) -> None:
        while not self._closed:
            await asyncio.sleep(self._period_s)
            try:
                await self._look()
            except Exception:
                log.exception("looking at Triton failed; it goes on")

    async def _look(self) -> str | None:
        """Look at every model; the first problem that remains."""
        await asyncio.gather(*(self._look_at(watched) for watched in self._models.values()))
        return self._problem()

    async def _look_at(self, watched: WatchedModel) -> None:
        before = watched.problem
        await watched.look()
        if (before is None) == (watched.problem is None):
            return
        self._on_state(watched.entry.name, watched.problem is None)
        if watched.problem is None:
            log.info("Triton at %s: %s answers", self._client.address, watched.label)
        else:
            log.warning("Triton at %s: %s", self._client.address, watched.problem)
