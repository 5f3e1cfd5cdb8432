"""PostgreSQL keeps what was committed, whoever is killed, and lets in only who knows a password."""

import stat

import psycopg
import pytest
import sqlalchemy

from services.postgresql import OWNER, PostgreSQL

pytestmark = pytest.mark.integration


@pytest.fixture
def own_postgresql(tmp_path):
    service = PostgreSQL(tmp_path / "postgresql")
    yield service
    service.stop()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", None])
def test_every_driver_reaches_a_database_by_its_url_and_the_file_of_passwords(postgresql, new_database, driver):
    url = postgresql.url(new_database(), driver)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        assert connection.execute(sqlalchemy.text("SELECT current_user")).scalar_one() == OWNER
        connection.execute(
            sqlalchemy.text(
                "CREATE TABLE visit (id bigint, span int8range, EXCLUDE USING gist (id WITH =, span WITH &&))"
            )
        )
    engine.dispose()


def test_a_database_that_is_there_stays_as_it_is(postgresql, new_database):
    name = new_database()
    with postgresql.connect(name) as connection:
        connection.execute("CREATE TABLE kept ()")

    postgresql.create_database(name)

    with postgresql.connect(name) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_dropped_database_is_gone_though_somebody_is_connected(postgresql, new_database):
    name = new_database()
    with postgresql.connect(name):
        postgresql.drop_database(name)

    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        postgresql.connect(name)


def test_nobody_gets_in_without_a_password(postgresql, monkeypatch):
    monkeypatch.delenv("PGPASSFILE")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(f"postgresql://{OWNER}@{postgresql.address}/postgres", passfile="/dev/null")
    assert stat.S_IMODE(postgresql.passfile.stat().st_mode) == 0o600


def test_what_was_committed_survives_a_kill_and_the_port_stays(own_postgresql):
    own_postgresql.start()
    address = own_postgresql.address
    own_postgresql.create_database("arrivals")
    bystander = own_postgresql.connect("arrivals")
    bystander.execute("CREATE TABLE message AS SELECT generate_series(1, 1000) AS number")

    own_postgresql.kill()
    assert own_postgresql.pid is None
    with pytest.raises(psycopg.OperationalError):
        bystander.execute("SELECT 1")
    own_postgresql.start()

    assert own_postgresql.address == address
    with own_postgresql.connect("arrivals") as connection:
        assert connection.execute("SELECT count(*) FROM message").fetchone() == (1000,)


def test_an_interrupted_making_of_the_cluster_is_done_again(own_postgresql):
    (own_postgresql.folder / "data.unfinished" / "base").mkdir(parents=True)

    own_postgresql.start()

    assert own_postgresql.is_ready()
