"""The version of the ledger's tables: brought up to what this code knows, and refused where it is newer.

Belongs here: looking at the version, and running alembic's steps one process at a time. Doesn't: the steps
(`arrivals.migrations`), or the columns as queries use them (`arrivals.tables`).
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from resources.errors import SiteFault

VERSION_TABLE = "ledger_version"
"""Named after the ledger, so that it may share a database with others that use alembic."""

HEAD = "0001"
"""The version that this code reads and writes; the last of the steps."""

_STEPS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Bring a database to `HEAD`; of several processes that come at once, one does it and the others wait.

    Raises
    ------
    resources.errors.SiteFault
        A newer release of the platform has been at it.
    """
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    with engine.execution_options(begins_with="BEGIN IMMEDIATE").begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('ledger-schema'))"))
        version = _version(connection)
        if version == HEAD:
            return
        configuration = Config()
        configuration.set_main_option("script_location", str(_STEPS).replace("%", "%%"))
        if version is not None and not _knows(configuration, version):
            raise SiteFault(
                f"its tables have version {version}, newer than {HEAD}, the newest that this code knows",
                f"ledger {engine.url.render_as_string()}",
                "upgrade the platform here as well, or give it a ledger of its own",
            )
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, HEAD)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return version


def _knows(configuration: Config, version: str) -> bool:
    return version in {step.revision for step in ScriptDirectory.from_config(configuration).walk_revisions()}
