"""The databases that several parts of the platform keep their records in: what is the same for all of them.

Belongs here: their addresses, sessions on PostgreSQL, and telling a database that is in trouble from one that was given
what it can't take. Doesn't: tables (`arrivals.tables`, `launchers.casebook`), or opening the Butler's own database
(`resources.butler`).
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from resources.errors import Retriable, SiteFault

_LEDGER = "the site profile's ledger"
_LEDGER_DRIVERS = {("sqlite", "pysqlite"), ("postgresql", "psycopg")}
_HOW_TO_WRITE = "write sqlite:////<file>, or postgresql://<user>@<host>:<port>/<database>"

# A host that is silent for a minute is given up, on either side: TCP would wait for hours, and locks with it.
_PATIENCE = {
    "connect_timeout": 20,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_SESSION = (
    "SET tcp_keepalives_idle TO 30; SET tcp_keepalives_interval TO 10; SET tcp_keepalives_count TO 3; "
    "SET tcp_user_timeout TO 60000; "
    # Elsewhere the first and last day of UTC are in years that Python doesn't have.
    "SET timezone TO 'UTC'"
)

_READ_ONLY = "25006"
_TROUBLES: dict[str | int | None, tuple[type[Retriable | SiteFault], str]] = {
    _READ_ONLY: (Retriable, "is it a standby, or read-only for now?"),
    "55P03": (Retriable, "another process holds that lock all the time; pg_locks says which"),
    sqlite3.SQLITE_BUSY: (Retriable, "another process is writing all the time"),
    "28000": (SiteFault, "see the user in its URL, the password there or in PGPASSFILE, and the server's pg_hba.conf"),
    "3D000": (SiteFault, "make the database, or mend its name in the URL"),
    "42501": (SiteFault, "grant it to the user in its URL"),
    sqlite3.SQLITE_CANTOPEN: (SiteFault, "see that its folder is there, and whose it is"),
    sqlite3.SQLITE_READONLY: (SiteFault, "see whose the file and its folder are"),
    sqlite3.SQLITE_NOTADB: (SiteFault, "name another file, or bring back the one that was there"),
    sqlite3.SQLITE_CORRUPT: (SiteFault, "bring back a copy of it"),
}
"""Who may mend what, and how, by SQLSTATE or SQLite's result code; of all else that may pass, we ask if it is up."""

_REFUSED = {
    "28000": re.compile(
        r"(password|peer|certificate) authentication failed|no password supplied"
        r'|no pg_hba\.conf entry|role ".*" (does not exist|is not permitted)'
    ),
    "3D000": re.compile(r'database ".*" does not exist'),
    "42501": re.compile("permission denied for database"),
}
"""What is said of connections that are refused: in words alone, and in English unless the server was told otherwise."""


def database_url(written: str, where: str) -> URL:
    """Understand a database's URL.

    Parameters
    ----------
    written
        As the site profile has it.
    where
        The key of the site profile.

    Raises
    ------
    resources.errors.SiteFault
        It is none, or its driver isn't installed. The line doesn't quote it: passwords are written in URLs.
    """
    try:
        url = make_url(written)
        url.get_dialect().import_dbapi()
    except (ArgumentError, ValueError):
        raise SiteFault("is no database URL", where, _HOW_TO_WRITE) from None  # SQLAlchemy's own error quotes parts
    except ImportError as error:
        raise SiteFault(f"the driver of its database is not installed: {error}", where, "install it") from error
    return url


def ledger_url(written: str) -> URL:
    """Understand the ledger's URL: it uses what one driver of each database can do.

    Raises
    ------
    resources.errors.SiteFault
        It is none, or names another database or driver.
    """
    try:
        url = make_url(written)
        driver = url.get_backend_name(), url.get_driver_name()
    except (ArgumentError, ValueError):
        raise SiteFault("is no database URL", _LEDGER, _HOW_TO_WRITE) from None
    if driver not in _LEDGER_DRIVERS:
        raise SiteFault(f"can't be kept through {url.drivername}", _LEDGER, _HOW_TO_WRITE)
    return url


def postgresql_engine(url: URL) -> Engine:
    """Make an engine whose sessions are in UTC, and end soon after the host at either end has vanished."""
    engine = create_engine(url, pool_pre_ping=True, connect_args=_PATIENCE)
    event.listen(engine, "connect", _prepare_session)
    return engine


def is_database_trouble(error: BaseException | None) -> bool:
    """Whether a database is gone, busy, read-only or not open to us, so that nothing that it was given is to blame."""
    return trouble_of(error, "") is not None


def trouble_of(error: BaseException | None, where: str) -> Retriable | SiteFault | None:
    """What an operator should read of a database's trouble; nothing if it isn't in any.

    Parameters
    ----------
    error
        What a call raised.
    where
        Which database.
    """
    if not isinstance(error, DBAPIError):
        return None
    may_pass = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    kind, mend = _TROUBLES.get(_code(error), (Retriable if may_pass else None, "is it up?"))
    line = next(iter(str(error.orig).strip().splitlines()), type(error.orig).__name__)
    return None if kind is None else kind(f"database: {line}", where, mend)


def database_trouble(error: DBAPIError, engine: Engine) -> Exception:
    """What to raise of an error of the ledger's database; one that is no trouble is ours, and stays what it is.

    A server that has become read-only is left: its address may lead to another one by now.

    Parameters
    ----------
    error
        What a call raised.
    engine
        Of that database.
    """
    if _code(error) == _READ_ONLY:
        engine.dispose()
    return trouble_of(error, f"ledger {engine.url.render_as_string()}") or error


def _code(error: DBAPIError) -> str | int | None:
    """SQLSTATE, or SQLite's result code."""
    told = error.orig
    sqlstate: str | None = getattr(told, "sqlstate", None) or getattr(told, "pgcode", None)  # psycopg 3, and 2
    if sqlstate is not None:
        return sqlstate
    if isinstance(told, sqlite3.Error):
        return getattr(told, "sqlite_errorcode", 0) & 0xFF  # without what extends it
    if isinstance(error, OperationalError):
        return next((code for code, words in _REFUSED.items() if words.search(str(told))), None)
    return None


def _prepare_session(connection: Any, record: object) -> None:
    connection.execute(_SESSION)
    connection.commit()
