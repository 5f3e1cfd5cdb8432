"""The ledger's tables, and the engine that reaches them: SQLite on a laptop, PostgreSQL at a site.

Belongs here: columns and indexes as queries use them, and what differs between the two databases. Doesn't: making or
changing tables (`arrivals.migrations`), months of them (`arrivals.months`), or what is done with the rows
(`arrivals.ledger`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
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
    and_,
    create_engine,
    event,
    func,
    literal_column,
    not_,
    or_,
    text,
)
from sqlalchemy.exc import DBAPIError

from arrivals.schema import upgrade
from arrivals.states import UNFINISHED, State
from resources.databases import database_trouble, ledger_url, postgresql_engine

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another one to finish, on SQLite."""

METADATA = MetaData()


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


OFFSETS = Table(
    "offsets",
    METADATA,
    Column("source", Integer, primary_key=True),
    Column("cluster", String(64), nullable=False),
    Column("topic", String(256), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("incarnation", Integer, nullable=False),
    Column("topic_id", String(64), nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("leader_epoch", Integer),
    Column("expired", BigInteger, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    UniqueConstraint("cluster", "topic", "partition", "incarnation", name="offsets_by_partition"),
)
"""Where to read on, a row for each partition and each time its topic was made anew under the same name.

``source`` stands for all of that in `MESSAGES`; ``leader_epoch`` is that of the message before ``next_offset``;
``expired`` counts what Kafka had deleted before it was read.
"""

_UNFINISHED = text("state IN ('received', 'waiting')")
_QUARANTINED = text("state = 'quarantined'")
_WAITING = text("state = 'waiting'")

MESSAGES = Table(
    "messages",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("source", Integer, nullable=False),
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
    Index("messages_by_did", "name", "scope"),
    Index("messages_by_day_obs", "day_obs", "state"),
    Index("messages_by_exposure", "exposure"),
    Index("messages_by_time", "received_at", postgresql_using="brin"),
    Index("messages_unfinished", "kind", "id", postgresql_where=_UNFINISHED, sqlite_where=_UNFINISHED),
    Index("messages_waiting", "waits_for", postgresql_where=_WAITING, sqlite_where=_WAITING),
    Index("messages_quarantined", "id", postgresql_where=_QUARANTINED, sqlite_where=_QUARANTINED),
    postgresql_partition_by="RANGE (id)",
)
"""One row a message that announces a file, or that couldn't be understood.

``id`` begins with the month (`arrivals.months`), in the order in which rows became visible. ``retry_at`` is when a
waiting row is tried again, and when a received one was woken or replayed, if it was.
"""

RETIRED = Table(
    "retired",
    METADATA,
    Column("name", String(1024), primary_key=True),
    Column("scope", String(1024), primary_key=True),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
)
"""What was ingested and whose rows were retired since, so that it is recognised when it is announced again."""

EVENTS = Table(
    "events",
    METADATA,
    Column("hour", UtcTime, primary_key=True),
    Column("src_rse", String(256), primary_key=True),
    Column("dst_rse", String(256), primary_key=True),
    Column("event_type", String(256), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("duration_s", BigInteger, nullable=False),
    Column("timed_bytes", BigInteger, nullable=False),
)
"""Events of all types by hour and pair of RSEs, for the statistics of transfers.

``timed_bytes`` are those of the events that told their duration, so that a rate divides like by like.
"""


def connect(url: str) -> Engine:
    """Open the ledger's database, and bring its tables up to what this code knows.

    Raises
    ------
    resources.errors.Retriable
        It doesn't answer.
    resources.errors.SiteFault
        It can't be used as it is, its tables are newer than this code, or the URL is none.
    """
    parsed = ledger_url(url)
    if parsed.get_backend_name() == "postgresql":
        engine = postgresql_engine(parsed)
    else:
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        upgrade(engine)
    except DBAPIError as error:
        engine.dispose()
        raise database_trouble(error, engine) from error
    return engine


def writing(engine: Engine) -> Any:
    """A transaction that will write: on SQLite it waits for its turn at once, not in the middle."""
    return engine.execution_options(begins_with="BEGIN IMMEDIATE").begin()


def in_states(*states: State) -> ColumnElement[bool]:
    """Being in one of these states, written so that the indexes of those states serve (a parameter would hide it)."""
    return MESSAGES.c.state.in_([literal_column(f"'{state}'") for state in sorted(states)])


def is_unfinished() -> ColumnElement[bool]:
    """Being in a state that the platform will do something about by itself."""
    return in_states(*UNFINISHED)


def is_of(instrument: str) -> ColumnElement[bool]:
    """Not being in quarantine with a sidecar that names another instrument, which any message can.

    The sidecar is text, in the form that `arrivals.announcement.Sidecar.to_json` gives it.
    """
    sidecar = func.coalesce(MESSAGES.c.sidecar, "")
    others = and_(
        sidecar.contains('"instrument":"'), not_(sidecar.contains(f'"instrument":"{instrument}"', autoescape=True))
    )
    return not_(and_(in_states(State.QUARANTINED), others))


def is_due(now: datetime) -> ColumnElement[bool]:
    """Being for the platform to do something about by this time."""
    return or_(
        MESSAGES.c.state == State.RECEIVED,
        and_(MESSAGES.c.state == State.WAITING, MESSAGES.c.retry_at <= now),
    )


def due_since() -> ColumnElement[datetime]:
    """Since when a row that is received or waits is for the platform to do something about; ahead of us if it isn't."""
    return func.coalesce(MESSAGES.c.retry_at, MESSAGES.c.received_at, type_=MESSAGES.c.received_at.type)


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begins_with", "BEGIN"))
