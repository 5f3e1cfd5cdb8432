"""The ledger: one row a message, with its state, its reason and the offsets it was read at; nothing else is the truth.

Belongs here: recording messages and offsets in one transaction, moving rows through their states, counting them.
Doesn't: the columns (`arrivals.tables`), the state machine (`arrivals.states`), or what to do with a row
(`arrivals.ingest`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import batched
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, text, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from arrivals.announcement import HermesMessage, Kind
from arrivals.exclusive import exclusive
from arrivals.records import (
    DayObsSummary,
    ExposureRows,
    LedgerRow,
    Partition,
    Reception,
    Recorded,
    Settlement,
    TransferCount,
)
from arrivals.states import State, may_become
from arrivals.tables import EVENTS, MESSAGES, OFFSETS, connect, writing

_DIDS_A_QUERY = 1_000


class Ledger:
    """What has come, and what became of it.

    Parameters
    ----------
    url
        SQLAlchemy URL, ``sqlite:///file`` or ``postgresql+psycopg://…``. Missing tables are made. Several processes may
        use one ledger at a time.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = connect(url)
        self._insert: Any = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # ---- receiving

    def record_batch(
        self,
        receptions: Sequence[Reception],
        offsets: Mapping[Partition, int],
        *,
        expired: Mapping[Partition, int] | None = None,
        now: datetime | None = None,
    ) -> Recorded:
        """Record messages, counts of events and offsets in one transaction.

        Parameters
        ----------
        receptions
            Messages in the order they were read.
        offsets
            The next offset of each partition that was read.
        expired
            How many messages Kafka had deleted unread, by partition.
        now
            When they were received.

        Returns
        -------
        recorded
            How many rows and events are new; messages before the ledger's own offset are known already and left out, so
            two drains at a time, or one that died in the middle, count nothing twice.
        """
        now = now or datetime.now(UTC)
        with writing(self._engine) as connection:
            known = self._lock_offsets(connection, offsets)
            new = [r for r in receptions if r.offset >= known.get(r.partition, 0)]
            rows = [reception.to_columns(now) for reception in new if reception.is_row]
            if rows:
                connection.execute(self._insert(MESSAGES).on_conflict_do_nothing(), rows)
            understood = [reception.message for reception in new if reception.message is not None]
            self._count_events(connection, understood, now)
            for partition, next_offset in offsets.items():
                connection.execute(
                    self._advance_offset(),
                    {
                        "cluster": partition.cluster,
                        "topic": partition.topic,
                        "partition": partition.number,
                        "next_offset": max(next_offset, known.get(partition, 0)),
                        "expired": (expired or {}).get(partition, 0),
                        "updated_at": now,
                    },
                )
        return Recorded(rows=len(rows), events=len(new) - len(rows), known_before=len(receptions) - len(new))

    def offsets(self, cluster: str) -> Mapping[Partition, int]:
        """The next offset to read of each partition of a cluster that was ever read."""
        with self._engine.connect() as connection:
            return self._offsets(connection, cluster)

    # ---- settling

    def pending(
        self,
        kinds: Collection[Kind],
        *,
        day_obs: int | None = None,
        undated: bool = False,
        limit: int = 1_000,
        after: int = 0,
        now: datetime | None = None,
    ) -> list[LedgerRow]:
        """Rows to be ingested now: received, or waiting and due to be tried again, in the order they came.

        Parameters
        ----------
        kinds
            Which kinds.
        day_obs
            Only this day_obs; by default everything.
        undated
            Only what belongs to no day_obs.
        limit
            At most so many.
        after
            Only rows with a larger id.
        now
            What is due is due by this time.
        """
        chosen = and_(_is_due(now or datetime.now(UTC)), MESSAGES.c.kind.in_(kinds), MESSAGES.c.id > after)
        if undated:
            chosen = and_(chosen, MESSAGES.c.day_obs.is_(None))
        elif day_obs is not None:
            chosen = and_(chosen, MESSAGES.c.day_obs == day_obs)
        return self._rows(chosen, limit)

    def settle(self, settlements: Iterable[Settlement], *, now: datetime | None = None) -> int:
        """Move rows to their next states; a row from which that state can't be reached stays as it is.

        Returns
        -------
        moved
            How many rows moved. Fewer than given means that another process settled them first.
        """
        now = now or datetime.now(UTC)
        moved = 0
        with writing(self._engine) as connection:
            for settlement in settlements:
                statement = (
                    update(MESSAGES)
                    .where(MESSAGES.c.id == settlement.row_id, MESSAGES.c.state.in_(may_become(settlement.state)))
                    .values(
                        state=settlement.state,
                        reason=settlement.reason,
                        waits_for=settlement.waits_for,
                        retry_at=settlement.retry_at,
                        settled_at=now,
                        attempts=MESSAGES.c.attempts + 1,
                        day_obs=func.coalesce(settlement.day_obs, MESSAGES.c.day_obs),
                        exposure=func.coalesce(settlement.exposure, MESSAGES.c.exposure),
                    )
                )
                moved += connection.execute(statement).rowcount
        return moved

    def wake(self, arrived: Collection[str]) -> int:
        """Have everything that waits for one of these (`Settlement.waits_for`) tried again; returns how many rows."""
        woken = 0
        with writing(self._engine) as connection:
            for some in batched(sorted(set(arrived)), _DIDS_A_QUERY):
                statement = (
                    update(MESSAGES)
                    .where(MESSAGES.c.state == State.WAITING, MESSAGES.c.waits_for.in_(some))
                    .values(state=State.RECEIVED, waits_for=None, retry_at=None)
                )
                woken += connection.execute(statement).rowcount
        return woken

    def replay(self, row_ids: Collection[int]) -> int:
        """Have quarantined rows that were once understood tried again from the start; returns how many rows."""
        with writing(self._engine) as connection:
            statement = (
                update(MESSAGES)
                .where(MESSAGES.c.id.in_(row_ids), MESSAGES.c.state == State.QUARANTINED, MESSAGES.c.kind.is_not(None))
                .values(state=State.RECEIVED, reason="", attempts=0, settled_at=None)
            )
            return int(connection.execute(statement).rowcount)

    def ingested_contents(self, dids: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[int | None, str]]:
        """Size and adler32 (empty if unknown) of those DIDs (scope and name) that were ingested before."""
        contents: dict[tuple[str, str], tuple[int | None, str]] = {}
        columns = (MESSAGES.c.scope, MESSAGES.c.name, MESSAGES.c.bytes, MESSAGES.c.adler32)
        with self._engine.connect() as connection:
            for some in batched(dids, _DIDS_A_QUERY):
                found = connection.execute(
                    select(*columns).where(
                        tuple_(MESSAGES.c.scope, MESSAGES.c.name).in_(some), MESSAGES.c.state == State.INGESTED
                    )
                )
                contents |= {(scope, name): (size, adler32 or "") for scope, name, size, adler32 in found}
        return contents

    # ---- asking

    def counts(self) -> Mapping[State, int]:
        """How many rows are in each state; all states are there."""
        with self._engine.connect() as connection:
            found = connection.execute(select(MESSAGES.c.state, func.count()).group_by(MESSAGES.c.state))
            return dict.fromkeys(State, 0) | {State(state): count for state, count in found}

    def by_day_obs(self, *, now: datetime | None = None) -> Mapping[int | None, DayObsSummary]:
        """What has come for each day_obs; the key none holds what belongs to no day_obs."""
        counted = (
            MESSAGES.c.day_obs,
            MESSAGES.c.state,
            func.count(),
            func.count().filter(_is_due(now or datetime.now(UTC))),
            func.coalesce(func.sum(MESSAGES.c.bytes), 0),
            func.max(MESSAGES.c.received_at, type_=MESSAGES.c.received_at.type),
            func.max(MESSAGES.c.id),
        )
        summaries: dict[int | None, DayObsSummary] = {}
        with self._engine.connect() as connection:
            query = select(*counted).group_by(MESSAGES.c.day_obs, MESSAGES.c.state)
            for day_obs, state, count, due, size, last_received_at, newest in connection.execute(query):
                counts = dict.fromkeys(State, 0) | {State(state): count}
                one = DayObsSummary(day_obs, counts, due, int(size), last_received_at, newest)
                summaries[day_obs] = summaries[day_obs].merged(one) if day_obs in summaries else one
        return summaries

    def exposures(self, day_obs: int) -> list[ExposureRows]:
        """What was announced for each exposure of a day_obs, in the order of exposures."""
        last_received_at = func.max(MESSAGES.c.received_at, type_=MESSAGES.c.received_at.type)
        query = (
            select(MESSAGES.c.exposure, MESSAGES.c.state, func.count(), last_received_at)
            .where(MESSAGES.c.day_obs == day_obs, MESSAGES.c.exposure.is_not(None))
            .where(MESSAGES.c.kind.in_({Kind.DIMENSIONS, Kind.RAW, Kind.ZIP}))
            .group_by(MESSAGES.c.exposure, MESSAGES.c.state)
            .order_by(MESSAGES.c.exposure)
        )
        found: dict[int, ExposureRows] = {}
        with self._engine.connect() as connection:
            for exposure, state, count, received_at in connection.execute(query):
                before = found.get(exposure, ExposureRows(exposure, dict.fromkeys(State, 0), received_at))
                counts = MappingProxyType({**before.counts, State(state): count})
                found[exposure] = ExposureRows(exposure, counts, max(before.last_received_at, received_at))
        return list(found.values())

    def find(
        self,
        *,
        scope: str | None = None,
        name: str | None = None,
        exposure: int | None = None,
        day_obs: int | None = None,
        state: State | None = None,
        limit: int = 1_000,
    ) -> list[LedgerRow]:
        """Rows that have all of the given values, in the order they came."""
        wanted = {"scope": scope, "name": name, "exposure": exposure, "day_obs": day_obs, "state": state}
        chosen = [MESSAGES.c[column] == value for column, value in wanted.items() if value is not None]
        return self._rows(and_(*chosen) if chosen else MESSAGES.c.id > 0, limit)

    def backlog(self) -> int:
        """How many rows the platform still has to do something about by itself, waiting ones left out."""
        with self._engine.connect() as connection:
            query = select(func.count()).select_from(MESSAGES).where(MESSAGES.c.state == State.RECEIVED)
            return int(connection.execute(query).scalar_one())

    def transfers(self) -> list[TransferCount]:
        """Counts of events by hour, pair of RSEs and type."""
        with self._engine.connect() as connection:
            found = connection.execute(select(EVENTS).order_by(*EVENTS.primary_key.columns))
            return [TransferCount(**row._mapping) for row in found]

    # ---- one at a time

    @contextmanager
    def exclusive(self, purpose: str, *, wait_s: float = 600.0) -> Iterator[None]:
        """Be the only process to do something with this ledger's rows; death of the process ends it as well.

        Parameters
        ----------
        purpose
            What for; different purposes don't exclude each other.
        wait_s
            How long to wait for another process.

        Raises
        ------
        resources.errors.Retriable
            Another process was at it all that time.
        """
        with exclusive(self._engine, purpose, wait_s):
            yield

    # ---- within

    def _lock_offsets(self, connection: Connection, offsets: Mapping[Partition, int]) -> dict[Partition, int]:
        known: dict[Partition, int] = {}
        for cluster in sorted({partition.cluster for partition in offsets}):
            if self._engine.dialect.name == "postgresql":
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": f"ledger-offsets-{cluster}"}
                )
            known |= self._offsets(connection, cluster)
        return known

    @staticmethod
    def _offsets(connection: Connection, cluster: str) -> dict[Partition, int]:
        columns = (OFFSETS.c.topic, OFFSETS.c.partition, OFFSETS.c.next_offset)
        found = connection.execute(select(*columns).where(OFFSETS.c.cluster == cluster))
        return {Partition(cluster, topic, number): next_offset for topic, number, next_offset in found}

    def _advance_offset(self) -> Any:
        statement = self._insert(OFFSETS)
        return statement.on_conflict_do_update(
            index_elements=list(OFFSETS.primary_key.columns),
            set_={
                "next_offset": statement.excluded.next_offset,
                "expired": OFFSETS.c.expired + statement.excluded.expired,
                "updated_at": statement.excluded.updated_at,
            },
        )

    def _count_events(self, connection: Connection, messages: Sequence[HermesMessage], now: datetime) -> None:
        totals: dict[tuple[datetime, str, str, str], list[int]] = {}
        for message in messages:
            hour = (message.created_at or now).replace(minute=0, second=0, microsecond=0)
            key = (hour, message.src_rse[:256], message.dst_rse[:256], message.event_type[:256])
            total = totals.setdefault(key, [0, 0, 0])
            for index, value in enumerate((1, message.bytes or 0, message.duration_s or 0)):
                total[index] += value
        if not totals:
            return
        statement = self._insert(EVENTS)
        sums = {name: EVENTS.c[name] + statement.excluded[name] for name in ("count", "bytes", "duration_s")}
        statement = statement.on_conflict_do_update(index_elements=list(EVENTS.primary_key.columns), set_=sums)
        names = [column.name for column in EVENTS.columns]
        connection.execute(statement, [dict(zip(names, (*key, *total), strict=True)) for key, total in totals.items()])

    def _rows(self, chosen: ColumnElement[bool], limit: int) -> list[LedgerRow]:
        with self._engine.connect() as connection:
            found = connection.execute(select(MESSAGES).where(chosen).order_by(MESSAGES.c.id).limit(limit))
            return [LedgerRow.from_columns(row._mapping) for row in found]


def _is_due(now: datetime) -> ColumnElement[bool]:
    return or_(
        MESSAGES.c.state == State.RECEIVED,
        and_(MESSAGES.c.state == State.WAITING, MESSAGES.c.retry_at <= now),
    )
