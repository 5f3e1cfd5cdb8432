"""What `drp demo` does to the folder that it is given, and says when it can't go on; nothing is started here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock, patch

import pytest

from commands.demonstration import Demonstration
from commands.main import main
from commands.progress import Standing
from services.service import ServiceError

TOP = Path(__file__).parents[2]

type Drp = Callable[..., int]


@pytest.fixture
def drp_demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drp]:
    """Type the command; give its exit code. What it changes for its own process is as before afterwards."""
    monkeypatch.chdir(TOP)
    monkeypatch.setattr(Demonstration, "start", Mock(side_effect=AssertionError("it is started")))

    def run(state: Path, *options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["drp", "demo", "--survey", "ci", "--state", str(state), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    handler = signal.getsignal(signal.SIGTERM)
    with patch.dict(os.environ):
        yield run
    signal.signal(signal.SIGTERM, handler)


def in_one_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    return line


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "content").write_text("dear to somebody")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("options", [["--fresh"], []])
def test_a_folder_of_something_else_is_refused_and_stays_as_it_is(
    drp_demo: Drp, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    folder = fill(tmp_path / "home", "thesis", "survey")

    assert drp_demo(folder, "--exit", *options) == 1

    assert in_one_line(capsys.readouterr().err).startswith(f"drp: {folder}: holds what no demonstration made; name")
    assert names(folder) == {"thesis", "survey"}
    assert (folder / "thesis" / "content").read_text() == "dear to somebody"


def test_a_file_is_refused(drp_demo: Drp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert drp_demo(tmp_path / "file", "--fresh") == 1
    assert in_one_line(capsys.readouterr().err).startswith(f"drp: {tmp_path / 'file'}: cannot hold a demonstration")


@pytest.mark.parametrize("there", [[], ["survey"], ["survey", "services", "repo"]])
def test_a_demonstrations_folder_is_made_anew_but_for_its_survey(
    drp_demo: Drp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str]
) -> None:
    folder = fill(tmp_path / "state", *there)
    seen = []

    def start(demonstration: Demonstration, report: Callable[[str], None]) -> None:
        seen.append(names(demonstration.state))
        fill(demonstration.state, "results")
        raise KeyboardInterrupt

    monkeypatch.setattr(Demonstration, "start", start)
    for _ in range(2):
        assert drp_demo(folder, "--fresh") == 130

    for left in seen:
        assert "results" not in left
        assert "repo" not in left
    assert "results" in names(folder)
    assert ("survey" in names(folder)) == ("survey" in there)


def test_a_service_that_cannot_be_started_is_one_line(
    drp_demo: Drp, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(demonstration: Demonstration, report: Callable[[str], None]) -> None:
        raise ServiceError("slurmctld is not installed; `make services` installs it")

    monkeypatch.setattr(Demonstration, "start", start)

    assert drp_demo(tmp_path / "state", "--site", "slurm") == 1

    assert capsys.readouterr().err.strip() == "drp: slurmctld is not installed; `make services` installs it"
    assert not (tmp_path / "state" / "drp-error.log").exists()


def test_what_keeps_a_release_from_completion_is_told_as_it_was_said(
    drp_demo: Drp, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Demonstration, "start", lambda *_: None)
    monkeypatch.setattr(Demonstration, "publish", lambda *_: 0)
    monkeypatch.setattr(Demonstration, "watch", lambda *_, **__: Standing.STUCK)
    monkeypatch.setattr(Demonstration, "failures", lambda _: {"ci/isr": "no dataset [/raw/1] in [bold]"})

    assert drp_demo(tmp_path / "state", "--exit") == 1

    said = capsys.readouterr().out
    assert "The release is stuck. What failed:" in said
    assert "ci/isr: no dataset [/raw/1] in [bold]" in said
