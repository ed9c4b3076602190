"""How long decisions take through real gateways: one over the champion and one over the challenger,
each in a process of its own, asked the same checkouts of the same shoppers in turn. Nothing of the
gateway is imported here; it is started by its command and spoken to over HTTP."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from contract.clock import from_us
from contract.errors import UserError
from contract.events import SCHEMA_VERSION
from training.gates.operation import Timed
from training.retraining.questions import Questions

CASES: Final = 300
WARM: Final = 30  # asked first and not counted
MOST_S: Final = 60.0  # of asking; what is not asked by then is left out
LEAST_CASES: Final = 40
_START_S: Final = 240.0
_BASKETS: Final = 20  # the latest of each shopper, as their history
_AT_ONCE: Final = 200  # events
_CONSENT: Final = {"personalization": True, "analytics": True, "offers": False}
_DEADLINE_MS: Final = 1_000  # so long that what is measured is the decision, not a cheaper one


@dataclass(frozen=True)
class Place:
    """Where a release and its models are."""

    releases: Path
    models: Path
    release_id: str


class NotServedError(UserError):
    """No gateway comes up over a release."""

    def __init__(self, release_id: str, why: str) -> None:
        super().__init__(f"no gateway comes up over release {release_id}: {why}")
        self.release_id = release_id


def through_gateways(
    champion: Place, challenger: Place, questions: Questions, most_s: float = MOST_S
) -> Timed:
    """What the checkouts of `questions` took on both sides, for `most_s` seconds at most. UserError
    where the champion is not served, or there was no time for enough of them."""
    try:
        return _through(champion, challenger, questions, most_s)
    except NotServedError as error:
        if error.release_id != challenger.release_id:
            raise
        return Timed(np.empty(0), np.empty(0), failed=str(error))


def _through(champion: Place, challenger: Place, questions: Questions, most_s: float) -> Timed:
    cases = _checkouts(questions)[: CASES + WARM]
    histories = _histories(questions, {who for who, _ in cases})
    as_of = questions.window.test_until
    with ExitStack() as held:
        sides = [held.enter_context(_gateway(place, as_of)) for place in (champion, challenger)]
        for gateway in sides:
            gateway.tell(histories)
        spent: tuple[list[float], list[float]] = ([], [])
        rungs: tuple[list[bool], list[bool]] = ([], [])
        until = time.monotonic() + most_s
        for number, (_, body) in enumerate(cases):
            if time.monotonic() > until:
                break
            # Whoever goes second finds the machine awake, so each goes first every other time.
            for side in (0, 1) if number % 2 else (1, 0):
                ms, full = sides[side].decide(body)
                spent[side].append(ms)
                rungs[side].append(full)
    warm = min(WARM, len(spent[0]) // 4)
    if len(spent[0]) - warm < min(LEAST_CASES, len(cases) // 2):
        raise UserError(f"only {len(spent[0])} decisions in {most_s:g} s: not enough to compare")
    first, second = (float(np.mean(full[warm:])) for full in rungs)
    return Timed(np.array(spent[0][warm:]), np.array(spent[1][warm:]), (first, second))


def _checkouts(questions: Questions) -> list[tuple[str, dict[str, Any]]]:
    """Who asks, and the body of each question as a shop sends it."""
    baskets = questions.source.baskets
    found = []
    for number, case in enumerate(questions.cases):
        context = baskets.contexts[case.number]
        told = {} if context is None else context.model_dump(exclude_none=True)
        items = [{"item_id": item, "quantity": 1, "price": None} for item in case.cart]
        body = {
            "visitor_id": case.subject,
            "session_id": f"checkout-{number}",
            "cart": {"cart_id": f"cart-{number}", "currency": "USD", "items": items},
            "context": told,
            "consent": _CONSENT,
            "placements": ["recommendations"],
            "deadline_ms": _DEADLINE_MS,
        }
        found.append((case.subject, body))
    return found


def _histories(questions: Questions, wanted: set[str]) -> list[dict[str, Any]]:
    """The latest purchases of the shoppers in `wanted` before the window, as events."""
    baskets = questions.source.baskets
    known = baskets.between(int(np.iinfo(np.int64).min), questions.frozen_us)
    count: dict[str, int] = {}
    events: list[dict[str, Any]] = []
    for number in known[::-1].tolist():
        who = baskets.subjects[int(baskets.subject[number])]
        if who not in wanted or count.get(who, 0) >= _BASKETS:
            continue
        count[who] = count.get(who, 0) + 1
        items = baskets.item[baskets.offsets[number] : baskets.offsets[number + 1]]
        events.append(
            {
                "schema_version": SCHEMA_VERSION,
                "event_id": str(uuid5(NAMESPACE_URL, f"purchase-{number}")),
                "event_name": "purchase",
                "occurred_at": from_us(int(baskets.occurred_us[number])).isoformat(),
                "session_id": f"basket-{number}",
                "transaction_id": f"basket-{number}",
                "visitor_id": who,
                "items": [{"item_id": baskets.item_ids[item]} for item in items.tolist()],
                "consent": _CONSENT,
            }
        )
    return events


class _Gateway:
    """A running one."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def tell(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Write `events`."""
        for start in range(0, len(events), _AT_ONCE):
            status, told = self._post("/v1/events", {"events": events[start : start + _AT_ONCE]})
            if status != 202:
                raise UserError(f"a gateway refused the histories: {status} {told}")

    def decide(self, body: Mapping[str, Any]) -> tuple[float, bool]:
        """Milliseconds of one decision, and whether it was a full one."""
        began = time.perf_counter()
        status, told = self._post("/v1/checkout/decide", body)
        ms = (time.perf_counter() - began) * 1_000
        if status != 200:
            raise UserError(f"a gateway refused a checkout: {status} {told}")
        return ms, told["rung"] == "full"

    def _post(self, path: str, body: object) -> tuple[int, Any]:
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


@contextmanager
def _gateway(place: Place, as_of: datetime) -> Iterator[_Gateway]:
    """A gateway over a release at the time `as_of`, with a state of its own; ended at the end."""
    with tempfile.TemporaryDirectory(prefix="tillwise-latency-") as folder:
        state, port = Path(folder) / "state", _free_port()
        environment = _environment(place, state)
        key = _command(environment, "keys", "create", "--role", "checkout").strip()
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "serving", "run", "--release", place.release_id),
                    *("--port", str(port), "--as-of", as_of.isoformat()),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
            try:
                _await_ready(process, port, place.release_id, log.name)
                gateway = _Gateway(port, key)
                try:
                    yield gateway
                finally:
                    gateway.close()
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _environment(place: Place, state: Path) -> dict[str, str]:
    """No setting of a gateway nearby may reach this one; and no limit on how often it is asked."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TILLWISE_")}
    return kept | {
        "TILLWISE_RELEASES": str(place.releases.resolve()),
        "TILLWISE_MODELS": str(place.models.resolve()),
        "TILLWISE_STATE": str(state),
        "TILLWISE_LOG_LEVEL": "warning",
        "TILLWISE_QUERY_VECTORS": "0",
    }


def _command(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "serving", *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
    )
    if done.returncode:
        raise UserError(f"tillwise-serve {' '.join(arguments)}: {_last_line(done.stderr)}")
    return done.stdout


def _await_ready(process: "subprocess.Popen[bytes]", port: int, release_id: str, log: str) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    said = _last_line(Path(log).read_text(encoding="utf-8", errors="replace"))
    raise NotServedError(release_id, said)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
