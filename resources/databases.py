"""The databases that several parts of the platform keep their records in: what is the same for all of them.

Belongs here: their addresses, how long to wait for one, and what to say of one that is away. Doesn't:
tables (`arrivals.tables`, `launchers.casebook`), or the Butler's own database (`resources.butler`).
"""

from __future__ import annotations

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from resources.errors import Retriable, SiteFault

CONNECT_TIMEOUT_S = 20
"""How long PostgreSQL's host may not answer, which the operating system would wait for for minutes."""


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
        raise SiteFault(
            "is no database URL", where, "write sqlite:////<file>, or postgresql://<user>@<host>:<port>/<database>"
        ) from None  # SQLAlchemy's own error quotes parts of it
    except ImportError as error:
        raise SiteFault(f"the driver of its database is not installed: {error}", where, "install it") from error
    return url


def database_trouble(error: DBAPIError, engine: Engine) -> Exception:
    """What an operator should read when a database is gone or busy; another error is ours, and stays what it is.

    Parameters
    ----------
    error
        What a call raised.
    engine
        Of that database.
    """
    if not (error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)):
        return error
    line = next(iter(str(error.orig).strip().splitlines()), type(error.orig).__name__)
    return Retriable(f"database: {line}", f"ledger {engine.url.render_as_string()}", "is it up?")
