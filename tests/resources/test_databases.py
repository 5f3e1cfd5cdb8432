"""A database in trouble is told from one that was given what it can't take, and each says who may mend it."""

import sqlite3
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from resources.databases import database_url, is_database_trouble, ledger_url, trouble_of
from resources.errors import Retriable, SiteFault


def raised(error: psycopg.Error) -> DBAPIError:
    """An error of psycopg's as SQLAlchemy raises it."""
    made = DBAPIError.instance("INSERT", {}, error, psycopg.Error)
    assert isinstance(made, DBAPIError)
    return made


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"), "is it a standby"),
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), "another process holds that lock"),
        (psycopg.errors.AdminShutdown("terminating connection"), "is it up?"),
        (psycopg.OperationalError("connection failed: FATAL:  the database system is starting up"), "is it up?"),
        (psycopg.OperationalError('FATAL:  too many connections for role "drp"'), "is it up?"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_pass_is_retriable_with_what_to_look_at(error: psycopg.Error, mend: str) -> None:
    trouble = trouble_of(raised(error), "ledger")

    assert isinstance(trouble, Retriable)
    assert str(trouble).startswith(f"ledger: database: {error}; {mend}")


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (psycopg.errors.InsufficientPrivilege("permission denied for schema public\nLINE 1: CREATE"), "grant it"),
        (psycopg.OperationalError('FATAL:  database "ledger" does not exist'), "make the database"),
        (psycopg.OperationalError('FATAL:  password authentication failed for user "drp"'), "see the user"),
        (psycopg.OperationalError("fe_sendauth: no password supplied"), "see the user"),
        (psycopg.OperationalError('FATAL:  role "drp" does not exist'), "see the user"),
        (psycopg.OperationalError('FATAL:  no pg_hba.conf entry for host "10.0.0.7"'), "see the user"),
        (psycopg.OperationalError('FATAL:  permission denied for database "ledger"'), "grant it"),
    ],
    ids=str,
)
def test_what_only_the_site_can_mend_is_its_fault_with_how_to(error: psycopg.Error, mend: str) -> None:
    trouble = trouble_of(raised(error), "ledger")

    assert isinstance(trouble, SiteFault)
    assert trouble.mend.startswith(mend)
    assert "\n" not in str(trouble)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation('DETAIL:  Key (name)=(database "x" does not exist) already exists.'),
        psycopg.errors.UndefinedTable('relation "messages" does not exist'),
        psycopg.DataError("permission denied for database"),
    ],
    ids=repr,
)
def test_what_a_database_refuses_of_what_it_is_given_is_no_trouble_of_its_own(error: psycopg.Error) -> None:
    assert not is_database_trouble(raised(error))
    assert not is_database_trouble(ValueError("database is locked"))
    assert not is_database_trouble(None)


def sqlite_error(file: Path, statement: str = "SELECT * FROM t") -> DBAPIError:
    with pytest.raises(DBAPIError) as told, create_engine(f"sqlite:///{file}").connect() as connection:
        connection.execute(text(statement))
    return told.value


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("no/such/ledger.sqlite3", "unable to open database file; see that its folder is there"),
        ("notes.txt", "file is not a database; name another file"),
    ],
)
def test_a_file_that_is_none_of_sqlite_s_is_the_site_s_fault(tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / "notes.txt").write_text("What we saw tonight. " * 500)

    trouble = trouble_of(sqlite_error(tmp_path / name), "ledger")

    assert isinstance(trouble, SiteFault)
    assert line in str(trouble)


def test_a_busy_sqlite_may_pass(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY

    trouble = trouble_of(OperationalError("INSERT", {}, error), "ledger")
    assert isinstance(trouble, Retriable)
    assert trouble.mend == "another process is writing all the time"
    assert not is_database_trouble(DatabaseError("SELECT", {}, sqlite3.DatabaseError("nothing of the kind")))


@pytest.mark.parametrize(
    "driver", ["postgresql+psycopg2", "postgresql+asyncpg", "postgresql+none", "mysql", "oracle", "sqlite+aiosqlite"]
)
def test_a_ledger_through_another_driver_is_refused_in_one_line(driver: str) -> None:
    with pytest.raises(SiteFault) as told:
        ledger_url(f"{driver}://drp:s3cret@db.site.org/ledger")

    assert str(told.value).startswith(f"the site profile's ledger: can't be kept through {driver}; write sqlite:")
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["sqlite:////a/b", "sqlite+pysqlite:////a/b", "postgresql://h/d", "postgresql+psycopg://h"]
)
def test_a_ledger_is_kept_through_the_drivers_that_the_platform_brings(url: str) -> None:
    assert ledger_url(url).render_as_string() == url


def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(SiteFault, match=r"^registry: the driver .* not installed: .*cx_Oracle"):
        database_url("oracle+cx_oracle://db.site.org/butler", "registry")
