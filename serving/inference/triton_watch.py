"""One model on a Triton server, watched: does it answer as the verified file on our own disk does,
and what to ask of the server when it does not."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import numpy as np

from contract.encoding import Encoded
from contract.manifest import ModelEntry
from serving.inference.backend import InferenceFailed, Outputs
from serving.inference.triton_client import TritonClient
from serving.inference.triton_loading import LOADING, READY, load_wanted

log = logging.getLogger(__name__)

# Whether it is the same model; parity to 1e-4 is shown by tests. A GPU's arithmetic may be coarser.
SAME = 1e-3
Probe = tuple[Encoded, Outputs]  # inputs with a batch dimension, and what the file answers


@dataclass(frozen=True)
class TritonSettings:
    """How a server is watched."""

    period_s: float = 0.5
    # Triton takes 1 s to say that the process behind a model is dead, and as long again for those
    # that wait meanwhile.
    probe_s: float = 2.5
    first_wait_s: float = 3.0  # for the first release, which then begins without its models
    wait_s: float = 10.0  # for every other one, before it is refused for now
    # A model that only lets time pass while the server answers is loaded anew after so many probes;
    # one that says that it failed, at once.
    silent_probes: int = 5
    least_reload_s: float = 2.0
    most_reload_s: float = 60.0
    control: bool = True  # whether to ask the server to load and unload


class WatchedModel:
    """One version of one model; `problem` says why it can not be used now, None that it can."""

    def __init__(
        self,
        client: TritonClient,
        entry: ModelEntry,
        probes: tuple[Probe, ...],
        settings: TritonSettings,
        in_use: Callable[[str], set[int]],
    ) -> None:
        self.entry = entry
        self.label = f"{entry.name} version {entry.version}"
        self.problem: str | None = f"{self.label}: not asked yet"
        self._client = client
        self._probes = probes
        self._settings = settings
        self._in_use = in_use
        self._late = False
        self._silent = 0
        self._reload_at = 0.0
        self._reload_s = 0.0

    async def look(self) -> None:
        """Probe it, and mend what can be mended."""
        self.problem = await self._judge()
        if self._late:  # one of several servers may hang, or its machine be gone
            await self._client.renew()
        if self.problem is not None and self._settings.control and await self._mend():
            self.problem = await self._judge()
        if self.problem is None:
            self._reload_s, self._silent = 0.0, 0

    async def _judge(self) -> str | None:
        self._late = False
        try:
            if self.problem is not None:  # not while it serves: this reads the configuration
                problems = await self._client.differences(self.entry)
                if problems:
                    return f"{self.label}: {problems[0]}"
            for batch, expected in self._probes:
                found = await self._client.infer(self.entry, batch, self._settings.probe_s)
                if (line := _departs(found, expected)) is not None:
                    return f"{self.label}: {line}"
        except TimeoutError:
            self._late = True
            return f"{self.label}: no answer to a probe within {self._settings.probe_s:g} s"
        except InferenceFailed as error:
            return f"{self.label}: {error}"
        return None

    async def _mend(self) -> bool:
        """Ask for the version, or for a fresh start of it; whether that was done."""
        name, wanted = self.entry.name, self.entry.version
        try:
            if await load_wanted(self._client, name, wanted, self._in_use(name)):
                return True
            state = (await self._client.versions(name)).get(wanted)
            if state == LOADING:
                return False
            # The server lives and says that the model does.
            self._silent = self._silent + 1 if self._late else self._settings.silent_probes
            if self._silent < self._settings.silent_probes or monotonic() < self._reload_at:
                return False
            self._wait_longer()
            # Several gateways see the same: whoever comes second finds it unloaded already.
            await asyncio.sleep(random.uniform(0.0, 0.3))
            if (await self._client.versions(name)).get(wanted) == READY:
                log.warning("%s is loaded anew on Triton", self.label)
                await self._client.unload(name)
            await load_wanted(self._client, name, wanted, self._in_use(name))
        except (InferenceFailed, TimeoutError) as error:
            log.debug("Triton can not be asked to load %s: %s", self.label, error)
            return False
        return True

    def _wait_longer(self) -> None:
        """To load anew stops a model for half a second and may not help."""
        least, most = self._settings.least_reload_s, self._settings.most_reload_s
        self._reload_s = min(max(2 * self._reload_s, least), most)
        self._reload_at = monotonic() + self._reload_s
        self._silent = 0


def _departs(found: Outputs, expected: Outputs) -> str | None:
    for name, wanted in expected.items():
        got, sought = found[name].astype(np.float64), wanted.astype(np.float64)
        if not np.isfinite(got).all():
            return f"output {name} is not finite on a probe input"
        difference = float(np.abs(got - sought).max(initial=0.0))
        if difference > SAME * max(1.0, float(np.abs(sought).max(initial=0.0))):
            return f"output {name} differs by {difference:.1e} from what its file answers"
    return None
