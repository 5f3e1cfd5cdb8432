"""The laptop's storage is Dagster's own, on files for which nobody waits."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from launchers.laptop_storage import UnhurriedSqliteStorage
from services.dagster_platform import make_laptop_instance

SITE_INSTANCE = Path(__file__).parents[2] / "dagster.yaml"
OFF, FULL = 0, 2


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DRP_STATE", str(tmp_path))
    make_laptop_instance(SITE_INSTANCE, tmp_path / "home")
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        yield instance


def waits(database: Path) -> int:
    with create_engine(f"sqlite:///{database}", poolclass=NullPool).connect() as connection:
        return connection.execute(text("PRAGMA synchronous")).scalar_one()


def test_dagster_waits_for_no_disk_and_others_do(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("coadd"))

    assert waits(tmp_path / "home" / "history" / "runs.db") == OFF
    assert waits(tmp_path / "ledger.sqlite3") == FULL


def test_events_are_where_dagster_looks_for_them(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("coadd"))

    index = tmp_path / "home" / "history" / "runs" / "index.db"
    assert sqlite3.connect(index).execute("SELECT asset_key FROM asset_keys").fetchall() == [('["coadd"]',)]


def test_processes_that_get_a_reference_use_the_same_storage(instance: dg.DagsterInstance) -> None:
    reference = pickle.loads(pickle.dumps(instance.get_ref()))

    assert isinstance(reference.storage, UnhurriedSqliteStorage)
