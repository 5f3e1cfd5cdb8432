"""`drp site prepare` as an operator meets it: what it makes, and how it says what it can't."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import yaml

from commands.main import main
from drp_tasks.skymap import TangentSkyMap
from tests.arrivals.delivered import SURVEY

LAPTOP = Path(__file__).parents[2] / "deploy" / "sites" / "laptop.yaml"


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DRP_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DRP_REPORTS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "400")
    profile = tmp_path / "site.yaml"
    profile.write_text(LAPTOP.read_text())
    return profile


def written(skymap: TangentSkyMap, file: Path) -> str:
    file.write_text(yaml.safe_dump(skymap.to_dict()))
    return str(file)


@pytest.fixture
def skymap(tmp_path: Path) -> str:
    return written(SURVEY.skymap, tmp_path / "skymap.yaml")


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], profile: Path):
    """Run `drp site prepare`; gives its exit code, standard output, and standard error."""

    def run(skymap: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["drp", "site", "prepare", skymap, "--site", str(profile)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_site_is_prepared_once_and_then_was_there(prepare, skymap: str, tmp_path: Path) -> None:
    first = prepare(skymap)
    second = prepare(skymap)

    assert first == (0, f"{tmp_path}/state/repo made; skymap {SURVEY.skymap.name} registered\n", "")
    assert second == (0, f"{tmp_path}/state/repo was there; skymap {SURVEY.skymap.name} registered\n", "")


def test_another_skymap_of_the_same_name_is_one_line(prepare, skymap: str, tmp_path: Path) -> None:
    prepare(skymap)
    other = dataclasses.replace(SURVEY.skymap, scale_arcsec=2 * SURVEY.skymap.scale_arcsec)

    code, _, err = prepare(written(other, tmp_path / "other.yaml"))

    assert code == 1
    [line] = err.splitlines()
    assert f"skymap {SURVEY.skymap.name}: contradicts what the Butler has: " in line


def test_an_instrument_that_is_not_to_be_had_is_one_line_and_nothing_is_made(
    prepare, skymap: str, profile: Path, tmp_path: Path
) -> None:
    profile.write_text(profile.read_text().replace("drp_tasks.instrument.SimCam", "lsst.obs.nowhere.NowhereCam"))

    code, _, err = prepare(skymap)

    assert code == 1
    [line] = err.splitlines()
    assert "arrivals.instrument: " in line
    assert "lsst.obs.nowhere.NowhereCam" in line
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_cannot_be_made_is_one_line(prepare, skymap: str, tmp_path: Path) -> None:
    (tmp_path / "state").touch()

    code, _, err = prepare(skymap)

    assert code == 1
    [line] = err.splitlines()
    assert f"{tmp_path}/state: cannot be made: " in line
