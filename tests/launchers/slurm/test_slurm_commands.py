"""What Slurm's commands do when they can't: who may try again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launchers.slurm.commands import Slurm
from resources.errors import OperatorError, Rejected, Retriable, SiteFault


@pytest.fixture
def squeue_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have nothing but a ``squeue`` that does what is said."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(script: str) -> None:
        program = tmp_path / "squeue"
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
    squeue_does: Callable[[str], None], script: str, kind: type[OperatorError], complaint: str
) -> None:
    squeue_does(script)

    with pytest.raises(kind) as caught:
        Slurm().queue("somebody")

    assert str(caught.value) == complaint


def test_a_slurm_that_is_not_installed_is_the_sites_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SiteFault, match="squeue is not there"):
        Slurm().queue("somebody")
