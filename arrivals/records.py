"""What goes into the ledger and what comes out of it, as frozen values.

Belongs here: the nouns that `arrivals.ledger` takes and gives. Doesn't: SQL, or what a message says
(`arrivals.announcement`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self

from arrivals.announcement import HermesMessage, Kind
from arrivals.states import UNFINISHED, State

EXCERPT_BYTES = 4_096
"""How much of a message that can't be understood is kept for people to look at."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition of a topic on one Kafka cluster; a cluster that is built anew has a new id, and is read anew.

    Parameters
    ----------
    cluster, topic, number
        Which.
    incarnation
        Counts up when another log appears under the same name: the topic was made anew, or lost what had been read.
    topic_id
        Kafka's own id of the topic, by which that is noticed; empty if it tells none. Not part of the partition's
        identity.
    leader_epoch
        The epoch of the message before the next one to be read, by which it is noticed that Kafka has lost messages and
        has others at their offsets; none if it isn't known. Not part of the identity either.
    """

    cluster: str
    topic: str
    number: int
    incarnation: int = 1
    topic_id: str = field(default="", compare=False)
    leader_epoch: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Reception:
    """One message as it was read from Kafka.

    Parameters
    ----------
    partition, offset
        Where it stands.
    message
        What it says, or nothing if it couldn't be understood.
    rejection
        Why it couldn't, or isn't believed: it goes into quarantine.
    excerpt
        Its beginning, if it couldn't.
    """

    partition: Partition
    offset: int
    message: HermesMessage | None
    rejection: str = ""
    excerpt: str = ""

    @property
    def is_row(self) -> bool:
        """Whether it gets a row of its own; events that announce no file are counted only."""
        return self.message is None or self.message.kind is not Kind.OTHER_EVENT

    def first_values(self, now: datetime) -> tuple[object, ...]:
        """The row's first values, in the order of `FIRST_COLUMNS`."""
        message = self.message
        if message is None:
            told: tuple[object, ...] = _NOTHING_TOLD
        else:
            told = (
                message.event_type,
                message.kind,
                message.scope,
                message.name,
                message.src_rse,
                message.dst_rse,
                message.url,
                message.bytes,
                message.adler32,
                message.day_obs,
                message.exposure,
                message.detector,
                message.sidecar.to_json() if message.sidecar else None,
                message.created_at,
                message.submitted_at,
                message.started_at,
                message.transferred_at,
            )
        state = State.QUARANTINED if self.rejection else State.RECEIVED
        return (*told, now, now if self.rejection else None, state, self.rejection, 0, self.excerpt or None)


_TOLD = (
    *("event_type", "kind", "scope", "name", "src_rse", "dst_rse", "url"),
    *("bytes", "adler32", "day_obs", "exposure", "detector", "sidecar"),
    *("created_at", "submitted_at", "started_at", "transferred_at"),
)
_TEXTS = frozenset({"event_type", "scope", "name", "src_rse", "dst_rse", "url"})
_NOTHING_TOLD = tuple("" if column in _TEXTS else None for column in _TOLD)

FIRST_COLUMNS = (*_TOLD, "received_at", "settled_at", "state", "reason", "attempts", "excerpt")
"""The columns that a row begins with, besides its id and its place in Kafka."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a batch added to the ledger.

    Parameters
    ----------
    rows, events
        New rows, and events that were counted only.
    known_before
        Messages of it that were in the ledger already.
    expired
        Messages that are lost, as nobody had read them before Kafka deleted them.
    """

    rows: int
    events: int
    known_before: int
    expired: int


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One row of the ledger.

    Parameters
    ----------
    row_id
        The ledger's own number of it.
    cluster, topic, partition, offset
        Where the message stands in Kafka.
    kind
        What came, or nothing if the message couldn't be understood.
    scope, name, url, bytes, adler32, day_obs, exposure, detector, sidecar
        As announced; the sidecar as JSON.
    state, reason, waits_for, retry_at, attempts
        Where it stands, why, what would wake it, when it is tried again (or was woken or replayed, since which it is
        due), how often it was tried since it last waited for something that could wake it.
    received_at, settled_at, excerpt
        When it came, when its state last changed, the beginning of a message that couldn't be understood.
    """

    row_id: int
    cluster: str
    topic: str
    partition: int
    offset: int
    kind: Kind | None
    scope: str
    name: str
    dst_rse: str
    url: str
    bytes: int | None
    adler32: str | None
    day_obs: int | None
    exposure: int | None
    detector: int | None
    sidecar: str | None
    state: State
    reason: str
    waits_for: str | None
    retry_at: datetime | None
    attempts: int
    received_at: datetime
    settled_at: datetime | None
    transferred_at: datetime | None
    excerpt: str | None

    @property
    def did(self) -> str:
        """The DID as Rucio writes it."""
        return f"{self.scope}:{self.name}"

    @property
    def since(self) -> datetime:
        """Since when it has been in its state."""
        woken_at = self.retry_at if self.state is State.RECEIVED else None
        return woken_at or self.settled_at or self.received_at

    @classmethod
    def from_values(cls, values: Iterable[Any]) -> Self:
        """Read a row of the table from values in the order of the fields (`ROW_COLUMNS`)."""
        columns = list(values)
        columns[_KIND] = None if columns[_KIND] is None else Kind(columns[_KIND])
        columns[_STATE] = State(columns[_STATE])
        return cls(*columns)


ROW_COLUMNS = ("id", *(field.name for field in fields(LedgerRow) if field.name != "row_id"))
"""The columns that a `LedgerRow` is read from."""

_KIND, _STATE = ROW_COLUMNS.index("kind"), ROW_COLUMNS.index("state")


@dataclass(frozen=True, slots=True)
class Settlement:
    """The next state of one row, and why.

    Parameters
    ----------
    row_id, state, reason
        Which row becomes what; the reason is one line for people.
    waits_for
        For waiting rows: the key of what would wake it (`Ledger.wake`).
    retry_at
        For waiting rows: when it is tried again in any case.
    day_obs, exposure
        What was learned about the row, if anything.
    """

    row_id: int
    state: State
    reason: str = ""
    waits_for: str | None = None
    retry_at: datetime | None = None
    day_obs: int | None = None
    exposure: int | None = None


@dataclass(frozen=True, slots=True)
class DayObsSummary:
    """What has come for one day_obs.

    Parameters
    ----------
    day_obs
        Which, or none for what belongs to no day_obs.
    counts
        Rows by state.
    due
        Rows that `Ledger.pending` would give now.
    bytes
        Announced bytes of all rows.
    last_received_at, newest_row
        When the last message came, and its row.
    oldest_due_at
        Since when the first of the due rows has been due, if any is: since it came, was woken or replayed, or may be
        tried again.
    """

    day_obs: int | None
    counts: Mapping[State, int]
    due: int
    bytes: int
    last_received_at: datetime
    newest_row: int
    oldest_due_at: datetime | None = None

    @property
    def unfinished(self) -> int:
        """Rows that the platform will do something about by itself, now or later."""
        return sum(self.counts[state] for state in UNFINISHED)

    def merged(self, other: Self) -> Self:
        """The summary of both summaries' rows."""
        return replace(
            self,
            counts=MappingProxyType({state: self.counts[state] + other.counts[state] for state in State}),
            due=self.due + other.due,
            bytes=self.bytes + other.bytes,
            last_received_at=max(self.last_received_at, other.last_received_at),
            newest_row=max(self.newest_row, other.newest_row),
            oldest_due_at=min((at for at in (self.oldest_due_at, other.oldest_due_at) if at), default=None),
        )


@dataclass(frozen=True, slots=True)
class ExposureRows:
    """What was announced for one exposure: its dimensions and raws.

    Parameters
    ----------
    exposure
        Which.
    counts
        Rows by state.
    last_received_at
        When the last message came.
    """

    exposure: int
    counts: Mapping[State, int]
    last_received_at: datetime

    @property
    def unfinished(self) -> int:
        """Rows that the platform will do something about by itself, now or later."""
        return sum(self.counts[state] for state in UNFINISHED)


@dataclass(frozen=True, slots=True)
class TransferCount:
    """Events of one type, in one hour, between one pair of RSEs.

    Parameters
    ----------
    hour, src_rse, dst_rse, event_type
        Which; RSEs are empty where an event names none.
    count, bytes, duration_s
        How many, and the sums of what they tell.
    timed_bytes
        Bytes of those that told a duration: a rate is these by ``duration_s``.
    """

    hour: datetime
    src_rse: str
    dst_rse: str
    event_type: str
    count: int
    bytes: int
    duration_s: int
    timed_bytes: int
