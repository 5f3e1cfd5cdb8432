"""What an operator sees of an error: one line, and never a traceback; and what a command imports before it begins."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commands.main import ENTRIES, main

TOP = Path(__file__).parents[2]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["drp", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DRP_STATE", str(tmp_path))
    monkeypatch.setenv("DRP_REPORTS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("DRP_SITE", str(TOP / "deploy" / "sites" / "laptop.yaml"))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(TOP)
    return tmp_path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--survey", "everything"], "no survey 'everything'; one of demo, ci, acceptance"),
        (["plan", "show", "nowhere.yaml"], "nowhere.yaml: no such pipeline"),
        (["backfill", "demo", "step9z", "20261101"], "no step 'step9z'; its steps: step1a"),
        (["backfill", "demo", "step1a"], "no partition is named; name one or more day_obs"),
        (["backfill", "nothing", "step1a"], "no release 'nothing'; there are: acceptance, ci, demo"),
        (["backfill", "demo", "step1a", "20261101", "--url", "http://127.0.0.1:9"], "web server doesn't answer"),
        (["site", "prepare", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
        (["site", "prepare", "README.md"], "README.md line 5: is not YAML"),
        (["site", "prepare", "releases/demo.yaml"], "releases/demo.yaml: is no skymap"),
        (["plan", "export", "pipelines/DRP.yaml", "/nowhere/plan.json"], "/nowhere/plan.json: cannot be written"),
        (["limits"], "no release is named"),
        (["limits", "demo", "--really"], "DAGSTER_HOME: it names no absolute folder"),
        (["limits", "--instance", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["limits", "--instance", "README.md"], "README.md line 5: is not YAML"),
    ],
)
def test_wrong_command_ends_in_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(monkeypatch, *arguments) == 1
    assert said in one_line(capsys)


@pytest.mark.parametrize(
    "arguments", [["quarantine", "list", "demo"], ["rescue", "demo", "step1a"], ["rescue", "demo", "step1a", "--show"]]
)
def test_a_database_that_is_down_is_said_in_one_line_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: Path, arguments: list[str]
) -> None:
    laptop = (TOP / "deploy" / "sites" / "laptop.yaml").read_text()
    nobody_listens = "ledger: postgresql+psycopg://drp:secret@127.0.0.1:9/site"
    (state / "site.yaml").write_text(laptop.replace("ledger: sqlite:///${DRP_STATE}/ledger.sqlite3", nobody_listens))
    monkeypatch.setenv("DRP_SITE", str(state / "site.yaml"))

    assert run(monkeypatch, *arguments) == 1

    said = one_line(capsys)
    assert said.startswith("drp: ledger postgresql+psycopg://drp:***@127.0.0.1:9/site: database: connection failed")
    assert said.endswith("is it up?")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `drp plan show` break down."""

    def break_down(*_: object) -> None:
        raise ZeroDivisionError("what nobody thought of")

    monkeypatch.setattr("commands.plan.build_plan", break_down)


@pytest.mark.usefixtures("broken")
def test_unforeseen_error_leaves_its_traceback_in_a_file_for_its_owner_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    log = state / "not" / "yet" / "there" / "drp-error.log"
    monkeypatch.setenv("DRP_STATE", str(log.parent))

    assert run(monkeypatch, "plan", "show", "x.yaml") == 2

    assert one_line(capsys).endswith(f"ZeroDivisionError: what nobody thought of (traceback in {log})")
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("broken")
def test_an_error_whose_traceback_cannot_be_written_is_one_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    elsewhere = state / "another-users"
    elsewhere.touch()
    (state / "drp-error.log").symlink_to(elsewhere)

    assert run(monkeypatch, "plan", "show", "x.yaml") == 2

    assert "ZeroDivisionError: what nobody thought of (its traceback can't be written to " in one_line(capsys)
    assert elsewhere.read_text() == ""


@pytest.mark.usefixtures("state")
def test_an_interrupted_command_says_that_it_can_be_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("commands.plan.build_plan", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(monkeypatch, "plan", "show", "x.yaml") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert one_line(capsys) == "drp: interrupted; the same command goes on from here"


def test_plan_shows_every_step_of_the_pipeline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert run(monkeypatch, "plan", "show", str(TOP / "pipelines" / "DRP.yaml")) == 0
    shown = capsys.readouterr().out
    for step in ("step1a-single-visit-detectors", "step3a-coadd-tracts", "step5a-validate-tracts"):
        assert step in shown


def test_every_command_of_the_help_can_be_called():
    for name, entry in ENTRIES.items():
        assert entry.load(name).name == name


def test_what_only_asks_the_ledger_starts_without_middleware_and_dagster():
    code = (
        "import sys; from commands.main import ENTRIES; ENTRIES['ingest'].load('ingest');"
        "assert not {'dagster', 'lsst.daf.butler', 'lsst.pipe.base'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TOP)
