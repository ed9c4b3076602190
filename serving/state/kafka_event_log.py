"""The event log as a Kafka topic: durable when all replicas in sync have it, one partition for all
events of a subject.

A repeated event is answered `duplicate` when this process has lately written it; after a restart,
or at another gateway, it is written once more. That changes nothing: readers pass over repeats that
they have lately seen, features merge by event, and the export drops repeats.

A topic gives up no single records: what is erased stays in it, as bytes that no key opens, until
the topic's own retention ends. Records are keyed by what the codec calls the subject, which for
sealed records is a random name that the control store forgets with the key.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from functools import partial
from uuid import UUID

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from contract.errors import UserError
from contract.events import Event
from serving.state.event_log import Appended, Kind, Position
from serving.state.kafka_place import EVENT_ID, KafkaPlace
from serving.state.kafka_tail import KafkaTail, Once
from serving.state.records import Codec, PlainCodec, Record
from serving.state.sqlite_writer import StoreError

log = logging.getLogger(__name__)

_DELIVERY_MS = 5_000
_METADATA_S = 10.0
_FIRST_METADATA_S = 2.0  # a start goes on without brokers, and must not wait for them
_AWAY = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}
_STILL_S = 10.0  # a read that gets nothing for so long has failed
_REMEMBERED = 100_000
_BREATH = 64


class _Delivery:
    """Waits for the broker's word on each of `count` messages; told from another thread."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[str | None] = self._loop.create_future()
        self._left = count
        self._problem: str | None = None
        self._lock = threading.Lock()

    def told(self, error: KafkaError | None, _: Message | None = None) -> None:
        """One message is durable, or it is not."""
        with self._lock:
            self._left -= 1
            self._problem = self._problem or (None if error is None else error.str())
            finished = self._left == 0
        if finished:
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(self._problem)


class KafkaEventLog:
    """An `EventLog` in a topic that exists or that the brokers create. Brokers that are away when
    it is opened are asked again when something is to be read."""

    def __init__(self, place: KafkaPlace, codec: Codec | None = None) -> None:
        """Raises UserError where the brokers refuse the topic."""
        self._place = place
        self._codec = codec or PlainCodec()
        self.log_id = place.log_id
        # None: durable. Else the delivery that it waits for.
        self._written: OrderedDict[bytes, _Delivery | None] = OrderedDict()
        self._closing = False
        self._producer = self._new_producer()
        self._known: list[int] | None = None
        try:
            self._partitions(_FIRST_METADATA_S)
        except StoreError as error:
            log.error("%s; going on without it", error)
        self._poller = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._poller.start()

    def _new_producer(self) -> Producer:
        return Producer(
            self._place.client(
                acks="all",
                enable_idempotence=True,
                linger_ms=2,
                compression_type="lz4",
                partitioner="murmur2_random",  # as clients in other languages do it
                delivery_timeout_ms=_DELIVERY_MS,
            )
        )

    def _partitions(self, patience_s: float = _METADATA_S) -> list[int]:
        """Raises StoreError while the brokers are away, UserError where they refuse the topic."""
        if self._known is None:
            self._known = self._asked_partitions(patience_s)
        return self._known

    def _asked_partitions(self, patience_s: float) -> list[int]:
        topic, until = self._place.topic, time.monotonic() + patience_s
        try:
            while True:
                found = self._producer.list_topics(topic, timeout=patience_s).topics[topic]
                if found.error is None:
                    return sorted(found.partitions)
                if not found.error.retriable() or time.monotonic() > until:
                    break
                time.sleep(0.1)  # the brokers are making it
        except KafkaException as error:
            said = f"event log {self._place.brokers}: {_said(error)}"
            raise (StoreError if error.args[0].code() in _AWAY else UserError)(said) from None
        said = f"event log {self._place.brokers}/{topic}: {found.error.str()}"
        raise (StoreError if found.error.retriable() else UserError)(said)

    def _poll(self) -> None:
        while not self._closing:
            self._producer.poll(0.1)

    @property
    def last_position(self) -> tuple[int, ...]:
        with _reader(self._place) as consumer:
            return tuple(high for _, high in self._ends(consumer))

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        if self._closing:
            raise StoreError("the event log is closed")
        answers, fresh, waits = await self._sorted(events)
        # Somebody may have been erased while that gave way. From here to the producer it does not.
        if not self._codec.all_held(fresh.values()):
            for place in fresh:
                record = self._codec.encode(events[place])
                if record is None:
                    answers[place] = "erased"
            fresh = {place: one for place, one in fresh.items() if answers[place] == "accepted"}
        if fresh:
            waits.add(self._send(tuple(fresh.values())))
        problems = await asyncio.gather(*(asyncio.shield(one.done) for one in waits))
        problem = next((said for said in problems if said is not None), None)
        if problem is not None:
            raise StoreError(f"the brokers did not take it: {problem}")
        return answers

    async def _sorted(
        self, events: Sequence[Event]
    ) -> tuple[list[Appended], dict[int, Record], set[_Delivery]]:
        """The answers, the records to be written by their places in `events`, and what others are
        writing of the same."""
        self._codec.refresh()
        answers: list[Appended] = []
        fresh: dict[int, Record] = {}
        waits: set[_Delivery] = set()
        named: set[bytes] = set()
        for place, event in enumerate(events):
            if place % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            event_id = event.event_id.bytes
            if event_id in self._written or event_id in named:
                answers.append("duplicate")
                pending = self._written.get(event_id)
                if pending is not None:
                    waits.add(pending)
            elif (record := self._codec.encode(event)) is None:
                answers.append("erased")
            else:
                answers.append("accepted")
                named.add(event_id)
                fresh[place] = record
        return answers, fresh, waits

    def _send(self, records: Sequence[Record]) -> _Delivery:
        delivery = _Delivery(len(records))
        delivery.done.add_done_callback(partial(self._settle, [r.event_id for r in records]))
        for record in records:
            self._written[record.event_id] = delivery
            body = record.body.encode() if isinstance(record.body, str) else record.body
            self._produce(body, record.key, [(EVENT_ID, record.event_id)], delivery)
        return delivery

    def _produce(
        self,
        body: bytes,
        key: bytes | None,
        headers: list[tuple[str, str | bytes | None]],
        delivery: _Delivery,
    ) -> None:
        try:
            self._producer.produce(
                self._place.topic, value=body, key=key, headers=headers, on_delivery=delivery.told
            )
        except BufferError:
            delivery.told(KafkaError(KafkaError._QUEUE_FULL))
        except KafkaException as error:
            delivery.told(error.args[0])
            if error.args[0].fatal():  # such a producer never sends again
                self._producer = self._new_producer()

    def _settle(self, event_ids: list[bytes], done: "asyncio.Future[str | None]") -> None:
        failed = done.cancelled() or done.result() is not None
        for event_id in event_ids:
            if failed:
                self._written.pop(event_id, None)
            else:
                self._written[event_id] = None
        while len(self._written) > _REMEMBERED:
            oldest = next(iter(self._written))
            if self._written[oldest] is not None:
                break
            del self._written[oldest]

    def read_from(self, position: Position) -> Iterator[tuple[tuple[int, ...], Event]]:
        once = Once()
        for offsets, message in self._messages(position):
            event = once.event(message, self._codec)
            if event is not None:
                yield offsets, event

    def events_of(self, subject_ids: Sequence[str]) -> Iterator[Event]:
        """As of any log; all of it is gone through."""
        wanted, once = frozenset(self._codec.keys_of(subject_ids)), Once()
        for _, message in self._messages(0) if wanted else ():
            if message.key() in wanted:
                event = once.event(message, self._codec)
                if event is not None:
                    yield event

    finds_by_id = False

    def find(self, event_id: UUID, subject_ids: Sequence[str]) -> Event | None:
        """As of any log; all of it is gone through."""
        every = self.events_of(subject_ids)
        return next((event for event in every if event.event_id == event_id), None)

    async def forget(self, log_keys: Sequence[bytes]) -> int:
        """Nothing: a topic gives up no single records, and these open no more."""
        return 0

    async def let_go(self, kind: Kind, before: date) -> int:
        """Nothing: how long records are kept is a setting of the topic."""
        return 0

    def holding(self, log_keys: Collection[bytes]) -> frozenset[bytes]:
        """As of any log; all of it is gone through, as far as it takes to find them."""
        found: set[bytes] = set()
        left = set(log_keys)
        for _, message in self._messages(0) if left else ():
            key = message.key()
            if isinstance(key, bytes) and key in left:
                left.discard(key)
                found.add(key)
                if not left:
                    break
        return frozenset(found)

    def _messages(self, position: Position) -> Iterator[tuple[tuple[int, ...], Message]]:
        """What lies after `position` now, with the position behind each."""
        with _reader(self._place) as consumer:
            ends = self._ends(consumer)
            # A topic may have been given more partitions since; one with fewer is another topic.
            held = position if isinstance(position, tuple) and len(position) <= len(ends) else ()
            starts = (*held, *(0,) * (len(ends) - len(held)))
            offsets = [max(start, low) for start, (low, _) in zip(starts, ends, strict=True)]
            parts = [TopicPartition(self._place.topic, n, o) for n, o in enumerate(offsets)]
            consumer.assign(parts)
            open_parts = {n for n, o in enumerate(offsets) if o < ends[n][1]}
            while open_parts:
                first = consumer.poll(_STILL_S)
                if first is None:
                    raise StoreError("the event log stopped answering while it was read")
                messages = (first, *consumer.consume(1_000, 0))
                self._codec.refresh()
                for message in messages:
                    part, offset = _place_of(message, open_parts)
                    if offset is None:
                        continue
                    offsets[part] = offset + 1
                    if offset + 1 >= ends[part][1]:
                        open_parts.discard(part)
                    yield tuple(offsets), message

    def _ends(self, consumer: Consumer) -> list[tuple[int, int]]:
        """Of every partition the first offset that is held and the next one to be written."""
        parts = [TopicPartition(self._place.topic, number) for number in self._partitions()]
        try:
            return [consumer.get_watermark_offsets(part, timeout=_METADATA_S) for part in parts]
        except KafkaException as error:
            raise StoreError(f"the event log could not be read: {_said(error)}") from None

    def tail(self, group: str | None) -> KafkaTail:
        return KafkaTail(self._place, self._codec, group, self._partitions)

    async def check(self) -> None:
        if self._closing:
            raise StoreError("the event log is closed")
        probe = _Delivery(1)
        self._produce(b"", None, [], probe)
        problem = await probe.done
        if problem is not None:
            raise StoreError(f"the brokers did not take it: {problem}")

    def close(self) -> None:
        if not self._closing:
            self._producer.flush(_DELIVERY_MS / 1_000)
            self._closing = True
            self._poller.join()


class _reader:  # noqa: N801 - used as a context manager
    """A consumer outside any group, for one reading of the topic."""

    def __init__(self, place: KafkaPlace) -> None:
        self._consumer = Consumer(
            place.client(
                group_id="tillwise-read",
                enable_auto_commit=False,
                enable_partition_eof=True,
                auto_offset_reset="earliest",
                fetch_wait_max_ms=50,
            )
        )

    def __enter__(self) -> Consumer:
        return self._consumer

    def __exit__(self, *_: object) -> None:
        self._consumer.close()


def _place_of(message: Message, open_parts: set[int]) -> tuple[int, int | None]:
    """The partition and the offset of a message; of the end of a partition, no offset."""
    error, part, offset = message.error(), message.partition(), message.offset()
    assert part is not None
    if error is None:
        return part, offset
    if error.code() == KafkaError._PARTITION_EOF:
        open_parts.discard(part)
    elif not error.retriable():
        raise StoreError(f"the event log could not be read: {error.str()}")
    return part, None


def _said(error: KafkaException) -> str:
    return str(error.args[0].str())
