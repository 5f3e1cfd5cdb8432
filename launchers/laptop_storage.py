"""Dagster's storage on a laptop: SQLite that doesn't wait for the disk, which is most of what an event costs there.

Whatever is committed survives the death of any process, but not of the machine; then the platform's truth is still the
Butler's and the ledger's, whose databases keep waiting.

Belongs here: that choice. Doesn't: a site's storage, which is PostgreSQL (the top's ``dagster.yaml``).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Self

from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

_folders: set[Path] = set()
"""Of the instances that this process has opened."""


class UnhurriedSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage, whose commits are left to the kernel to write.

    Parameters
    ----------
    base_dir
        Folder of its databases.
    inst_data
        Where the instance's configuration names it.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        _folders.add(Path(base_dir).resolve())
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData, config_value: SqliteStorageConfig
    ) -> Self:
        """Make the storage from ``dagster.yaml``."""
        return cls.from_local(inst_data=inst_data, **config_value)


# Dagster makes an engine for each connection, so that there is none to listen to.
@event.listens_for(Engine, "connect")
def _leave_writing_to_the_kernel(connection: object, _: ConnectionPoolEntry) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    file = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    if any(file.is_relative_to(folder) for folder in _folders):
        connection.execute("PRAGMA synchronous=OFF")
