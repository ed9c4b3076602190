"""A shop to decide in: the tiny release, a real feature store with one known shopper, a clock."""

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from contract.clock import FixedClock
from contract.encoding import Encoded
from contract.events import Event, EventItem
from contract.features import SubjectState
from contract.manifest import MODELS
from serving.decision.decide import Decider
from serving.decision.limits import DecisionSettings
from serving.decision.messages import DecideRequest
from serving.decision.outcome import SubjectContext
from serving.decision.tokens import TokenSigner
from serving.inference.backend import Outputs
from serving.inference.breaker import Breaker
from serving.inference.embedded import EmbeddedBackend, Session
from serving.inference.release import STAGES, Release
from serving.inference.releases import LiveRelease, load_release
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.inference.broken_models import session, usual_session
from tests.serving.release_factory import BUILT_AT, Factory

CLOCK = FixedClock(BUILT_AT)
SIGNER = TokenSigner(b"k" * 32, CLOCK)
KNOWN = "00000000-0000-4000-8000-000000000001"
PERSONAL = frozenset({"personalization"})
# The known shopper buys these three again and again: GROCERY, DAIRY and BAKERY.
BOUGHT = ("item-40", "item-41", "item-42")


def request(*cart: str, **changed: Any) -> DecideRequest:
    """A checkout with one of each item of `cart`; the deadline is long, for slow machines."""
    body: dict[str, Any] = {
        "visitor_id": "raw-visitor",
        "user_id": "raw-user",
        "session_id": "session-1",
        "cart": {
            "cart_id": "cart-1",
            "currency": "USD",
            "items": [{"item_id": item_id, "quantity": 1, "price": 100} for item_id in cart],
        },
        "deadline_ms": 1_000,
    }
    return DecideRequest.model_validate(body | changed)


def known(*purposes: str) -> SubjectContext:
    return SubjectContext(KNOWN, frozenset(purposes) or PERSONAL)


def nobody() -> SubjectContext:
    return SubjectContext()


def purchase(place: int) -> Event:
    at = BUILT_AT - timedelta(days=60 - 10 * place)
    return Event(
        event_id=uuid5(UUID(int=0), str(place)),
        event_name="purchase",
        occurred_at=at,
        received_at=at,
        session_id=f"session-{place}",
        transaction_id=f"transaction-{place}",
        items=tuple(EventItem(item_id=item_id) for item_id in BOUGHT),
        subject_id=UUID(KNOWN),
        purposes=("analytics", "personalization"),
    )


async def filled_store(folder: Path) -> MemoryFeatureStore:
    store = MemoryFeatureStore(folder)
    for place in range(5):
        await store.apply(purchase(place))
    return store


class Forbidden:
    """A feature store that must not be read."""

    async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
        raise AssertionError("history was read without consent")


def loaded(factory: Factory, release_id: str = "tiny-1") -> Release:
    return load_release(factory.releases_dir, factory.models_dir, release_id)


def with_models(release: Release, factory: Factory, broken: Mapping[str, bytes]) -> Release:
    """The release with real sessions of `broken` models in place of the usual ones."""
    vectors = factory.item_vectors()
    release.models.close()
    sessions = {
        name: session(name, broken[name], vectors.shape[1])
        if name in broken
        else usual_session(name, vectors)
        for name in MODELS
    }
    breakers = {name: Breaker() for name in (*MODELS, *STAGES)}
    return dataclasses.replace(release, models=EmbeddedBackend(sessions), breakers=breakers)


class Stuck:
    """What hangs until told otherwise."""

    def __init__(self) -> None:
        self.go = threading.Event()


class Hung(Session):
    """A model that does not come back."""

    def __init__(self, inner: Session, stuck: Stuck) -> None:
        self.inputs, self.outputs, self._session = inner.inputs, inner.outputs, inner._session
        self._stuck = stuck

    def infer(self, batch: Encoded) -> Outputs:
        self._stuck.go.wait(30)
        return super().infer(batch)


@contextmanager
def deciding(
    release: Release,
    store: Any,
    settings: DecisionSettings | None = None,
    **more: Any,
) -> Iterator[Decider]:
    """A Decider over `release`, ended with its threads and models."""
    live = LiveRelease(Path("unused"), Path("unused"))
    live.use(release)
    decider = Decider(live, store, CLOCK, SIGNER, settings or DecisionSettings(), **more)
    try:
        yield decider
    finally:
        decider.close()
        live.close()
