from __future__ import annotations

from pathlib import Path

from launchers.attempts import attempts_before, attempts_of, current_work, folders_of_run, rescued_work
from launchers.claiming import claim_attempt
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


def test_a_run_has_what_it_claimed_until_another_one_takes_it_over(tmp_path: Path) -> None:
    _, folder = claim_attempt(tmp_path, WORK, "run-a")
    claim_attempt(tmp_path, WORK, "run-b")
    assert folders_of_run(tmp_path, "run-a") == [folder]
    (folder / "dagster_run").write_text("run-a\nrun-c")
    assert folders_of_run(tmp_path, "run-a") == []
    assert folders_of_run(tmp_path, "run-c") == [folder]


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
    assert [work.last.key.partitions for work in current] == [("20261101",), ("20261102",)]


BOTH = SubmissionKey("dr1", "step1a", ("20261101", "20261102"))


def test_work_keeps_the_partitions_that_were_not_done_again_since(tmp_path: Path) -> None:
    claim_attempt(tmp_path, BOTH, "a")
    claim_attempt(tmp_path, WORK, "b")
    current = current_work(attempts_of(tmp_path, "dr1", "step1a"))
    assert [(work.last.key, work.partitions) for work in current] == [(BOTH, ("20261102",)), (WORK, ("20261101",))]


def test_a_rescue_is_an_attempt_at_the_work_that_its_partitions_were_part_of(tmp_path: Path) -> None:
    claim_attempt(tmp_path, BOTH, "a")
    asked = SubmissionKey("dr1", "step1a", ("20261101",))

    ((work, part),) = rescued_work(attempts_of(tmp_path, "dr1", "step1a"), asked, "b")

    assert (work, part) == (BOTH, ("20261101",))
    key, _ = claim_attempt(tmp_path, work, "b", is_rescue=True)
    assert key.attempt == 2
    (current,) = current_work(attempts_of(tmp_path, "dr1", "step1a"))
    assert [attempt.key.attempt for attempt in current.attempts] == [1, 2]


def test_a_rescue_of_several_submissions_is_an_attempt_at_each_and_at_what_is_new(tmp_path: Path) -> None:
    claim_attempt(tmp_path, BOTH, "a")
    claim_attempt(tmp_path, WORK, "b")
    asked = SubmissionKey("dr1", "step1a", ("20261101", "20261102", "20261103", "20261104"))

    parts = rescued_work(attempts_of(tmp_path, "dr1", "step1a"), asked, "c")

    new = ("20261103", "20261104")
    assert parts == [
        (BOTH, ("20261102",)),
        (WORK, ("20261101",)),
        (SubmissionKey("dr1", "step1a", new), new),
    ]


def test_a_rescue_of_a_step_that_runs_whole_is_an_attempt_at_the_whole(tmp_path: Path) -> None:
    whole = SubmissionKey("dr1", "step2b", ())
    claim_attempt(tmp_path, whole, "a")
    assert rescued_work(attempts_of(tmp_path, "dr1", "step2b"), whole, "b") == [(whole, ())]


def test_a_rescue_that_resumes_finds_its_work_again_whatever_was_begun_since(tmp_path: Path) -> None:
    claim_attempt(tmp_path, BOTH, "a")
    asked = SubmissionKey("dr1", "step1a", ("20261101",))
    found = rescued_work(attempts_of(tmp_path, "dr1", "step1a"), asked, "b")
    claim_attempt(tmp_path, found[0][0], "b", is_rescue=True)
    claim_attempt(tmp_path, asked, "c")

    assert rescued_work(attempts_of(tmp_path, "dr1", "step1a"), asked, "b") == found
    assert rescued_work(attempts_of(tmp_path, "dr1", "step1a"), asked, "d") == [(asked, asked.partitions)]
