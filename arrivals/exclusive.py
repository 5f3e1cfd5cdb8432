"""One process at a time: a lock that belongs to a ledger and ends with the process that holds it, however that ends.

Belongs here: advisory locks of PostgreSQL, and locked files beside a SQLite database. Doesn't: transactions
(`arrivals.tables`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from resources.databases import database_trouble
from resources.errors import Retriable

_POLL_S = 0.05


@contextmanager
def exclusive(engine: Engine, purpose: str, wait_s: float, stopping: Callable[[], bool]) -> Iterator[None]:
    """Be the only process that does something with a database; see `arrivals.ledger.Ledger.exclusive`."""
    lock = _advisory_lock if engine.dialect.name == "postgresql" else _locked_file
    deadline = time.monotonic() + wait_s

    def pause() -> None:
        if stopping() or time.monotonic() > deadline:
            raise Retriable(f"another process is busy with {purpose} all the time", "ledger", "try again later")
        time.sleep(_POLL_S)

    with lock(engine, purpose, pause):
        yield


@contextmanager
def _locked_file(engine: Engine, purpose: str, pause: Callable[[], None]) -> Iterator[None]:
    descriptor = os.open(Path(f"{engine.url.database}.{purpose}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pause()
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _advisory_lock(engine: Engine, purpose: str, pause: Callable[[], None]) -> Iterator[None]:
    key = {"key": f"ledger-{purpose}"}
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except DBAPIError as error:
        raise database_trouble(error, engine) from error
    with connection:
        try:
            while not connection.execute(text("SELECT pg_try_advisory_lock(hashtext(:key))"), key).scalar_one():
                pause()
        except DBAPIError as error:
            raise database_trouble(error, engine) from error
        try:
            yield
        finally:
            # A server that went away took the lock with it; what matters then is what it was doing, not this.
            with suppress(DBAPIError):
                connection.execute(text("SELECT pg_advisory_unlock(hashtext(:key))"), key)
