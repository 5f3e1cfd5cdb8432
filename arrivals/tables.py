"""The ledger's tables, and the engine that reaches them: SQLite on a laptop, PostgreSQL at a site.

Belongs here: columns, indexes, and what differs between the two databases. Doesn't: what is done with the rows
(`arrivals.ledger`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.schema import CreateIndex, CreateTable

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another one to finish, on SQLite."""

_METADATA = MetaData()
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")


class UtcTime(TypeDecorator[datetime]):
    """A time that comes back as it went in, in UTC, from either database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Bring a time to UTC on its way in."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say UTC of a time on its way out, which SQLite forgets."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


MESSAGES = Table(
    "messages",
    _METADATA,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("cluster", String(64), nullable=False),
    Column("topic", String(256), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("event_type", String(1024), nullable=False),
    Column("kind", String(16)),
    Column("scope", String(1024), nullable=False),
    Column("name", String(1024), nullable=False),
    Column("src_rse", String(1024), nullable=False),
    Column("dst_rse", String(1024), nullable=False),
    Column("url", String(1024), nullable=False),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("day_obs", BigInteger),
    Column("exposure", BigInteger),
    Column("detector", BigInteger),
    Column("sidecar", Text),
    Column("created_at", UtcTime),
    Column("submitted_at", UtcTime),
    Column("started_at", UtcTime),
    Column("transferred_at", UtcTime),
    Column("received_at", UtcTime, nullable=False),
    Column("settled_at", UtcTime),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("waits_for", String(1024)),
    Column("retry_at", UtcTime),
    Column("attempts", Integer, nullable=False),
    Column("excerpt", Text),
    UniqueConstraint("cluster", "topic", "partition", "offset"),
    Index("messages_by_state", "state", "kind", "day_obs"),
    Index("messages_by_day_obs", "day_obs", "state"),
    Index("messages_by_did", "name", "scope"),
    Index("messages_by_exposure", "exposure"),
    Index("messages_by_what_they_wait_for", "waits_for"),
)
"""One row a message that announces a file, or that couldn't be understood."""

OFFSETS = Table(
    "offsets",
    _METADATA,
    Column("cluster", String(64), primary_key=True),
    Column("topic", String(256), primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("expired", BigInteger, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
"""Where to read on; ``expired`` counts what Kafka had deleted before it was read."""

EVENTS = Table(
    "events",
    _METADATA,
    Column("hour", UtcTime, primary_key=True),
    Column("src_rse", String(256), primary_key=True),
    Column("dst_rse", String(256), primary_key=True),
    Column("event_type", String(256), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("duration_s", BigInteger, nullable=False),
)
"""Events of all types by hour and pair of RSEs, for the statistics of transfers."""


def connect(url: str) -> Engine:
    """Open the ledger's database, and make its tables where they are missing."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_engine(parsed, pool_pre_ping=True)
    else:
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('ledger-tables'))"))
        for table in _METADATA.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))
    return engine


def writing(engine: Engine) -> Any:
    """A transaction that will write: on SQLite it waits for its turn at once, not in the middle."""
    return engine.execution_options(begins_with="BEGIN IMMEDIATE").begin()


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begins_with", "BEGIN"))
