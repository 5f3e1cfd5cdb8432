"""Kafka into the ledger: what is new is read once, and the ledger knows how far.

Partitions are assigned from the ledger's own offsets; the consumer group's offsets are written afterwards, for displays
of lag only. Messages and offsets go into the ledger in one transaction, so nothing is lost or counted twice, whoever
dies when.

Belongs here: one bounded drain. Doesn't: where to read on (`arrivals.positions`), understanding messages
(`arrivals.reception`), or deciding when to drain (`sensors`, `arrivals.daemon`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from arrivals.ledger import Ledger
from arrivals.positions import Span, ends_of, start_of, topic_ids, topics_of
from arrivals.reception import receive
from arrivals.records import Partition, Reception, Recorded
from resources.errors import SiteFault
from resources.kafka import LastError, bootstrap_address, make_admin, make_consumer, visible_topics
from resources.site import ArrivalSettings, KafkaSettings

_METADATA_TIMEOUT_S = 15.0
_POLL_S = 0.1
_POLL_MESSAGES = 2_000
_Place = tuple[str, int]
"""Topic and number of a partition, as Kafka's messages name it."""


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """Where one drain stops although there is more.

    Parameters
    ----------
    messages
        Messages read.
    seconds
        Time spent.
    backlog
        Rows in the ledger that wait for their ingest: at so many, nothing is read. What isn't read is safe in Kafka.
    """

    messages: int = 100_000
    seconds: float = 20.0
    backlog: int = 500_000


@dataclass(frozen=True, slots=True)
class DrainResult:
    """What one drain did.

    Parameters
    ----------
    rows, events
        New rows, and events that were counted only.
    lag
        Messages that are still in Kafka.
    expired
        Messages that Kafka had deleted before they were read: lost, unless they are announced again.
    held_back
        Nothing was read because the ledger's backlog is too long.
    notices
        What an operator should know, a line each.
    elapsed_s
        How long it took.
    """

    rows: int = 0
    events: int = 0
    lag: int = 0
    expired: int = 0
    held_back: bool = False
    notices: tuple[str, ...] = ()
    elapsed_s: float = 0.0


@dataclass(slots=True)
class _Batch:
    """What has been read since the last transaction."""

    receptions: list[Reception] = field(default_factory=list)
    size: int = 0
    since: float = field(default_factory=time.monotonic)

    def is_full(self, settings: ArrivalSettings) -> bool:
        return (
            len(self.receptions) >= settings.batch_messages
            or self.size >= settings.batch_bytes
            or time.monotonic() - self.since >= settings.batch_age_s
        )


def drain(
    kafka: KafkaSettings,
    settings: ArrivalSettings,
    ledger: Ledger,
    limits: DrainLimits | None = None,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> DrainResult:
    """Read what is new in the site's topics into the ledger.

    Parameters
    ----------
    kafka
        The cluster.
    settings
        Topics, group and batches.
    ledger
        Where it goes.
    limits
        Where to stop although there is more.
    stopping
        Asked between batches whether to stop early; what was read by then is recorded.

    Returns
    -------
    result
        Counts, and what is left in Kafka.

    Raises
    ------
    resources.errors.Retriable
        The broker doesn't answer.
    resources.errors.SiteFault
        It refuses us, or the profile is wrong.
    """
    began = time.monotonic()
    limits = limits or DrainLimits()
    if ledger.backlog() >= limits.backlog:
        notice = f"nothing read: {limits.backlog:,} messages or more wait for their ingest"
        return DrainResult(held_back=True, notices=(notice,), elapsed_s=time.monotonic() - began)
    errors = LastError()
    consumer = make_consumer(kafka, settings.group, errors)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="ledger") as writer:
            worker = _Drain(consumer, make_admin(kafka, errors), settings, ledger, limits, stopping, began, writer)
            return worker.run()
    except KafkaException as error:
        raise errors.explain(error, bootstrap_address(kafka)) from error
    finally:
        consumer.close()


class _Drain:
    """One drain: this thread reads and understands a batch while the writer's records the one before."""

    def __init__(
        self,
        consumer: Consumer,
        admin: AdminClient,
        settings: ArrivalSettings,
        ledger: Ledger,
        limits: DrainLimits,
        stopping: Callable[[], bool],
        began: float,
        writer: Executor,
    ) -> None:
        self._consumer = consumer
        self._admin = admin
        self._settings = settings
        self._ledger = ledger
        self._limits = limits
        self._stopping = stopping
        self._began = began
        self._writer = writer
        self._recording: Future[Recorded] | None = None
        self._expired: dict[Partition, int] = {}
        self._unrecorded_expired: Mapping[Partition, int] = {}
        self._notices: list[str] = []
        self._rows = 0
        self._events = 0

    def run(self) -> DrainResult:
        spans = self._spans()
        unread = {
            place: span
            for place, span in spans.items()
            if span.position < span.end or span.partition in self._unrecorded_expired
        }
        if unread:
            self._consumer.assign([TopicPartition(*place, span.position) for place, span in unread.items()])
            self._read(unread)
            self._commit(unread)
        return DrainResult(
            rows=self._rows,
            events=self._events,
            lag=sum(span.lag for span in spans.values()),
            expired=sum(self._expired.values()),
            notices=tuple(self._notices),
            elapsed_s=time.monotonic() - self._began,
        )

    def _spans(self) -> dict[_Place, Span]:
        """What there is to read, from the ledger's offsets to the ends as they are now."""
        timeout_s = min(_METADATA_TIMEOUT_S, self._limits.seconds)
        metadata = visible_topics(self._consumer, timeout_s)
        cluster = metadata.cluster_id or "unnamed"
        topics = topics_of(metadata, _pattern(self._settings.topics))
        if not topics:
            self._notices.append(f"no topic matches {self._settings.topics}")
        ids = topic_ids(self._admin, metadata, topics, timeout_s)
        places = [TopicPartition(topic, number) for topic in topics for number in metadata.topics[topic].partitions]
        known = {(each.topic, each.number): (each, offset) for each, offset in self._ledger.offsets(cluster).items()}
        spans: dict[_Place, Span] = {}
        for place, (low, high) in sorted(ends_of(self._admin, places, timeout_s).items()):
            partition = Partition(cluster, *place, topic_id=ids.get(place[0], ""))
            start = start_of(partition, known.get(place), low, high)
            spans[place] = Span(start.partition, start.offset, high)
            if start.notice:
                self._notices.append(start.notice)
            if start.expired:
                self._expired[start.partition] = start.expired
        self._unrecorded_expired = self._expired
        return spans

    def _read(self, spans: Mapping[_Place, Span]) -> None:
        batch = _Batch()
        read = 0
        while not self._is_over(spans, read):
            # It would wait for more than there is.
            most = min(_POLL_MESSAGES, self._limits.messages - read, sum(span.lag for span in spans.values()) or 1)
            messages = self._consumer.consume(most, timeout=_POLL_S)
            read += self._take(messages, spans, batch)
            if batch.is_full(self._settings):
                self._record(batch, spans)
                batch = _Batch()
        self._record(batch, spans)
        self._await_recording()

    def _is_over(self, spans: Mapping[_Place, Span], read: int) -> bool:
        return (
            all(span.done for span in spans.values())
            or read >= self._limits.messages
            or time.monotonic() - self._began >= self._limits.seconds
            or self._stopping()
        )

    def _take(self, messages: Sequence[Message], spans: Mapping[_Place, Span], batch: _Batch) -> int:
        """Put messages into the batch; returns how many, without the news that partitions have ended."""
        now = datetime.now(UTC)
        tolerance_s = self._settings.max_clock_difference_s
        before = len(batch.receptions)
        for message in messages:
            span = spans[message.topic(), message.partition()]
            error = message.error()
            if error is not None:
                self._end(span, error, message.offset())
                continue
            offset, value = message.offset(), message.value()
            batch.receptions.append(receive(span.partition, offset, value, now, tolerance_s))
            batch.size += len(value or b"")
            span.position = offset + 1
            span.done = span.position >= span.end
        return len(batch.receptions) - before

    def _end(self, span: Span, error: KafkaError, offset: int) -> None:
        """Take note that nothing more comes of a partition for now."""
        if error.code() == KafkaError._PARTITION_EOF:
            span.position = max(span.position, offset)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            # It was there a moment ago: the next drain finds out what Kafka has instead, and counts what is lost.
            place = f"{span.partition.topic}[{span.partition.number}]"
            self._notices.append(f"{place}: offset {span.position:,} has gone while it was to be read")
        else:
            raise KafkaException(error)
        span.done = True

    def _record(self, batch: _Batch, spans: Mapping[_Place, Span]) -> None:
        """Have a batch recorded, once the one before is: transactions keep the order of messages."""
        self._await_recording()
        offsets = {span.partition: span.position for span in spans.values()}
        expired, self._unrecorded_expired = self._unrecorded_expired, {}
        self._recording = self._writer.submit(self._ledger.record_batch, batch.receptions, offsets, expired=expired)

    def _await_recording(self) -> None:
        if self._recording is not None:
            recorded = self._recording.result()
            self._recording = None
            self._rows += recorded.rows
            self._events += recorded.events

    def _commit(self, spans: Mapping[_Place, Span]) -> None:
        offsets = [TopicPartition(*place, span.position) for place, span in spans.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._notices.append(f"offsets of group {self._settings.group} not written: {error.args[0].str()}")


def _pattern(topics: str) -> re.Pattern[str]:
    try:
        return re.compile(topics)
    except re.error as error:
        raise SiteFault(f"{topics!r} is no regular expression: {error}", "arrivals.topics", "mend it") from error
