"""A repository is made whole or not at all, and what is wrong with one is said in one line."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from lsst.daf.butler import Butler
from sqlalchemy.exc import OperationalError, ProgrammingError

from resources.butler import make_repository, open_butler
from resources.errors import SiteFault
from resources.site import ButlerSettings


@pytest.fixture
def settings(tmp_path: Path) -> ButlerSettings:
    return ButlerSettings(repository=str(tmp_path / "sites" / "repo"))


def folder(settings: ButlerSettings) -> Path:
    return Path(settings.repository)


def refused(settings: ButlerSettings) -> str:
    with pytest.raises(SiteFault) as raised:
        make_repository(settings)
    line = str(raised.value)
    assert "\n" not in line
    return line


def test_a_repository_whose_database_was_away_is_made_when_it_is_back(settings: ButlerSettings) -> None:
    away = settings.model_copy(update={"registry": "postgresql+psycopg2://drp:s3cret@127.0.0.1:1/butler"})

    told = refused(away)

    assert told.startswith(f"{settings.repository}: the registry can't be made: connection to server")
    assert "s3cret" not in told
    assert make_repository(settings)
    open_butler(settings).close()
    assert not make_repository(settings)


def test_a_repository_whose_database_was_not_fit_is_made_when_it_is(settings: ButlerSettings) -> None:
    folder(settings).mkdir(parents=True)
    begun = folder(settings) / "gen3.sqlite3"
    with sqlite3.connect(begun) as connection:
        connection.execute("CREATE TABLE dataset_type (id INTEGER)")

    assert "Cannot create tables in non-empty database" in refused(settings)

    begun.unlink()
    assert make_repository(settings)
    open_butler(settings).close()


def test_a_repository_that_another_one_has_made_meanwhile_is_left_alone(
    settings: ButlerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Butler.makeRepo

    def twice(*arguments: object, **options: object) -> None:
        really(*arguments, **options)
        really(*arguments, **options)

    monkeypatch.setattr(Butler, "makeRepo", twice)

    refused(settings)

    open_butler(settings).close()


def test_a_folder_that_cannot_be_made_is_named(settings: ButlerSettings) -> None:
    folder(settings).parent.touch()

    assert refused(settings).endswith("see that its folder can be written, and try again")


def test_a_registry_that_is_no_url_is_told_without_quoting_it(settings: ButlerSettings) -> None:
    wrong = settings.model_copy(update={"registry": "postgres://drp:s3cret@db.site.org/butler"})

    told = refused(wrong)

    assert told.startswith("the site profile's butler.registry: is no database URL")
    assert "s3cret" not in told


@pytest.mark.parametrize("name", ["butler.yaml", "main.yaml"])
def test_a_repository_that_is_named_by_its_configuration_file_is_made_around_it(tmp_path: Path, name: str) -> None:
    settings = ButlerSettings(repository=str(tmp_path / "repo" / name))

    assert make_repository(settings)
    assert not make_repository(settings)

    assert (tmp_path / "repo" / name).is_file()
    assert (tmp_path / "repo" / "gen3.sqlite3").is_file()
    open_butler(settings).close()


def test_a_repository_whose_registry_has_no_tables_is_no_database_that_is_away(settings: ButlerSettings) -> None:
    make_repository(settings)
    registry = folder(settings) / "gen3.sqlite3"
    registry.unlink()
    registry.touch()

    with pytest.raises(SiteFault, match=r"not as it should be: no such table: .*`drp site prepare`$") as raised:
        open_butler(settings)

    assert not isinstance(raised.value.__cause__, OperationalError)


def test_a_registry_without_tables_is_told_as_postgresql_tells_it(
    settings: ButlerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_tables(*_: object, **__: object) -> None:
        lacking = Exception('relation "butler_attributes" does not exist\nLINE 2: FROM butler_attributes')
        raise ProgrammingError("SELECT count(*) FROM butler_attributes", {}, lacking)

    monkeypatch.setattr(Butler, "from_config", without_tables)

    with pytest.raises(SiteFault, match=r'not as it should be: relation "butler_attributes" does not exist; if it'):
        open_butler(settings)


def test_a_configuration_file_that_cannot_be_read_is_named(settings: ButlerSettings) -> None:
    make_repository(settings)
    configuration = folder(settings) / "butler.yaml"
    configuration.unlink()
    configuration.mkdir()

    with pytest.raises(SiteFault, match="cannot be read"):
        open_butler(settings)

    shutil.rmtree(folder(settings))
    with pytest.raises(SiteFault, match="no Butler repository"):
        open_butler(settings)
