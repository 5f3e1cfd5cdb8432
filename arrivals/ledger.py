"""The ledger: one row a message, with its state, its reason and the offsets it was read at; nothing else is the truth.

Belongs here: the questions that can be asked of it and the changes that can be made, each in one transaction. Doesn't:
how they are made fast (`arrivals.recording`, `arrivals.bulk`) or summed up (`arrivals.days`), the columns
(`arrivals.tables`), the state machine (`arrivals.states`), or what to do with a row (`arrivals.ingest`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import batched

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, select, true, update
from sqlalchemy.exc import DBAPIError

from arrivals.announcement import Kind
from arrivals.bulk import ingested_contents, settle
from arrivals.days import day_obs_summaries, exposure_rows
from arrivals.exclusive import exclusive
from arrivals.months import Retired, RetiredFile, retire_months, retired_files
from arrivals.recording import record, sifted
from arrivals.records import (
    ROW_COLUMNS,
    DayObsSummary,
    ExposureRows,
    LedgerRow,
    Partition,
    Reception,
    Recorded,
    Settlement,
    TransferCount,
)
from arrivals.states import State
from arrivals.tables import (
    EVENTS,
    MESSAGES,
    OFFSETS,
    connect,
    in_states,
    is_due,
    is_unfinished,
    writing,
)
from resources.databases import database_trouble
from resources.errors import Rejected

_KEYS_A_STATEMENT = 1_000
_ROW_COLUMNS = tuple(MESSAGES.c[name] if name in MESSAGES.c else OFFSETS.c[name] for name in ROW_COLUMNS)


class Ledger:
    """What has come, and what became of it.

    Every method raises `resources.errors.Retriable` where the database is gone or busy: nothing is half done then.

    Parameters
    ----------
    url
        SQLAlchemy URL, ``sqlite:///file`` or ``postgresql+psycopg://…``. Missing tables are made. Several processes may
        use one ledger at a time.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = connect(url)

    @property
    def engine(self) -> Engine:
        """Its database, for questions of others that change nothing (`arrivals.overview`)."""
        return self._engine

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # ---- receiving

    def record_batch(
        self,
        receptions: Sequence[Reception],
        offsets: Mapping[Partition, int],
        *,
        expired_before: Mapping[Partition, int] | None = None,
        now: datetime | None = None,
    ) -> Recorded:
        """Record messages, counts of events and offsets in one transaction.

        Parameters
        ----------
        receptions
            Messages in the order they were read.
        offsets
            The next offset of each partition that was read.
        expired_before
            The first offset that Kafka still has, of partitions of which it deleted messages that nobody had read.
        now
            When they were received.

        Returns
        -------
        recorded
            How much of it is new; what is before the ledger's own offset is known already and left out, so two drains
            at a time, or one that died in the middle, count nothing twice.
        """
        now = now or datetime.now(UTC)
        try:
            with self._writing() as connection:
                return record(connection, receptions, offsets, expired_before or {}, now)
        except Rejected:
            with self._writing() as connection:
                return record(connection, sifted(connection, receptions, now), offsets, expired_before or {}, now)

    def offsets(self, cluster: str) -> Mapping[Partition, int]:
        """The next offset to read of each partition of a cluster that was ever read, in its latest incarnation."""
        names = ("topic", "partition", "incarnation", "topic_id", "leader_epoch", "next_offset")
        query = select(*(OFFSETS.c[name] for name in names)).where(OFFSETS.c.cluster == cluster)
        latest: dict[tuple[str, int], tuple[Partition, int]] = {}
        with self._reading() as connection:
            for *identity, next_offset in connection.execute(query.order_by(OFFSETS.c.incarnation)):
                partition = Partition(cluster, *identity)
                latest[partition.topic, partition.number] = (partition, next_offset)
        return dict(latest.values())

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
        chosen = and_(
            is_unfinished(), is_due(now or datetime.now(UTC)), MESSAGES.c.kind.in_(kinds), MESSAGES.c.id > after
        )
        if undated:
            chosen = and_(chosen, MESSAGES.c.day_obs.is_(None))
        elif day_obs is not None:
            chosen = and_(chosen, MESSAGES.c.day_obs == day_obs)
        return self._rows(chosen, limit)

    def settle(self, settlements: Iterable[Settlement], *, now: datetime | None = None) -> int:
        """Move rows to their next states; a row from which that state can't be reached stays as it is.

        Parameters
        ----------
        settlements
            At most one a row.
        now
            When.

        Returns
        -------
        moved
            How many rows moved. Fewer than given means that another process settled them first.
        """
        with self._writing() as connection:
            return settle(connection, settlements, now or datetime.now(UTC))

    def wake(self, arrived: Collection[str], *, now: datetime | None = None) -> int:
        """Have everything that waits for one of these (`Settlement.waits_for`) tried again; returns how many rows."""
        now = now or datetime.now(UTC)
        woken = 0
        with self._writing() as connection:
            for some in batched(sorted(set(arrived)), _KEYS_A_STATEMENT):
                statement = (
                    update(MESSAGES)
                    .where(in_states(State.WAITING), MESSAGES.c.waits_for.in_(some))
                    .values(state=State.RECEIVED, waits_for=None, retry_at=now)
                )
                woken += connection.execute(statement).rowcount
        return woken

    def replay(self, row_ids: Collection[int], *, now: datetime | None = None) -> int:
        """Have quarantined rows that were once understood tried again from the start; returns how many rows."""
        now = now or datetime.now(UTC)
        with self._writing() as connection:
            statement = (
                update(MESSAGES)
                .where(MESSAGES.c.id.in_(row_ids), MESSAGES.c.state == State.QUARANTINED, MESSAGES.c.kind.is_not(None))
                .values(state=State.RECEIVED, reason="", attempts=0, settled_at=None, retry_at=now)
            )
            return int(connection.execute(statement).rowcount)

    def ingested_contents(self, dids: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[int | None, str]]:
        """Size and adler32 (empty if unknown) of those DIDs (scope and name) that were ingested before."""
        with self._reading() as connection:
            found = ingested_contents(connection, dids)
        return {(scope, name): (size, adler32 or "") for scope, name, size, adler32 in found}

    def retire(self, before: datetime, *, now: datetime | None = None) -> Retired:
        """Let go of the rows of those whole months (UTC) that ended before a time.

        A month goes only if the platform has nothing left to do about any of its rows. What is in quarantine goes with
        it. The DIDs, sizes and checksums of what was ingested stay, so `ingested_contents` recognises it for ever;
        counts, and everything else that is asked of rows, know of it no more. Offsets and counts of events stay.

        Parameters
        ----------
        before
            Rows received before this time may go; those of its own month, and of the present one, stay.
        now
            The time.

        Raises
        ------
        resources.errors.Retriable
            Somebody uses the ledger all the time; months that went before that are gone.
        """
        return retire_months(self._writing, min(before, now or datetime.now(UTC)))

    def retired(self, scope: str | None, name: str) -> list[RetiredFile]:
        """What was ingested under a name, in one scope or in any, and whose messages were retired since."""
        with self._reading() as connection:
            return retired_files(connection, scope, name)

    # ---- asking

    def counts(self) -> Mapping[State, int]:
        """How many rows are in each state; all states are there."""
        with self._reading() as connection:
            found = connection.execute(select(MESSAGES.c.state, func.count()).group_by(MESSAGES.c.state))
            return dict.fromkeys(State, 0) | {State(state): count for state, count in found}

    def by_day_obs(
        self, *, unfinished_only: bool = False, now: datetime | None = None
    ) -> Mapping[int | None, DayObsSummary]:
        """What has come for each day_obs; the key none holds what belongs to no day_obs.

        Parameters
        ----------
        unfinished_only
            Only of rows that the platform will do something about by itself: however many others there are, this
            costs nothing for them. Without it, every row of the ledger is counted.
        now
            What is due is due by this time.
        """
        rows = is_unfinished() if unfinished_only else true()
        with self._reading() as connection:
            return day_obs_summaries(connection, rows, now or datetime.now(UTC))

    def of_day_obs(self, day_obs: int | None) -> DayObsSummary | None:
        """What has come for one day_obs, or for none; nothing if nothing has."""
        with self._reading() as connection:
            return day_obs_summaries(connection, MESSAGES.c.day_obs == day_obs, datetime.now(UTC)).get(day_obs)

    def exposures(self, day_obs: int, instrument: str) -> list[ExposureRows]:
        """What was announced for each exposure of a day_obs of an instrument, in the order of exposures."""
        with self._reading() as connection:
            return exposure_rows(connection, day_obs, instrument)

    def find(
        self,
        *,
        scope: str | None = None,
        name: str | None = None,
        exposure: int | None = None,
        day_obs: int | None = None,
        state: State | None = None,
        kind: Kind | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        place: tuple[str, int, int] | None = None,
        limit: int = 1_000,
    ) -> list[LedgerRow]:
        """Rows that have all of the given values, in the order they came.

        Parameters
        ----------
        scope, name, exposure, day_obs, state, kind
            Exactly these.
        reason
            Occurs in the row's reason.
        since, until
            Received at or after, and before.
        place
            Topic, partition and offset; each cluster and each incarnation of the topic may have one.
        limit
            At most so many.
        """
        wanted = {"scope": scope, "name": name, "exposure": exposure, "day_obs": day_obs, "kind": kind}
        chosen = [MESSAGES.c[column] == value for column, value in wanted.items() if value is not None]
        if state is not None:
            chosen.append(in_states(state))
        if reason:
            chosen.append(MESSAGES.c.reason.contains(reason, autoescape=True))
        if since is not None:
            chosen.append(MESSAGES.c.received_at >= since)
        if until is not None:
            chosen.append(MESSAGES.c.received_at < until)
        if place is not None:
            columns = (OFFSETS.c.topic, OFFSETS.c.partition, MESSAGES.c.offset)
            chosen += [column == value for column, value in zip(columns, place, strict=True)]
        return self._rows(and_(MESSAGES.c.id > 0, *chosen), limit)

    def backlog(self) -> int:
        """How many rows the platform still has to do something about by itself, waiting ones left out."""
        with self._reading() as connection:
            query = (
                select(func.count()).select_from(MESSAGES).where(is_unfinished(), MESSAGES.c.state == State.RECEIVED)
            )
            return int(connection.execute(query).scalar_one())

    def transfers(self, *, since: datetime | None = None, until: datetime | None = None) -> list[TransferCount]:
        """Counts of events by hour, pair of RSEs and type.

        Parameters
        ----------
        since, until
            Only hours that begin at or after, and before.
        """
        query = select(EVENTS).order_by(*EVENTS.primary_key.columns)
        if since is not None:
            query = query.where(EVENTS.c.hour >= since)
        if until is not None:
            query = query.where(EVENTS.c.hour < until)
        with self._reading() as connection:
            return [TransferCount(**row._mapping) for row in connection.execute(query)]

    # ---- one at a time

    @contextmanager
    def exclusive(
        self, purpose: str, *, wait_s: float = 600.0, stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Be the only process to do something with this ledger's rows; death of the process ends it as well.

        Parameters
        ----------
        purpose
            What for; different purposes don't exclude each other.
        wait_s
            How long to wait for another process.
        stopping
            Asked meanwhile whether to wait no longer.

        Raises
        ------
        resources.errors.Retriable
            Another process was at it all that time.
        """
        with exclusive(self._engine, purpose, wait_s, stopping):
            yield

    # ---- within

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise database_trouble(error, self._engine) from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with writing(self._engine) as connection:
                yield connection
        except DBAPIError as error:
            raise database_trouble(error, self._engine) from error

    def _rows(self, chosen: ColumnElement[bool], limit: int) -> list[LedgerRow]:
        with self._reading() as connection:
            query = select(*_ROW_COLUMNS).join(OFFSETS, OFFSETS.c.source == MESSAGES.c.source)
            found = connection.execute(query.where(chosen).order_by(MESSAGES.c.id).limit(limit))
            return [LedgerRow.from_values(row) for row in found]
