"""Following an event log that is a Kafka topic: alone through all partitions, or as a member of a
group among which they are shared."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from contract.events import Event
from serving.state.kafka_place import KafkaPlace, event_id_of, log
from serving.state.records import Codec, decoded
from serving.state.sqlite_writer import StoreError

Result = TypeVar("Result")

_SEEN = 100_000


class Once:
    """Takes each event out of the messages once, as far back as `_SEEN` events."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, tuple[int | None, int | None]] = OrderedDict()

    def event(self, message: Message, codec: Codec) -> Event | None:
        """The event in `message`, unless it is a probe, a repeat, or not to be read any more. The
        very same message, read again after a rewind, is no repeat."""
        event_id, body = event_id_of(message), message.value()
        if event_id is None or body is None:
            return None
        where = (message.partition(), message.offset())
        if self._seen.setdefault(event_id, where) != where:
            return None
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return decoded(codec, body)


class KafkaTail:
    """The `Tail` of a topic. The consumer is used from a thread of its own, as it waits."""

    def __init__(
        self,
        place: KafkaPlace,
        codec: Codec,
        group: str | None,
        partitions: Callable[[], Sequence[int]],
    ) -> None:
        """`partitions`: all there are; may raise StoreError."""
        held = frozenset[int]() if group is not None else frozenset(partitions())
        self._topic, self._codec, self._once = place.topic, codec, Once()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-tail")
        self._offsets: dict[int, int] = {}
        self._held: frozenset[int] = frozenset()
        self._unplaced: frozenset[int] = frozenset()
        self._grouped = group is not None
        self._consumer = Consumer(
            place.client(
                group_id=group or "tillwise-read",
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # also where the wanted offset is held no more
                fetch_wait_max_ms=100,
                fetch_error_backoff_ms=100,
                session_timeout_ms=6_000,
                heartbeat_interval_ms=1_500,
                partition_assignment_strategy="range",  # moves all at once: no partition has two
            )
        )
        if self._grouped:
            self._consumer.subscribe(
                [self._topic], on_assign=self._assigned, on_revoke=self._revoked
            )
        else:
            self._held = self._unplaced = held

    @property
    def unplaced(self) -> frozenset[int]:
        return self._unplaced

    @property
    def offsets(self) -> Mapping[int, int]:
        return dict(self._offsets)

    # Called within `consume`, so in the consumer's thread.
    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._held = self._unplaced = frozenset(one.partition for one in partitions)
        self._offsets = {}
        consumer.assign([])  # nothing comes before it is known where to go on

    def _revoked(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        self._held = self._unplaced = frozenset()
        self._offsets = {}
        consumer.unassign()

    async def place(self, offsets: Mapping[int, int]) -> None:
        await self._in_thread(self._place, dict(offsets))

    def _place(self, offsets: dict[int, int]) -> None:
        if not self._unplaced or offsets.keys() != self._held:
            return
        parts = [TopicPartition(self._topic, part, at) for part, at in offsets.items()]
        self._consumer.assign(parts)
        self._offsets, self._unplaced = offsets, frozenset()

    async def take(self, most: int, wait_s: float) -> list[Event]:
        return await self._in_thread(self._take, most, wait_s)

    def _take(self, most: int, wait_s: float) -> list[Event]:
        if self._unplaced and self._offsets:  # rewound since
            self._consumer.assign([])
            self._offsets = {}
        first = self._consumer.poll(wait_s)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(most - 1, 0)]
        self._codec.refresh()
        events: list[Event] = []
        for message in messages:
            part, offset, error = message.partition(), message.offset(), message.error()
            if error is not None:
                if not error.retriable():
                    log.warning("following the event log: %s", error.str())
                continue
            assert part is not None
            assert offset is not None
            if part in self._offsets:  # else it was handed over meanwhile
                self._offsets[part] = offset + 1
                event = self._once.event(message, self._codec)
                if event is not None:
                    events.append(event)
        return events

    def rewind(self) -> None:
        self._unplaced = self._held

    async def commit(self, offsets: Mapping[int, int]) -> None:
        if self._grouped and offsets:
            await self._in_thread(self._commit, dict(offsets))

    def _commit(self, offsets: dict[int, int]) -> None:
        parts = [TopicPartition(self._topic, part, at) for part, at in offsets.items()]
        try:
            self._consumer.commit(offsets=parts, asynchronous=True)
        except KafkaException as error:  # the group has changed; marks beside the features count
            log.info("offsets were not committed: %s", error.args[0].str())

    async def close(self) -> None:
        await self._in_thread(self._consumer.close)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[..., Result], *arguments: object) -> Result:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *arguments)
        except KafkaException as error:
            raise StoreError(f"the event log could not be read: {error.args[0].str()}") from None
        except RuntimeError as error:  # closed
            raise StoreError(f"the event log is closed: {error}") from None
