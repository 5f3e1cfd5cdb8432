"""What Slurm's commands do when they can't: who may try again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from launchers.slurm.commands import Slurm
from launchers.slurm.jobs import Element
from resources.errors import OperatorError, Rejected, Retriable, SiteFault


@pytest.fixture
def does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have nothing but a command of Slurm that does what is said."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name: str, script: str) -> None:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("script", "kind", "complaint"),
    [
        ("kill -PIPE $$", Retriable, "squeue: Slurm doesn't answer: SIGPIPE has ended squeue; try again"),
        (
            "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
            Retriable,
            "squeue: Slurm doesn't answer: slurm_load_jobs error: Unable to contact slurm controller (connect failure);"
            " try again; see scontrol ping",
        ),
        (
            "echo 'squeue: error: Invalid user: nobody' >&2; exit 1",
            Rejected,
            "squeue: Slurm refuses: Invalid user: nobody; see what was asked for",
        ),
        ("exit 7", Rejected, "squeue: Slurm refuses: it ended with 7 and no word; see what was asked for"),
    ],
)
def test_who_may_try_again_is_told_from_how_the_command_ended(
    does: Callable[[str, str], None], script: str, kind: type[OperatorError], complaint: str
) -> None:
    does("squeue", script)

    with pytest.raises(kind) as caught:
        Slurm().queue("somebody")

    assert str(caught.value) == complaint


def test_a_slurm_that_is_not_installed_is_the_sites_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SiteFault, match="squeue is not there"):
        Slurm().queue("somebody")


SILENT = (
    "Unexpected message received for job 7; slurm_suspend error: Unexpected message received",
    "scontrol: error: Munge encode failed: Failed to access socket; Unexpected message received for job 7_0",
    "scancel: error: Kill job error on job id 7: Protocol authentication error",
    "scancel: error: Kill job error on job id 7: Unable to contact slurm controller (connect failure)",
)
"""What Slurm's commands say of a controller that is down, and of a munge that is."""


def says(lines: str, code: int = 1) -> str:
    return "".join(f"echo {shlex.quote(line)} >&2\n" for line in lines.split("; ")) + f"exit {code}"


@pytest.mark.parametrize("complaint", SILENT)
def test_what_slurm_did_not_hear_is_not_taken_for_done(does: Callable[[str, str], None], complaint: str) -> None:
    for program in ("scontrol", "scancel"):
        does(program, says(complaint))

    with pytest.raises(Retriable, match="Slurm doesn't answer"):
        Slurm().release([Element(7, 0)])
    with pytest.raises(Retriable, match="Slurm doesn't answer"):
        Slurm().release([Element(7, 0)], whole=[7])
    with pytest.raises(Retriable, match="Slurm doesn't answer"):
        Slurm().cancel(["7"])


@pytest.mark.parametrize(
    "complaint",
    [
        "Job has already finished for job 7; slurm_suspend error: Job has already finished",
        "7_0: Job/step already completing or completed",
        "7_0-1,3: No error; 7_2: Access/permission denied; 7_4: Invalid job id specified",
    ],
)
def test_what_is_over_or_held_by_an_administrator_keeps_nothing_else_from_being_released(
    does: Callable[[str, str], None], complaint: str
) -> None:
    does("scontrol", says(complaint))

    Slurm().release([Element(7, task) for task in range(5)])


def test_a_refusal_is_told(does: Callable[[str, str], None]) -> None:
    does("scontrol", says("7_0-1: No error; 7_2: Requested operation is presently disabled"))
    does("scancel", says("scancel: error: Kill job error on job id 7: Access/permission denied", 210))

    with pytest.raises(Rejected, match="7_2: Requested operation is presently disabled"):
        Slurm().release([Element(7, task) for task in range(3)])
    with pytest.raises(Rejected, match="Slurm refuses: Kill job error on job id 7: Access/permission denied"):
        Slurm().cancel(["7"])
