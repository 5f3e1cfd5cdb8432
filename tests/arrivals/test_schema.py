"""The ledger's tables are made and upgraded by steps, and a ledger that is newer than the code is left alone."""

import re
import sqlite3
import threading
import traceback

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from arrivals.ledger import Ledger
from arrivals.schema import HEAD, VERSION_TABLE
from arrivals.tables import METADATA, connect
from resources.errors import Retriable, SiteFault


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def url(file) -> str:
    return f"sqlite:///{file}"


def differences(engine: Engine) -> list[object]:
    """What the steps made otherwise than the tables say, the months' own index apart."""

    def is_ours(thing, name, kind, reflected, compare_to) -> bool:
        table = name if kind == "table" else getattr(thing.table, "name", "")
        return table in METADATA.tables and name not in {"messages_by_offset"}

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": is_ours, "version_table": VERSION_TABLE}
        )
        return list(compare_metadata(context, METADATA))


def set_version(file, version: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", (version,))


def test_the_steps_end_at_the_version_that_the_code_knows():
    config = Config()
    config.set_main_option("script_location", "arrivals:migrations")

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_steps_make_the_tables_that_the_code_uses(url):
    engine = connect(url)

    assert differences(engine) == []
    engine.dispose()


def test_a_ledger_that_is_opened_again_keeps_what_it_has(url):
    with_tables = Ledger(url)
    with_tables.close()

    assert differences(connect(url)) == []


def test_a_newer_ledger_is_refused_in_one_clear_line(file, url):
    connect(url).dispose()
    set_version(file, "9999")

    with pytest.raises(SiteFault) as raised:
        Ledger(url)

    assert re.fullmatch(
        r"ledger sqlite:///.*: its tables have version 9999, newer than \d+, the newest that this code knows; "
        r"upgrade the platform here as well, or give it a ledger of its own",
        str(raised.value),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "db.site.org/ledger",
        "postgres://drp:s3cret@db.site.org/ledger",
        "postgresql://drp:with@and:s3cret@db.site.org/ledger",
    ],
)
def test_a_url_that_is_none_is_told_without_quoting_it(wrong):
    with pytest.raises(SiteFault) as raised:
        Ledger(wrong)

    assert str(raised.value).startswith("the site profile's ledger: is no database URL; write ")
    assert "s3cret" not in "".join(traceback.format_exception(raised.value, chain=True))


def test_several_that_open_a_new_ledger_at_once_make_it_once(url):
    troubles: list[Exception] = []

    def open_it() -> None:
        try:
            Ledger(url).close()
        except Exception as error:
            troubles.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert troubles == []
    assert differences(connect(url)) == []


def test_a_database_that_does_not_answer_is_one_clear_line_without_a_password():
    with pytest.raises(Retriable) as raised:
        Ledger("postgresql+psycopg://drp:secret@127.0.0.1:9/ledger")

    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "is it up?" in str(raised.value)
