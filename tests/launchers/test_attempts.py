from __future__ import annotations

from pathlib import Path

from launchers.attempts import attempts_before, attempts_of, claim_attempt, current_work
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


def test_a_rescue_is_of_the_last_whole_attempt_and_the_rescues_since(tmp_path: Path) -> None:
    for run, is_rescue in (("a", False), ("b", True), ("c", False), ("d", True)):
        claim_attempt(tmp_path, WORK, run, is_rescue=is_rescue)
    fifth, _ = claim_attempt(tmp_path, WORK, "e", is_rescue=True)
    assert [each.key.attempt for each in attempts_before(tmp_path, fifth)] == [3, 4]


def test_attempts_are_listed_by_release_and_step(tmp_path: Path) -> None:
    claim_attempt(tmp_path, WORK, "a")
    claim_attempt(tmp_path, SubmissionKey("dr1", "step1", ("20261101",)), "b")
    claim_attempt(tmp_path, SubmissionKey("dr2", "step1a", ("20261101",)), "c")
    assert [each.key for each in attempts_of(tmp_path, "dr1", "step1a")] == [WORK]


def test_work_that_was_done_again_under_other_partitions_is_no_longer_current(tmp_path: Path) -> None:
    both = SubmissionKey("dr1", "step1a", ("20261101", "20261102"))
    claim_attempt(tmp_path, both, "a")
    claim_attempt(tmp_path, WORK, "b")
    assert len(current_work(attempts_of(tmp_path, "dr1", "step1a"))) == 2
    claim_attempt(tmp_path, SubmissionKey("dr1", "step1a", ("20261102",)), "c")
    current = current_work(attempts_of(tmp_path, "dr1", "step1a"))
    assert [work[0].key.partitions for work in current] == [("20261101",), ("20261102",)]
