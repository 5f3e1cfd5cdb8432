"""Recording a batch: messages, counts of events and offsets in one transaction, each message once.

Belongs here: the lock on offsets, what of a batch is new, the ids of new rows, the fastest way into each database, and
finding the messages that a database refuses. Doesn't: reading Kafka (`arrivals.drain`), or what becomes of rows
(`arrivals.ledger`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import Connection, bindparam, case, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError

from arrivals.announcement import HermesMessage
from arrivals.months import month_of, next_id, prepare_month
from arrivals.outcomes import ingest_in_bulk
from arrivals.records import EXCERPT_BYTES, FIRST_COLUMNS, Partition, Reception, Recorded
from arrivals.tables import EVENTS, MESSAGES, OFFSETS
from resources.errors import Rejected

_CLOCKS_DIFFER_S = 3_600
_PATIENCE = "30s"
"""For another process that records, whose host may have vanished meanwhile."""

_COLUMNS = ("id", "source", "offset", *FIRST_COLUMNS)
_COPY = f"COPY messages ({', '.join(map('"{}"'.format, _COLUMNS))}) FROM STDIN (FORMAT BINARY)"
_BINARY_NAMES = {"BIGINT": "int8", "INTEGER": "int4", "TIMESTAMP WITH TIME ZONE": "timestamptz"}
_BINARY_TYPES = [_BINARY_NAMES.get(MESSAGES.c[name].type.compile(postgresql.dialect()), "text") for name in _COLUMNS]


def record(
    connection: Connection,
    receptions: Sequence[Reception],
    offsets: Mapping[Partition, int],
    expired_before: Mapping[Partition, int],
    now: datetime,
) -> Recorded:
    """Record a batch in a transaction that was begun for writing; see `arrivals.ledger.Ledger.record_batch`.

    Raises
    ------
    resources.errors.Rejected
        The database refuses something in it: `sifted` finds out what.
    """
    try:
        return _record(connection, receptions, offsets, expired_before, now)
    except (DBAPIError, OverflowError, UnicodeEncodeError) as error:
        if not _is_refusal(error):
            raise
        why = str(error.orig if isinstance(error, DBAPIError) else error)
        raise Rejected(f"the database refuses it: {' '.join(why.split())}") from error


def sifted(connection: Connection, receptions: Sequence[Reception], now: datetime) -> list[Reception]:
    """A batch of which each message that the database refuses by itself is one for quarantine instead.

    Reading lets nothing through that databases have no room for, as far as we know. What we don't know must not stop
    all that comes after it, on every topic.

    Parameters
    ----------
    connection
        In a transaction that was begun for writing; nothing is written.
    receptions
        The batch.
    now
        When they were received.
    """

    def attempt(some: Sequence[Reception]) -> None:
        savepoint = connection.begin_nested()
        try:
            record(connection, some, {each.partition: each.offset + 1 for each in some}, {}, now)
        finally:
            savepoint.rollback()

    refused = ingest_in_bulk(receptions, attempt)
    for error in refused.values():
        if not isinstance(error, Rejected):
            raise error
    return [
        replace(each, message=None, rejection=str(refused[index]), excerpt=_remains(each)) if index in refused else each
        for index, each in enumerate(receptions)
    ]


def _is_refusal(error: Exception) -> bool:
    """Whether a database is well and has no room for what it was given."""
    if not isinstance(error, DBAPIError):
        return True
    return isinstance(error, DataError) or isinstance(error.orig, psycopg.errors.ProgramLimitExceeded)


def _remains(refused: Reception) -> str:
    """What of a message any database keeps, for people to look at."""
    told = refused.excerpt if refused.message is None else repr(refused.message)
    return told.encode("ascii", "backslashreplace").decode()[:EXCERPT_BYTES]


def _record(
    connection: Connection,
    receptions: Sequence[Reception],
    offsets: Mapping[Partition, int],
    expired_before: Mapping[Partition, int],
    now: datetime,
) -> Recorded:
    _lock_offsets(connection)
    known = _prepared_offsets(connection, offsets, now)
    new = [reception for reception in receptions if reception.offset >= known[reception.partition][1]]
    rows = [reception for reception in new if reception.is_row]
    if rows:
        newest = connection.execute(select(func.max(MESSAGES.c.id))).scalar()
        first = next_id(newest, now)
        for month in {month_of(first), month_of(first + len(rows) - 1)}:
            prepare_month(connection, month)
        _insert(
            connection,
            (
                (row_id, known[reception.partition][0], reception.offset, *reception.first_values(now))
                for row_id, reception in enumerate(rows, start=first)
            ),
        )
    _count_events(connection, [reception.message for reception in new if reception.message is not None], now)
    # What another drain has counted since we looked is behind the ledger's own offset.
    expired = {partition: max(begin - known[partition][1], 0) for partition, begin in expired_before.items()}
    connection.execute(
        update(OFFSETS)
        .where(OFFSETS.c.source == bindparam("of_source"))
        .values(
            next_offset=bindparam("reached"),
            leader_epoch=case(
                (OFFSETS.c.next_offset < bindparam("reached"), bindparam("epoch")), else_=OFFSETS.c.leader_epoch
            ),
            expired=OFFSETS.c.expired + bindparam("lost"),
            topic_id=bindparam("named"),
            updated_at=now,
        ),
        [
            {
                "of_source": known[partition][0],
                "reached": max(next_offset, known[partition][1]),
                "epoch": partition.leader_epoch,
                "lost": expired.get(partition, 0),
                "named": partition.topic_id,
            }
            for partition, next_offset in offsets.items()
        ],
    )
    return Recorded(
        rows=len(rows),
        events=len(new) - len(rows),
        known_before=len(receptions) - len(new),
        expired=sum(expired.values()),
    )


def _lock_offsets(connection: Connection) -> None:
    """Be the only one to record until the transaction ends; on SQLite every writer is."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT set_config('lock_timeout', :patience, true)"), {"patience": _PATIENCE})
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('ledger-offsets'))"))


def _prepared_offsets(
    connection: Connection, offsets: Mapping[Partition, int], now: datetime
) -> dict[Partition, tuple[int, int]]:
    """Source and next offset of each partition, with a row for those never read before."""
    known = _known(connection, offsets)
    missing = [partition for partition in offsets if partition not in known]
    if not missing:
        return known
    connection.execute(
        OFFSETS.insert(),
        [
            {
                "cluster": partition.cluster,
                "topic": partition.topic,
                "partition": partition.number,
                "incarnation": partition.incarnation,
                "topic_id": partition.topic_id,
                "next_offset": 0,
                "expired": 0,
                "updated_at": now,
            }
            for partition in missing
        ],
    )
    return _known(connection, offsets)


def _known(connection: Connection, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
    key = (OFFSETS.c.cluster, OFFSETS.c.topic, OFFSETS.c.partition, OFFSETS.c.incarnation)
    clusters = {partition.cluster for partition in partitions}
    query = select(*key, OFFSETS.c.source, OFFSETS.c.next_offset).where(OFFSETS.c.cluster.in_(clusters))
    return {
        Partition(cluster, topic, number, incarnation): (source, next_offset)
        for cluster, topic, number, incarnation, source, next_offset in connection.execute(query)
    }


def _insert(connection: Connection, rows: Iterable[tuple[object, ...]]) -> None:
    if connection.dialect.name != "postgresql":
        connection.execute(MESSAGES.insert(), [dict(zip(_COLUMNS, row, strict=True)) for row in rows])
        return
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_BINARY_TYPES)
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:  # as every other statement's error comes
        raise DBAPIError.instance(_COPY, None, error, psycopg.Error, connection_invalidated=driver.closed) from error


def _count_events(connection: Connection, messages: Sequence[HermesMessage], now: datetime) -> None:
    totals: dict[tuple[datetime, str, str, str], list[int]] = {}
    for message in messages:
        # An hour ahead of us is a clock that is wrong, and would be drawn as such for ever.
        created = message.created_at
        ahead = created is None or (created - now).total_seconds() > _CLOCKS_DIFFER_S
        hour = (now if created is None or ahead else created).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        key = (hour, message.src_rse, message.dst_rse, message.event_type)
        total = totals.setdefault(key, [0, 0, 0, 0])
        size, duration = message.bytes or 0, message.duration_s or 0
        for index, value in enumerate((1, size, duration, size if duration else 0)):
            total[index] += value
    if not totals:
        return
    insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(EVENTS)
    counted = [column.name for column in EVENTS.columns if not column.primary_key]
    sums = {name: EVENTS.c[name] + insert.excluded[name] for name in counted}
    names = [column.name for column in EVENTS.columns]
    connection.execute(
        insert.on_conflict_do_update(index_elements=list(EVENTS.primary_key.columns), set_=sums),
        [dict(zip(names, (*key, *total), strict=True)) for key, total in totals.items()],
    )
