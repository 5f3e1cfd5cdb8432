"""Folders that can't be written to are said in one line: what, where, how to mend it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import dagster as dg
import pytest

from drp_assets.events import one_line_failures
from drp_assets.reporting import write_failures
from launchers import bps
from launchers.claiming import claim_attempt
from launchers.folders import writing
from launchers.graph import GraphSummary
from launchers.submission import StepRequest, SubmissionKey
from resources.errors import SiteFault

WORK = SubmissionKey("dr1", "step1a", ("20261101",))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "/the/folder: there is no space left; make room there, then re-execute the run"),
        (errno.EDQUOT, "/the/folder: there is no space left; make room there, then re-execute the run"),
        (errno.EROFS, "/the/folder: it cannot be written: Read-only file system; see its mode and owner, or `state`"),
        (errno.EACCES, "/the/folder: it cannot be written: Permission denied; see its mode and owner, or `state`"),
    ],
)
def test_what_the_operating_system_says_becomes_what_to_do(number: int, said: str) -> None:
    with pytest.raises(SiteFault) as raised, writing(Path("/the/folder")):
        raise OSError(number, os.strerror(number))
    assert str(raised.value).startswith(said)


def test_a_connection_is_not_taken_for_a_folder() -> None:
    with pytest.raises(ConnectionResetError), writing(Path("/the/folder")):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """What nobody can make a folder in, root neither."""
    file = tmp_path / "file"
    file.touch()
    return file


def test_an_attempt_that_cannot_be_claimed_says_where(no_folder: Path) -> None:
    with pytest.raises(SiteFault, match=rf"{no_folder}.*: it cannot be written: Not a directory; see its mode"):
        claim_attempt(no_folder, WORK, "run")


def test_a_submission_that_cannot_be_written_says_where(no_folder: Path) -> None:
    request = StepRequest(WORK, "repo", "p#step1a", ("dr1",), "dr1", "", no_folder / "submission")
    with pytest.raises(SiteFault, match=rf"{no_folder}.*: it cannot be written"):
        bps.submit(request, GraphSummary(request.graph_path, {"isr": 1}))


def test_a_table_of_failures_that_cannot_be_written_says_where(no_folder: Path) -> None:
    with pytest.raises(SiteFault, match=rf"{no_folder}.*: it cannot be written"):
        write_failures(no_folder / "failed-quanta" / "x.csv", [])


def test_a_full_disk_ends_a_run_in_one_line() -> None:
    with pytest.raises(dg.Failure) as raised, one_line_failures():
        raise OSError(errno.ENOSPC, "No space left on device", "/state/reports/x.html")
    assert raised.value.description == (
        "/state/reports/x.html: there is no space left; make room there, then re-execute the run"
    )
