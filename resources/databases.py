"""The databases that several parts of the platform keep their records in: how long to wait for one, and what to say.

Belongs here: what is the same for every table in them. Doesn't: tables (`arrivals.tables`, `launchers.casebook`), or
the Butler's own database (`resources.butler`).
"""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from resources.errors import Retriable

CONNECT_TIMEOUT_S = 20
"""How long PostgreSQL's host may not answer, which the operating system would wait for for minutes."""


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
