"""What operators ask of the ledger: how much, since when, for which causes; each question one query.

Belongs here: reading for people, checks and metrics, of any number of messages. Doesn't: anything that changes a row
(`arrivals.ledger`), or what is too much or too late (`arrivals.health`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from itertools import batched
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.exc import DBAPIError

from arrivals.announcement import Kind
from arrivals.causes import cause_of, matches, surest_fragment
from arrivals.ledger import Ledger
from arrivals.states import State
from arrivals.tables import EVENTS, MESSAGES, OFFSETS, due_since, in_states, is_of
from resources.databases import database_trouble

MOST_LATENCIES = 100_000
"""Of so many messages at most, the newest, the times from message to dataset are looked at."""

_EXPOSURES_A_QUERY = 1_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages are meant; what isn't given doesn't matter.

    Parameters
    ----------
    scope, name, exposure, day_obs, state, kind
        As the ledger's rows have them.
    reason
        A piece of the reason, or of the cause as lists show it.
    since, until
        Received at or after, and before.
    """

    scope: str | None = None
    name: str | None = None
    exposure: int | None = None
    day_obs: int | None = None
    state: State | None = None
    kind: Kind | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing but a state is given."""
        return all(value is None for name, value in asdict(self).items() if name != "state")

    def condition(self) -> ColumnElement[bool]:
        """In SQL, but for the placeholders of a cause: those are compared afterwards."""
        equal = ("scope", "name", "exposure", "day_obs", "state", "kind")
        chosen = [MESSAGES.c[key] == value for key in equal if (value := getattr(self, key)) is not None]
        if self.reason:
            chosen.append(MESSAGES.c.reason.contains(surest_fragment(self.reason), autoescape=True))
        if self.since is not None:
            chosen.append(MESSAGES.c.received_at >= self.since)
        if self.until is not None:
            chosen.append(MESSAGES.c.received_at < self.until)
        return and_(MESSAGES.c.id > 0, *chosen)

    def means(self, reason: str) -> bool:
        """Whether this reason is meant."""
        return not self.reason or matches(reason, self.reason)


@dataclass(frozen=True, slots=True)
class StateCount:
    """Messages of one kind in one state.

    Parameters
    ----------
    kind
        None: it couldn't be understood.
    state, rows, bytes
        Where they stand, how many, and the announced size of their files.
    oldest_at, last_received_at
        When the oldest and the newest of them came; of those to be ingested, since when the oldest has been due.
    """

    kind: Kind | None
    state: State
    rows: int
    bytes: int
    oldest_at: datetime
    last_received_at: datetime


@dataclass(frozen=True, slots=True)
class CauseGroup:
    """Messages that are in one state for one cause.

    Parameters
    ----------
    state, kind, cause
        What they have in common; the cause as of `arrivals.causes.cause_of`.
    rows, bytes, reasons
        How many, the announced size of their files, and how many different reasons.
    example
        One of the reasons, in full.
    first_received_at, last_received_at
        When the oldest and the newest of them came.
    retry_at
        When the first of them is tried again by itself, if ever.
    """

    state: State
    kind: Kind | None
    cause: str
    rows: int
    bytes: int
    reasons: int
    example: str
    first_received_at: datetime
    last_received_at: datetime
    retry_at: datetime | None

    def merged(self, other: Self) -> Self:
        """Both groups' messages."""
        times = [time for time in (self.retry_at, other.retry_at) if time is not None]
        return replace(
            self,
            rows=self.rows + other.rows,
            bytes=self.bytes + other.bytes,
            reasons=self.reasons + other.reasons,
            first_received_at=min(self.first_received_at, other.first_received_at),
            last_received_at=max(self.last_received_at, other.last_received_at),
            retry_at=min(times, default=None),
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast things went in a while.

    Parameters
    ----------
    window_s
        How long a while.
    received, ingested, ingested_bytes
        Messages that came, that were ingested, and the announced size of the latter.
    median_s, p95_s
        From a message's reception to its dataset; none if nothing was ingested.
    """

    window_s: float
    received: int
    ingested: int
    ingested_bytes: int
    median_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class TransferTimes:
    """What a message tells of the transfer that it announces.

    Parameters
    ----------
    event_type, src_rse, dst_rse
        What happened, from where to where.
    submitted_at, started_at, transferred_at, created_at
        The transfer's stages, and when the message was made.
    """

    event_type: str
    src_rse: str
    dst_rse: str
    submitted_at: datetime | None
    started_at: datetime | None
    transferred_at: datetime | None
    created_at: datetime | None


class Overview:
    """Answers about a ledger; nothing is changed. Without its database every question raises `Retriable`.

    Parameters
    ----------
    ledger
        Which; it has to stay open.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._engine = ledger.engine

    def states(self) -> list[StateCount]:
        """Messages by kind and state."""
        received_at = MESSAGES.c.received_at
        oldest_at = case((MESSAGES.c.state == State.RECEIVED, due_since()), else_=received_at)
        found = self._all(
            select(
                MESSAGES.c.kind,
                MESSAGES.c.state,
                func.count(),
                func.coalesce(func.sum(MESSAGES.c.bytes), 0),
                func.min(oldest_at, type_=received_at.type),
                func.max(received_at, type_=received_at.type),
            ).group_by(MESSAGES.c.kind, MESSAGES.c.state)
        )
        return sorted(
            (
                StateCount(_kind(kind), State(state), rows, int(size), oldest, last)
                for kind, state, rows, size, oldest, last in found
            ),
            key=lambda count: (str(count.kind), count.state),
        )

    def causes(self, states: Collection[State], selection: Selection | None = None) -> list[CauseGroup]:
        """Messages in some states by their cause, the most numerous first.

        Parameters
        ----------
        states
            Which.
        selection
            Only of these.
        """
        selection = selection or Selection()
        received_at, retry_at = MESSAGES.c.received_at, MESSAGES.c.retry_at
        found = self._all(
            select(
                MESSAGES.c.state,
                MESSAGES.c.kind,
                MESSAGES.c.reason,
                func.count(),
                func.coalesce(func.sum(MESSAGES.c.bytes), 0),
                func.min(received_at, type_=received_at.type),
                func.max(received_at, type_=received_at.type),
                func.min(retry_at, type_=retry_at.type),
            )
            .where(in_states(*states), selection.condition())
            .group_by(MESSAGES.c.state, MESSAGES.c.kind, MESSAGES.c.reason)
            .order_by(func.count().desc(), MESSAGES.c.reason)
        )
        groups: dict[tuple[str, str | None, str], CauseGroup] = {}
        for state, kind, reason, rows, size, first, last, retry in found:
            if not selection.means(reason):
                continue
            cause = cause_of(reason)
            one = CauseGroup(State(state), _kind(kind), cause, rows, int(size), 1, reason, first, last, retry)
            key = (state, kind, cause)
            groups[key] = groups[key].merged(one) if key in groups else one
        return sorted(groups.values(), key=lambda group: (-group.rows, group.cause))

    def rows_by_state(self, selection: Selection) -> Mapping[State, int]:
        """How many messages of a selection are in each state."""
        query = select(MESSAGES.c.state, func.count()).where(selection.condition()).group_by(MESSAGES.c.state)
        found = dict(self._all(query))
        return {state: found.get(state, 0) for state in State}

    def row_ids(self, state: State, selection: Selection) -> list[int]:
        """Ids of a selection's messages that are in a state, in the order they came."""
        query = select(MESSAGES.c.id, MESSAGES.c.reason).where(in_states(state), selection.condition())
        return [row_id for row_id, reason in self._all(query.order_by(MESSAGES.c.id)) if selection.means(reason)]

    def pace(self, now: datetime, since: datetime) -> Pace:
        """How fast things went since a time."""
        ingested = and_(in_states(State.INGESTED), MESSAGES.c.settled_at >= since)
        [(received,)] = self._all(select(func.count()).where(MESSAGES.c.received_at >= since))
        [(done, size)] = self._all(select(func.count(), func.coalesce(func.sum(MESSAGES.c.bytes), 0)).where(ingested))
        times = self._all(
            select(MESSAGES.c.received_at, MESSAGES.c.settled_at)
            .where(ingested)
            .order_by(MESSAGES.c.id.desc())
            .limit(MOST_LATENCIES)
        )
        took = sorted((settled_at - received_at).total_seconds() for received_at, settled_at in times)
        return Pace(
            (now - since).total_seconds(), received, done, int(size), _quantile(took, 0.5), _quantile(took, 0.95)
        )

    def unarrived_detectors(self, day_obs: int, instrument: str) -> Mapping[tuple[int, int], tuple[State, str]]:
        """State and reason of single raws that were announced for a day_obs and aren't in the Butler.

        Parameters
        ----------
        day_obs
            Which.
        instrument
            Whose: what was refused because it is another's doesn't count.

        Returns
        -------
        found
            By exposure and detector.
        """
        columns = (MESSAGES.c.exposure, MESSAGES.c.detector, MESSAGES.c.state, MESSAGES.c.reason)
        found = self._all(
            select(*columns)
            .where(MESSAGES.c.day_obs == day_obs, MESSAGES.c.kind == Kind.RAW)
            .where(MESSAGES.c.exposure.is_not(None), MESSAGES.c.detector.is_not(None))
            .where(in_states(State.RECEIVED, State.WAITING, State.QUARANTINED), is_of(instrument))
            .order_by(MESSAGES.c.id)
        )
        return {(exposure, detector): (State(state), reason) for exposure, detector, state, reason in found}

    def came_otherwise(self, exposures: Collection[int]) -> Mapping[tuple[int, int | None], tuple[State, str]]:
        """State and reason of exposures' zips, and of their single raws that were ingested.

        Returns
        -------
        found
            By exposure and detector; a zip, which brings all detectors, by none.
        """
        detector = case((MESSAGES.c.kind == Kind.RAW, MESSAGES.c.detector))
        ingested = and_(MESSAGES.c.kind == Kind.RAW, MESSAGES.c.detector.is_not(None), in_states(State.INGESTED))
        query = select(MESSAGES.c.exposure, detector, MESSAGES.c.state, MESSAGES.c.reason)
        query = query.where(or_(MESSAGES.c.kind == Kind.ZIP, ingested)).order_by(MESSAGES.c.id)
        return {
            (exposure, number): (State(state), reason)
            for some in batched(exposures, _EXPOSURES_A_QUERY)
            for exposure, number, state, reason in self._all(query.where(MESSAGES.c.exposure.in_(some)))
        }

    def transfer_times(self, row_ids: Collection[int]) -> Mapping[int, TransferTimes]:
        """When the transfers that some messages tell of went through their stages, by row."""
        columns = [MESSAGES.c[field.name] for field in fields(TransferTimes)]
        found = self._all(select(MESSAGES.c.id, *columns).where(MESSAGES.c.id.in_(row_ids)))
        return {row_id: TransferTimes(*values) for row_id, *values in found}

    def expired(self) -> Mapping[str, int]:
        """How many messages Kafka had deleted before they were read, by topic."""
        found = self._all(select(OFFSETS.c.topic, func.sum(OFFSETS.c.expired)).group_by(OFFSETS.c.topic))
        return {topic: int(expired) for topic, expired in sorted(found)}

    def transfer_totals(self) -> list[tuple[str, str, str, int, int, int]]:
        """Source and destination RSE, event type, and count, bytes and seconds of all hours."""
        pair = (EVENTS.c.src_rse, EVENTS.c.dst_rse, EVENTS.c.event_type)
        sums = (func.sum(EVENTS.c[name]) for name in ("count", "bytes", "duration_s"))
        found = self._all(select(*pair, *sums).group_by(*pair).order_by(*pair))
        return [(src, dst, event, int(count), int(size), int(took)) for src, dst, event, count, size, took in found]

    def transfer_days(self, since: datetime) -> Mapping[str, int]:
        """How many events there were on each day (UTC, YYYY-MM-DD) since a time: a number that changes with news."""
        days: dict[str, int] = {}
        query = select(EVENTS.c.hour, func.sum(EVENTS.c["count"])).where(EVENTS.c.hour >= since)
        for hour, count in self._all(query.group_by(EVENTS.c.hour).order_by(EVENTS.c.hour)):
            day = f"{hour:%Y-%m-%d}"
            days[day] = days.get(day, 0) + int(count)
        return days

    def _all(self, query: Any) -> Sequence[Any]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except DBAPIError as error:
            raise database_trouble(error, self._engine) from error


def _kind(value: str | None) -> Kind | None:
    return None if value is None else Kind(value)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
