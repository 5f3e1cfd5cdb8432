"""What a PostgreSQL server may do to those who keep records in it, and what each of them makes of it.

Belongs here: servers that are read-only, refuse us, live in another time zone or fall silent. Doesn't: what the ledger
does on a server that is well (`test_ledger_postgresql`).
"""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from psycopg import sql
from sqlalchemy import Engine, text

from arrivals import recording
from arrivals.announcement import Kind
from arrivals.ledger import Ledger
from arrivals.reception import receive
from arrivals.records import Partition, Reception
from arrivals.states import State
from launchers.casebook import Casebook
from resources.databases import ledger_url, postgresql_engine
from resources.errors import Retriable, SiteFault
from services.postgresql import SUPERUSER, PostgreSQL
from simulator.messages import FileKind
from tests.arrivals.delivered import announced, deliver, make_repository, of_kind, site_of
from tests.arrivals.hermes import encoded

PARTITION = Partition("cluster", "SITE-raw", 0)
NOW = datetime(2026, 11, 2, tzinfo=UTC)

pytestmark = pytest.mark.integration


@pytest.fixture
def database(new_database) -> str:
    return new_database()


@pytest.fixture
def url(postgresql, database) -> str:
    return postgresql.url(database)


@pytest.fixture
def ledger(url) -> Iterator[Ledger]:
    made = Ledger(url)
    yield made
    made.close()


def alter(postgresql: PostgreSQL, database: str, change: str) -> None:
    """Change how a database receives those who connect from now on, and end who is connected."""
    with postgresql.connect("postgres", SUPERUSER) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} " + change).format(sql.Identifier(database)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))


def message(offset: int, **payload: object) -> Reception:
    return receive(PARTITION, offset, encoded(name=f"file-{offset}.fits", **payload), NOW, 86_400.0)


def put(ledger: Ledger, *receptions: Reception) -> None:
    ledger.record_batch(receptions, {each.partition: each.offset + 1 for each in receptions}, now=NOW)


# ---- read-only


def test_a_ledger_on_a_server_that_is_read_only_for_now_may_be_tried_again(ledger, postgresql, database):
    put(ledger, message(0))
    alter(postgresql, database, "SET default_transaction_read_only TO on")

    for call in (lambda: put(ledger, message(1)), lambda: ledger.wake({"exposure=1"})):
        with pytest.raises(Retriable, match=r"read-only transaction; is it a standby, or read-only for now\?$"):
            call()

    assert len(ledger.find()) == 1


@pytest.mark.parametrize("write", [lambda ledger: put(ledger, message(1)), lambda ledger: ledger.wake({"exposure=1"})])
def test_a_connection_to_a_server_that_was_read_only_is_not_kept(ledger, postgresql, database, write):
    alter(postgresql, database, "SET default_transaction_read_only TO on")
    ledger.find()  # over a connection that stays as it is
    with postgresql.connect("postgres", SUPERUSER) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(database)))

    with pytest.raises(Retriable):
        write(ledger)

    write(ledger)


def test_files_wait_while_the_butlers_server_is_read_only(postgresql, database, tmp_path):
    delivery = deliver(tmp_path / "survey")
    repository = make_repository(tmp_path / "repo", postgresql.url(database, None))
    site = site_of(repository, f"sqlite:///{tmp_path}/ledger.sqlite3", delivery.rucio_folder)
    site.receive(announced(of_kind(delivery, FileKind.DIMENSIONS)))
    alter(postgresql, database, "SET default_transaction_read_only TO on")

    site.ingest()

    assert {row.state for row in site.ledger.find()} == {State.WAITING}
    site.butler.close()
    site.ledger.close()


# ---- refusals


def without_rights(postgresql: PostgreSQL, database: str) -> str:
    alter(postgresql, database, f"OWNER TO {SUPERUSER}")
    with postgresql.connect(database, SUPERUSER) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    return postgresql.url(database)


@pytest.mark.parametrize("opened", [Ledger, Casebook])
def test_a_server_that_refuses_us_is_the_sites_fault_in_one_line(postgresql, database, opened):
    wrong_password = postgresql.url(database).replace("drp@", "drp:s3cret@")
    for url, line in {
        wrong_password: 'password authentication failed for user "drp"; see the user in its URL',
        postgresql.url("nowhere"): 'database "nowhere" does not exist; make the database, or mend its name',
        without_rights(postgresql, database): "permission denied for schema public; grant it to the user in its URL",
    }.items():
        with pytest.raises(SiteFault) as told:
            opened(url)

        assert line in str(told.value)
        assert "\n" not in str(told.value)
        assert "s3cret" not in str(told.value)


# ---- time zones


@pytest.mark.parametrize("zone", ["Europe/London", "Asia/Tokyo", "America/Santiago"])
def test_a_servers_time_zone_is_nothing_to_the_ledger(ledger, postgresql, database, zone):
    alter(postgresql, database, f"SET timezone TO '{zone}'")
    earliest, latest = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    put(ledger, message(0, transferred_at=f"{latest:%Y-%m-%dT%H:%M:%S}"), message(1))
    with ledger.engine.begin() as connection:
        connection.execute(text('UPDATE messages SET transferred_at = :time WHERE "offset" = 1'), {"time": earliest})

    assert [row.transferred_at for row in ledger.find()] == [latest, earliest]
    assert len(ledger.pending({Kind.RAW})) == 1


# ---- silence


def test_who_waits_for_another_that_records_is_told_so(ledger, postgresql, database, monkeypatch):
    monkeypatch.setattr(recording, "_PATIENCE", "100ms")
    with postgresql.connect(database) as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(hashtext('ledger-offsets'))")

        began = time.monotonic()
        with pytest.raises(Retriable, match=r"lock timeout; another process holds that lock all the time"):
            put(ledger, message(0))

        assert time.monotonic() - began < 10
    put(ledger, message(0))

    assert len(ledger.find()) == 1


def test_a_host_that_has_vanished_is_noticed_within_minutes_on_either_side(url):
    engine: Engine = postgresql_engine(ledger_url(url))
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with socket.fromfd(driver.fileno(), socket.AF_INET, socket.SOCK_STREAM) as ours:
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            assert 0 < ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 120_000
        theirs = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
        }
        connection.rollback()
        assert theirs == {
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": "60000",
        }
    engine.dispose()
