from __future__ import annotations

from pathlib import Path

from launchers.attempts import claim_attempt
from launchers.submission import SubmissionKey

WORK = SubmissionKey("dr1", "step1a", ("20261101",))


def test_first_run_is_attempt_one(tmp_path: Path) -> None:
    key, folder = claim_attempt(tmp_path, WORK, "run-a")
    assert key.attempt == 1
    assert folder.is_dir()


def test_resumed_run_finds_its_own_attempt_again(tmp_path: Path) -> None:
    assert claim_attempt(tmp_path, WORK, "run-a") == claim_attempt(tmp_path, WORK, "run-a")


def test_another_run_of_the_same_work_is_the_next_attempt(tmp_path: Path) -> None:
    claim_attempt(tmp_path, WORK, "run-a")
    key, _ = claim_attempt(tmp_path, WORK, "run-b")
    assert key.attempt == 2
    assert claim_attempt(tmp_path, WORK, "run-a")[0].attempt == 1


def test_claim_that_was_never_written_is_left_alone(tmp_path: Path) -> None:
    _, folder = claim_attempt(tmp_path, WORK, "run-a")
    (folder / "dagster_run").unlink()
    assert claim_attempt(tmp_path, WORK, "run-b")[0].attempt == 2
