"""Kafka into the ledger: what is new is read once, and the ledger knows how far.

Partitions are assigned from the ledger's own offsets; the consumer group's offsets are written afterwards, for displays
of lag only. Messages and offsets go into the ledger in one transaction, so nothing is lost or counted twice, whoever
dies when.

Belongs here: one bounded drain. Doesn't: understanding messages (`arrivals.message`), or deciding when to drain
(`sensors`, `arrivals.daemon`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.records import EXCERPT_BYTES, Partition, Reception
from resources.errors import Rejected, SiteFault
from resources.kafka import LastError, bootstrap_address, make_consumer
from resources.site import ArrivalSettings, KafkaSettings

_METADATA_TIMEOUT_S = 15.0
_POLL_S = 0.1
_POLL_MESSAGES = 2_000


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
class _Span:
    """What there is to read of one partition."""

    position: int
    end: int
    done: bool = False


@dataclass(slots=True)
class _Batch:
    """What has been read since the last transaction."""

    receptions: list[Reception] = field(default_factory=list)
    size: int = 0
    since: float = 0.0

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
        result = _Drain(consumer, settings, ledger, limits, stopping, began).run()
    except KafkaException as error:
        raise errors.explain(error, bootstrap_address(kafka)) from error
    finally:
        consumer.close()
    return result


class _Drain:
    def __init__(
        self,
        consumer: Consumer,
        settings: ArrivalSettings,
        ledger: Ledger,
        limits: DrainLimits,
        stopping: Callable[[], bool],
        began: float,
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._ledger = ledger
        self._limits = limits
        self._stopping = stopping
        self._began = began
        self._cluster = ""
        self._expired = 0
        self._unrecorded_expired: dict[Partition, int] = {}
        self._notices: list[str] = []
        self._rows = 0
        self._events = 0

    def run(self) -> DrainResult:
        spans = self._spans()
        unread = {
            partition: span
            for partition, span in spans.items()
            if span.position < span.end or partition in self._unrecorded_expired
        }
        if unread:
            self._consumer.assign([TopicPartition(p.topic, p.number, span.position) for p, span in unread.items()])
            self._read(unread)
            self._commit(unread)
        return DrainResult(
            rows=self._rows,
            events=self._events,
            lag=sum(max(span.end - span.position, 0) for span in spans.values()),
            expired=self._expired,
            notices=tuple(self._notices),
            elapsed_s=time.monotonic() - self._began,
        )

    def _spans(self) -> dict[Partition, _Span]:
        """What there is to read, by partition, from the ledger's offsets to the ends as they are now."""
        timeout_s = min(_METADATA_TIMEOUT_S, self._limits.seconds)
        metadata = self._consumer.list_topics(timeout=timeout_s)
        self._cluster = metadata.cluster_id or "unnamed"
        wanted = _pattern(self._settings.topics)
        known = self._ledger.offsets(self._cluster)
        spans: dict[Partition, _Span] = {}
        for topic in sorted(name for name in metadata.topics if wanted.search(name)):
            for number in sorted(metadata.topics[topic].partitions):
                partition = Partition(self._cluster, topic, number)
                low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=timeout_s)
                spans[partition] = _Span(self._start(partition, known.get(partition), low, high), high)
        if not spans:
            self._notices.append(f"no topic matches {self._settings.topics}")
        return spans

    def _start(self, partition: Partition, known: int | None, low: int, high: int) -> int:
        if known is None:
            return low
        if known < low:
            self._expired += low - known
            self._unrecorded_expired[partition] = low - known
            self._notices.append(
                f"{partition.topic}[{partition.number}]: Kafka deleted {low - known:,} messages before they were read; "
                "have them announced again"
            )
            return low
        if known > high:
            self._notices.append(
                f"{partition.topic}[{partition.number}]: ends at {high:,}, but was read up to {known:,} already: "
                "the topic was made anew under the same name, and its new messages up to there are not read"
            )
        return known

    def _read(self, spans: Mapping[Partition, _Span]) -> None:
        batch = _Batch(since=time.monotonic())
        read = 0
        while not self._is_over(spans, read):
            messages = self._consumer.consume(min(_POLL_MESSAGES, self._limits.messages - read), timeout=_POLL_S)
            for message in messages:
                read += self._take(message, spans, batch)
            if batch.is_full(self._settings):
                self._record(batch, spans)
                batch = _Batch(since=time.monotonic())
        self._record(batch, spans)

    def _is_over(self, spans: Mapping[Partition, _Span], read: int) -> bool:
        return (
            all(span.done for span in spans.values())
            or read >= self._limits.messages
            or time.monotonic() - self._began >= self._limits.seconds
            or self._stopping()
        )

    def _take(self, message: Message, spans: Mapping[Partition, _Span], batch: _Batch) -> int:
        """Put one message into the batch; 0 if it is but the news that a partition has ended."""
        span = spans[Partition(self._cluster, message.topic(), message.partition())]
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            span.position = max(span.position, message.offset())
            span.done = True
            return 0
        value = message.value()
        batch.receptions.append(_receive(Partition(self._cluster, message.topic(), message.partition()), message))
        batch.size += len(value or b"")
        span.position = message.offset() + 1
        span.done = span.position >= span.end
        return 1

    def _record(self, batch: _Batch, spans: Mapping[Partition, _Span]) -> None:
        offsets = {partition: span.position for partition, span in spans.items()}
        recorded = self._ledger.record_batch(batch.receptions, offsets, expired=self._unrecorded_expired)
        self._unrecorded_expired = {}
        self._rows += recorded.rows
        self._events += recorded.events

    def _commit(self, spans: Mapping[Partition, _Span]) -> None:
        offsets = [TopicPartition(p.topic, p.number, span.position) for p, span in spans.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._notices.append(f"offsets of group {self._settings.group} not written: {error.args[0].str()}")


def _receive(partition: Partition, message: Message) -> Reception:
    value = message.value()
    try:
        return Reception(partition, message.offset(), parse_message(value))
    except Rejected as rejection:
        excerpt = (value or b"")[:EXCERPT_BYTES].decode("utf-8", errors="replace").replace("\0", "\ufffd")
        return Reception(partition, message.offset(), None, str(rejection), excerpt)


def _pattern(topics: str) -> re.Pattern[str]:
    try:
        return re.compile(topics)
    except re.error as error:
        raise SiteFault(f"{topics!r} is no regular expression: {error}", "arrivals.topics", "mend it") from error
