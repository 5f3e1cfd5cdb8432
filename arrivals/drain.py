"""Kafka into the ledger: what is new is read once, and the ledger knows how far.

Partitions are assigned from the ledger's own offsets; the consumer group's offsets are written afterwards, for displays
of lag only. Messages and offsets go into the ledger in one transaction, so nothing is lost or counted twice, whoever
dies when.

Belongs here: one bounded drain, and keeping the connection for the next. Doesn't: where to read on
(`arrivals.positions`), the connection (`arrivals.connection`), understanding messages (`arrivals.reception`), or
deciding when to drain (`sensors`, `arrivals.daemon`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Self

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from arrivals.connection import Connection, Place
from arrivals.garbage import only_new_objects_collected
from arrivals.ledger import Ledger
from arrivals.positions import Outlook, Span, look, look_again, topic_pattern
from arrivals.reception import receive
from arrivals.records import Partition, Reception, Recorded
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
    """Drain once, and let go of Kafka; see `Drain`."""
    with Drain(kafka, settings) as once:
        return once.drain(ledger, limits, stopping=stopping)


class Drain:
    """Reads what is new in a site's topics into its ledger, as often as it is asked to, over one connection.

    Between two drains the consumer fetches what comes. What the ledger says counts nevertheless: where another process
    has read on meanwhile, reading goes on from there.

    Parameters
    ----------
    kafka
        The cluster.
    settings
        Topics, group and batches.
    """

    def __init__(self, kafka: KafkaSettings, settings: ArrivalSettings) -> None:
        self._kafka = kafka
        self._settings = settings
        self._connection: Connection | None = None
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of Kafka; the next drain connects anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def drain(
        self,
        ledger: Ledger,
        limits: DrainLimits | None = None,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> DrainResult:
        """Read what is new.

        Parameters
        ----------
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
        with self._one_at_a_time:
            try:
                outlook, connection = self._look(ledger, limits)
                with (
                    ThreadPoolExecutor(1, thread_name_prefix="ledger") as writer,
                    only_new_objects_collected(),
                ):
                    reading = _Reading(connection, outlook, self._settings, ledger, limits, stopping, began, writer)
                    result = reading.run()
            except KafkaException as error:
                raise self._explained(error) from error
            except BaseException:
                self.close()
                raise
            if not reading.may_go_on:
                self.close()
            return result

    def _look(self, ledger: Ledger, limits: DrainLimits) -> tuple[Outlook, Connection]:
        """What there is to read; where a kept connection fails or sees something odd, a new one tells."""
        wanted = topic_pattern(self._settings.topics)
        timeout_s = min(_METADATA_TIMEOUT_S, limits.seconds)
        kept = self._connection
        if kept is not None and kept.is_as_made(self._kafka):
            try:
                outlook = look(kept, wanted, ledger, timeout_s)
            except KafkaException:
                pass
            else:
                if not outlook.notices:
                    kept.is_well()
                    return outlook, kept
        self.close()
        self._connection = Connection(self._kafka, self._settings.group)
        return look(self._connection, wanted, ledger, timeout_s), self._connection

    def _explained(self, error: KafkaException) -> Exception:
        assert self._connection is not None  # who else would have raised it?
        try:
            return self._connection.explain(error)
        finally:
            self.close()


class _Reading:
    """One drain: this thread reads and understands a batch while the writer's records the one before."""

    def __init__(
        self,
        connection: Connection,
        outlook: Outlook,
        settings: ArrivalSettings,
        ledger: Ledger,
        limits: DrainLimits,
        stopping: Callable[[], bool],
        began: float,
        writer: Executor,
    ) -> None:
        self._connection = connection
        self._spans = dict(outlook.spans)
        self._expired = 0
        self._unrecorded_gaps = outlook.expired_before
        self._notices = list(outlook.notices)
        self._begins = {place: span.position for place, span in outlook.spans.items()}
        self._recorded = {place: None if span.is_news else span.position for place, span in outlook.spans.items()}
        self._is_empty = outlook.is_empty
        self._settings = settings
        self._ledger = ledger
        self._limits = limits
        self._stopping = stopping
        self._began = began
        self._writer = writer
        self._recording: Future[Recorded] | None = None
        self._refused: list[Span] = []
        self._unreadable: dict[Place, KafkaError] = {}
        self._told_to_begin = False
        self._rows = 0
        self._events = 0
        self.may_go_on = True
        """Whether the connection is as it should be, and the next drain can use it."""

    def run(self) -> DrainResult:
        if not self._is_empty:
            known = ((place, span.partition.leader_epoch) for place, span in self._spans.items())
            leader_epochs = {place: epoch for place, epoch in known if epoch is not None}
            self._told_to_begin = self._connection.read_from(self._begins, leader_epochs)
            self._read()
            self._look_again()
            self._tell_of_unreadable()
            self._connection.reached({place: span.position for place, span in self._spans.items()})
            self._commit()
        return DrainResult(
            rows=self._rows,
            events=self._events,
            lag=sum(span.lag for span in self._spans.values()),
            expired=self._expired,
            notices=tuple(self._notices),
            elapsed_s=time.monotonic() - self._began,
        )

    def _read(self) -> None:
        batch = _Batch()
        read = 0
        while not self._is_over(read):
            # It would wait for more than there is.
            most = min(_POLL_MESSAGES, self._limits.messages - read, sum(s.lag for s in self._spans.values()) or 1)
            messages = self._connection.consumer.consume(most, timeout=_POLL_S)
            taken = self._take(messages, batch)
            if taken:
                self._connection.is_well()
            read += taken
            if batch.is_full(self._settings):
                self._record(batch)
                batch = _Batch()
        self._record(batch)
        self._await_recording()
        if not read and not self._stopping() and not all(span.done for span in self._spans.values()):
            self.may_go_on = False

    def _is_over(self, read: int) -> bool:
        return (
            all(span.done for span in self._spans.values())
            or read >= self._limits.messages
            or time.monotonic() - self._began >= self._limits.seconds
            or self._stopping()
        )

    def _take(self, messages: Sequence[Message], batch: _Batch) -> int:
        """Put messages into the batch; returns how many, without the news that partitions have ended."""
        now = datetime.now(UTC)
        tolerance_s = self._settings.max_clock_difference_s
        before = len(batch.receptions)
        for message in messages:
            error, topic = message.error(), message.topic()
            if topic is None:
                self._connection.bear(error)
                continue
            span = self._spans[topic, message.partition()]
            if error is not None:
                self._end(span, error, message.offset())
                continue
            offset, value = message.offset(), message.value()
            batch.receptions.append(receive(span.partition, offset, value, now, tolerance_s))
            batch.size += len(value or b"")
            span.position = offset + 1
            span.leader_epoch = message.leader_epoch()
            span.done = span.position >= span.end
        return len(batch.receptions) - before

    def _end(self, span: Span, error: KafkaError, offset: int) -> None:
        """Take note that nothing more comes of a partition for now."""
        if error.code() == KafkaError._PARTITION_EOF:
            # A consumer that goes on where it was may tell of an end that is none any more.
            if not self._told_to_begin and offset < span.end:
                return
            if offset > span.position:  # what is skipped may be of a later epoch
                span.position, span.leader_epoch = offset, None
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._refused.append(span)
            self.may_go_on = False
        else:
            self._unreadable[span.partition.topic, span.partition.number] = error
            self.may_go_on = False
        span.done = True

    def _look_again(self) -> None:
        """Have the ledger know what there is instead of what Kafka refused; the next drain reads it."""
        if not self._refused:
            return
        outlook = look_again(self._connection, self._refused, _METADATA_TIMEOUT_S)
        self._spans |= outlook.spans
        self._recorded |= dict.fromkeys(outlook.spans)
        self._unrecorded_gaps = outlook.expired_before
        self._notices += outlook.notices
        self._record(_Batch())
        self._await_recording()

    def _tell_of_unreadable(self) -> None:
        """Say of which partitions Kafka gives nothing; that it gives nothing of any is an error."""
        numbers: dict[tuple[str, int, str], list[int]] = {}
        for (topic, number), error in sorted(self._unreadable.items()):
            numbers.setdefault((topic, error.code(), error.str()), []).append(number)
        errors = [KafkaError(code, f"{topic}{some}: {text}") for (topic, code, text), some in numbers.items()]
        if errors and len(self._unreadable) == len(self._spans):
            raise KafkaException(errors[0])
        self._notices += [f"not read: {self._connection.explain(KafkaException(error))}" for error in errors]

    def _record(self, batch: _Batch) -> None:
        """Have a batch recorded, once the one before is: transactions keep the order of messages."""
        self._await_recording()
        gaps, self._unrecorded_gaps = self._unrecorded_gaps, {}
        offsets: dict[Partition, int] = {}
        for place, span in self._spans.items():
            if span.position != self._recorded[place]:
                self._recorded[place] = span.position
                offsets[replace(span.partition, leader_epoch=span.leader_epoch)] = span.position
        if offsets:
            self._recording = self._writer.submit(
                self._ledger.record_batch, batch.receptions, offsets, expired_before=gaps
            )

    def _await_recording(self) -> None:
        if self._recording is not None:
            recorded = self._recording.result()
            self._recording = None
            self._rows += recorded.rows
            self._events += recorded.events
            self._expired += recorded.expired

    def _commit(self) -> None:
        read = [TopicPartition(*place, at) for place, at in self._recorded.items() if at != self._begins[place]]
        if not read:
            return
        trouble = self._connection.commit(read)
        if trouble:
            self._notices.append(f"offsets of group {self._settings.group} not written: {trouble}")
