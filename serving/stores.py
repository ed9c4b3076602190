"""Which event log and which feature store a gateway has, by its settings, and how the one reaches
the other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import UserError
from serving.inference.breaker import Breaker, BreakerSettings
from serving.ingest.accept import TracksPosition
from serving.ingest.feed import FeatureFeed
from serving.settings import Settings
from serving.state.event_log import EventLog, SqliteEventLog
from serving.state.feature_store import FeatureStore, MemoryFeatureStore
from serving.state.records import Codec
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.snapshot import SnapshotUnusableError, name_of, read_snapshot
from serving.state.sqlite_writer import StoreError
from serving.state.state_folder import EVENTS, SEED

if TYPE_CHECKING:
    from serving.state.valkey_feature_store import ValkeyFeatureStore

log = logging.getLogger(__name__)

# A decision waits for a part of its deadline only, so waits are short; and as nothing of a store
# that is back is heard while nobody asks, it is asked again soon.
_BREAKER = BreakerSettings(failures=5, cool_off_s=0.5, fair_ms=5.0)
_SEEDED_AT_ONCE = 500


@dataclass(frozen=True)
class OpenStores:
    """`told` hears of every event as it is accepted; where it is None, `feed` follows the log."""

    event_log: EventLog
    features: FeatureStore
    told: TracksPosition | None
    feed: FeatureFeed | None


def open_stores(settings: Settings, keys: SubjectKeys) -> OpenStores:
    """The stores, with what memory holds restored; all that they write is sealed with `keys`.
    Raises UserError."""
    event_log = open_event_log(settings, SealedCodec(keys))
    if settings.feature_store == "memory":
        memory = MemoryFeatureStore(settings.state, keys)
        try:
            memory.restore(event_log)
        except StoreError as error:  # what seals them, or the log, is away: they come later
            log.error("features are not restored yet: %s", error)
            feed = FeatureFeed(event_log, memory, group=None, before=memory.restore_base)
            return OpenStores(event_log, memory, None, feed)
        if isinstance(event_log, SqliteEventLog):  # nobody else writes there
            return OpenStores(event_log, memory, memory, None)
        return OpenStores(event_log, memory, None, FeatureFeed(event_log, memory, group=None))
    shared = _valkey(settings, keys)
    # Gateways of two versions that define features differently do not do each other's work.
    group = f"tillwise-features-{shared.definitions}-{event_log.log_id}"
    before = _seeding(shared, settings.state / SEED, keys)
    return OpenStores(
        event_log, shared, None, FeatureFeed(event_log, shared, group=group, before=before)
    )


def open_event_log(settings: Settings, codec: Codec) -> EventLog:
    """The event log alone. Raises UserError."""
    if settings.event_log == "sqlite":
        return SqliteEventLog(settings.state / EVENTS, codec)
    try:
        from serving.state.kafka_event_log import KafkaEventLog
        from serving.state.kafka_place import kafka_place
    except ImportError:
        raise UserError("Kafka needs the extra: pip install 'tillwise[scale]'") from None
    return KafkaEventLog(
        kafka_place(
            settings.event_log,
            user=settings.kafka_user,
            password=settings.kafka_password,
            tls=settings.kafka_tls.kafka(),
        ),
        codec,
    )


def _valkey(settings: Settings, keys: SubjectKeys) -> "ValkeyFeatureStore":
    try:
        from serving.state.valkey_client import valkey_place
        from serving.state.valkey_feature_store import ValkeyFeatureStore
    except ImportError:
        raise UserError("Valkey needs the extra: pip install 'tillwise[scale]'") from None
    place = valkey_place(
        settings.feature_store,
        user=settings.valkey_user,
        password=settings.valkey_password,
        tls=settings.valkey_tls.valkey(),
    )
    return ValkeyFeatureStore(
        place,
        timedelta(days=settings.retention.behaviour),
        Breaker(_BREAKER),
        keys,
        seed=settings.state / SEED,
    )


def _seeding(
    store: "ValkeyFeatureStore", seed: Path, keys: SubjectKeys
) -> Callable[[], Awaitable[None]]:
    """Brings what an import left in the state folder into the store, once for each import."""

    async def bring() -> None:
        if not seed.exists():
            return
        name = await asyncio.to_thread(name_of, seed)
        if await store.has_seed(name):
            return
        try:
            states = (await asyncio.to_thread(read_snapshot, seed, keys)).states
        except SnapshotUnusableError as problem:
            log.error("imported history is lost until it is backfilled again: %s", problem)
            return
        left = iter(states.items())
        while some := dict(islice(left, _SEEDED_AT_ONCE)):
            await store.merge_in(some)
        await store.note_seed(name)
        log.info("imported history of %d subjects was brought into the feature store", len(states))

    return bring
