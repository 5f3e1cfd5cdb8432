"""Months of the ledger: what ids its rows get, and how whole months are made and retired.

A row's id is the month in which it was received and its number in that month: 202611000000042 is the 42nd of November
2026. On PostgreSQL ``messages`` is partitioned by ranges of ids, a month each. That makes the partition key the
primary key, so ids are unique in the whole ledger, whatever is looked up or settled by id touches one month, and an old
month goes by dropping its table, without a scan or dead rows. A unique index over (source, offset) can't span
partitions, and needn't: whoever records messages holds the lock on all offsets from before it compares them until its
transaction has ended (`arrivals.recording`), so no offset is ever recorded twice; each month has such an index all the
same, to find a fault rather than to prevent it. The lock also makes ids ascend in the order in which rows become
visible, so who has seen an id has seen all before it.

Belongs here: the arithmetic of ids, the partitions, and retiring. Doesn't: rows of any particular message.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from sqlalchemy import ColumnElement, Connection, delete, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from arrivals.states import State
from arrivals.tables import MESSAGES, RETIRED, in_states, is_unfinished
from resources.errors import Retriable

ROWS_A_MONTH = 10**9
"""More than could ever come: 385 a second, all month."""

_REMEMBERED = ("name", "scope", "bytes", "adler32")
_PATIENCE = "10s"
"""For who uses the ledger when a month is to go; who asks meanwhile waits behind us."""


@dataclass(frozen=True, slots=True)
class Retired:
    """What was retired.

    Parameters
    ----------
    months
        Months (YYYYMM) whose rows are gone.
    rows
        How many those were.
    quarantined
        How many of them were in quarantine still.
    kept
        Months that are old enough but have rows that wait or are to be ingested, and how many.
    """

    months: tuple[int, ...] = ()
    rows: int = 0
    quarantined: int = 0
    kept: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RetiredFile:
    """What is remembered of a file that was ingested and whose messages were retired."""

    scope: str
    name: str
    bytes: int | None
    adler32: str | None

    @property
    def did(self) -> str:
        """The DID as Rucio writes it."""
        return f"{self.scope}:{self.name}"


def month_at(time: datetime) -> int:
    """The month of a time (UTC), as YYYYMM."""
    time = time.astimezone(UTC)
    return time.year * 100 + time.month


def month_of(row_id: int) -> int:
    """The month of a row's id, as YYYYMM."""
    return row_id // ROWS_A_MONTH


def month_after(month: int) -> int:
    """The month after a month, both as YYYYMM."""
    return month + 1 if month % 100 < 12 else month + 89


def next_id(newest: int | None, now: datetime) -> int:
    """The id of the next row.

    Parameters
    ----------
    newest
        The largest id so far.
    now
        When the row is received; with a clock that was put back, ids go on in the later month.
    """
    return max((newest or 0) + 1, month_at(now) * ROWS_A_MONTH + 1)


def prepare_month(connection: Connection, month: int) -> None:
    """Make a month's partition, if the database has partitions and not this one.

    It is made apart and attached, which disturbs no reader.
    """
    if connection.dialect.name != "postgresql" or month in _partitions(connection):
        return
    table, start, end = _partition(month), month * ROWS_A_MONTH, month_after(month) * ROWS_A_MONTH
    for statement in (
        f"CREATE TABLE {table} (LIKE messages INCLUDING ALL)",
        f'CREATE UNIQUE INDEX {table}_by_offset ON {table} (source, "offset")',
        f"ALTER TABLE messages ATTACH PARTITION {table} FOR VALUES FROM ({start}) TO ({end})",
    ):
        connection.execute(text(statement))


def retire_months(transaction: Callable[[], AbstractContextManager[Connection]], before: datetime) -> Retired:
    """Retire the months that ended before a time, each by itself; see `arrivals.ledger.Ledger.retire`.

    Nobody is kept waiting while what is remembered of a month is copied; only what has changed since is looked at
    again with the month locked.

    Parameters
    ----------
    transaction
        Begins one for writing.
    before
        The month of this time stays.
    """
    with transaction() as connection:
        months = [month for month in _months(connection) if month < month_at(before)]
    gone: list[int] = []
    kept: list[tuple[int, int]] = []
    rows = quarantined = 0
    for month in months:
        with transaction() as connection:
            seen = _look(connection, month)
            if not seen.unfinished:
                _remember(connection, month)
                count = _count(connection, _of(month))
        if not seen.unfinished:
            with transaction() as connection:
                if not _lock(connection, month):
                    continue  # another process was faster
                before_copy, seen = seen, _look(connection, month)
                if not seen.unfinished and seen != before_copy:
                    _remember(connection, month)
                    count = _count(connection, _of(month))
                if not seen.unfinished:
                    _drop(connection, month)
        if seen.unfinished:
            kept.append((month, seen.unfinished))
        else:
            gone.append(month)
            rows += count
            quarantined += seen.quarantined
    return Retired(tuple(gone), rows, quarantined, tuple(kept))


def retired_files(connection: Connection, scope: str | None, name: str) -> list[RetiredFile]:
    """Those of this name, of one scope or of any."""
    query = select(RETIRED.c.scope, RETIRED.c.name, RETIRED.c.bytes, RETIRED.c.adler32).where(RETIRED.c.name == name)
    if scope is not None:
        query = query.where(RETIRED.c.scope == scope)
    return [RetiredFile(*values) for values in connection.execute(query.order_by(RETIRED.c.scope))]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What tells whether more of a month has been ingested: what wasn't can only be new, unfinished or quarantined."""

    newest: int | None
    unfinished: int
    quarantined: int


def _look(connection: Connection, month: int) -> _Contents:
    newest = connection.execute(select(func.max(MESSAGES.c.id)).where(_of(month))).scalar()
    unfinished = _count(connection, _of(month), is_unfinished())
    return _Contents(newest, unfinished, _count(connection, _of(month), in_states(State.QUARANTINED)))


def _lock(connection: Connection, month: int) -> bool:
    """Have the month for ourselves, if it is there still.

    On PostgreSQL that goes in the order in which everybody locks, first the whole, then the part.
    """
    if connection.dialect.name != "postgresql":
        return month in _months(connection)
    connection.execute(text("SELECT set_config('lock_timeout', :patience, true)"), {"patience": _PATIENCE})
    try:
        connection.execute(text("LOCK TABLE ONLY messages"))
        if month not in _partitions(connection):
            return False
        connection.execute(text(f"LOCK TABLE {_partition(month)}"))
        return True
    except OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise
        raise Retriable("is in use all the time", f"month {month}", "try again later; it stays till then") from error


def _drop(connection: Connection, month: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"DROP TABLE {_partition(month)}"))
    else:
        connection.execute(delete(MESSAGES).where(_of(month)))


def _of(month: int) -> ColumnElement[bool]:
    return MESSAGES.c.id.between(month * ROWS_A_MONTH, month_after(month) * ROWS_A_MONTH - 1)


def _remember(connection: Connection, month: int) -> None:
    """Keep the DIDs, sizes and checksums of what was ingested."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    columns = [MESSAGES.c[name] for name in _REMEMBERED]
    ingested = select(*columns).where(_of(month), MESSAGES.c.state == State.INGESTED)
    connection.execute(insert(RETIRED).from_select(list(_REMEMBERED), ingested).on_conflict_do_nothing())


def _count(connection: Connection, *chosen: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(MESSAGES).where(*chosen)).scalar_one())


def _months(connection: Connection) -> list[int]:
    if connection.dialect.name == "postgresql":
        return sorted(_partitions(connection))
    months = select(MESSAGES.c.id // ROWS_A_MONTH).distinct()
    return sorted(int(month) for (month,) in connection.execute(months))


def _partition(month: int) -> str:
    return f"messages_{month}"


def _partitions(connection: Connection) -> set[int]:
    names = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'messages'::regclass")
    return {int(name.rpartition("_")[2]) for (name,) in connection.execute(names)}
