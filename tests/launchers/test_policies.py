"""What failures lead to, as values: the next request, and one outcome out of several."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.causes import describe
from launchers.outcome import LOST, DatasetCount, Judgement, Outcome, Quantum, QuantumFailure, TaskOutcome, quantum_of
from launchers.policies import (
    cases_of,
    combine,
    is_rescue_due,
    judge,
    judgements_from,
    rescue_of,
)
from launchers.rescue import not_tried, of_causes
from launchers.submission import StepRequest, SubmissionKey
from planning.policies import Action, Decision, FailurePolicy
from resources.errors import Rejected

KEY = SubmissionKey("dr1", "step1a", ("20261101",))
NEXT = SubmissionKey("dr1", "step1a", ("20261101",), 2)


ONCE = defaultdict[Quantum, int](lambda: 1)


def request(**bps) -> StepRequest:
    return StepRequest(KEY, "repo", "DRP.yaml#step1a", ("dr1",), "dr1", "", Path("one"), bps=bps)


def failure(task: str = "isr", detector: int = 1, exception: str = "ValueError") -> QuantumFailure:
    return QuantumFailure(task, {"exposure": 7, "detector": detector}, exception, "too bad", "s3://log")


def judged(action: Action, memory_mb: int | None = None, **failed) -> Judgement:
    return Judgement(failure(**failed), Decision(action, "p", memory_mb))


def outcome(**changes) -> Outcome:
    values = {"tasks": {}, "failures": (), "datasets": {}, "cpu_s": 1.0, "peak_memory_mb": 5.0, "wall_s": 2.0}
    return Outcome(**values | {"run_collection": KEY.run_collection} | changes)


def test_the_rescue_skips_what_the_run_before_it_has_made() -> None:
    rescue = rescue_of(request(), [judged(Action.RETRY)], NEXT, Path("two"))
    assert rescue.key == NEXT
    assert rescue.folder == Path("two")
    assert rescue.skip_existing_in == ("dr1/step1a/" + KEY.digest + "/1",)
    assert rescue.later == ()
    again = rescue_of(rescue, [judged(Action.RETRY)], NEXT, Path("three"))
    assert again.skip_existing_in == (NEXT.run_collection, KEY.run_collection)


def test_what_is_held_or_only_listed_is_not_done_again() -> None:
    made = [judged(Action.RETRY), judged(Action.HOLD, detector=2), judged(Action.IGNORE, detector=3)]
    rescue = rescue_of(request(), made, NEXT, Path("two"))
    assert [data_id["detector"] for _, data_id in rescue.later] == [2, 3]


def test_what_is_quarantined_is_left_out_once() -> None:
    made = [judged(Action.QUARANTINE), judged(Action.QUARANTINE, task="calibrate")]
    rescue = rescue_of(request(), made, NEXT, Path("two"))
    assert rescue.quarantined == ({"exposure": 7, "detector": 1},)


@pytest.mark.parametrize(
    ("data_id", "action"),
    [
        ({"instrument": "LSSTCam"}, Action.HOLD),
        ({"skymap": "sky", "band": "r"}, Action.HOLD),
        ({}, Action.HOLD),
        ({"instrument": "LSSTCam", "detector": 3}, Action.QUARANTINE),
        ({"skymap": "sky", "tract": 7, "band": "r"}, Action.QUARANTINE),
    ],
)
def test_no_policy_leaves_out_the_whole_release_or_a_band(data_id: dict, action: Action) -> None:
    rules = [FailurePolicy(name="bad", action=Action.QUARANTINE)]
    (made,) = judge(rules, request(), [dataclasses.replace(failure(), data_id=data_id)], {}, tried=ONCE)
    assert made.decision.action is action
    said = "held for somebody to decide (bad: too much to quarantine)" in describe([made])[0]
    assert said == (action is Action.HOLD)


def test_more_memory_goes_to_the_task_that_needs_it() -> None:
    made = [judged(Action.MORE_MEMORY, 4096), judged(Action.MORE_MEMORY, 8192, detector=2)]
    rescue = rescue_of(request(requestMemory=2048, pipetask={"isr": {"requestCpus": 2}}), made, NEXT, Path("two"))
    assert rescue.bps["pipetask"] == {"isr": {"requestCpus": 2, "requestMemory": 8192}}
    assert rescue.bps["requestMemory"] == 2048


def test_exit_codes_are_those_of_the_tasks_own_jobs_else_of_all() -> None:
    rules = [FailurePolicy(name="killed", exit_codes=(137,), action=Action.RETRY)]
    codes = {"isr": frozenset({1}), "coadd": frozenset({137})}
    made = judge(rules, request(), [failure(), failure("merged")], codes, tried=ONCE)
    assert [each.decision.action for each in made] == [Action.IGNORE, Action.RETRY]


def test_each_quantum_has_its_own_attempts() -> None:
    rules = [FailurePolicy(name="again", action=Action.RETRY, attempts=2, then=Action.HOLD)]
    first, second = failure(), failure("calibrate")
    made = judge(rules, request(), [first, second], {}, tried={first.quantum: 2, second.quantum: 1})
    assert [each.decision.action for each in made] == [Action.HOLD, Action.RETRY]


def test_the_sites_largest_node_limits_memory() -> None:
    lost = failure(exception="MemoryError")
    (made,) = judge([], request(requestMemory=3000, memoryLimit=4000), [lost], {}, tried=ONCE)
    assert made.decision.memory_mb == 4000


GROWING = {"requestMemory": 4000, "memoryMultiplier": 2, "numberOfRetries": 3, "memoryLimit": 256_000}


@pytest.mark.parametrize(
    ("changes", "asked_mb"),
    [
        ({}, 64_000),
        ({"message": "out of memory: its job was ended", "node": "n1"}, 64_000),
        # Its batch system would have said so if it had been for its memory, and so does the quantum itself.
        ({"node": "n1"}, 8000),
        ({"exception": "MemoryError"}, 8000),
    ],
)
def test_a_rescue_asks_for_more_memory_than_bps_has_tried(changes: dict, asked_mb: int) -> None:
    lost = dataclasses.replace(failure(exception=LOST), **changes)
    (made,) = judge([], request(**GROWING), [lost], {}, tried=ONCE)
    assert made.decision == Decision(Action.MORE_MEMORY, made.decision.policy, asked_mb)


def test_what_bps_has_tried_with_all_the_memory_there_is_gets_no_more() -> None:
    (made,) = judge([], request(**GROWING | {"memoryLimit": 32_000}), [failure(exception=LOST)], {}, tried=ONCE)
    assert made.decision.action is Action.IGNORE


@pytest.mark.parametrize("key", ["requestMemoryMax", "memoryLimit"])
def test_no_policy_asks_for_more_memory_than_a_task_may_have(key: str) -> None:
    lost = failure(exception="MemoryError")
    bps = {"requestMemory": 3000, "pipetask": {"isr": {"requestMemory": 3000, key: 4000}}}
    (made,) = judge([], request(**bps), [lost], {}, tried=ONCE)
    assert made.decision.memory_mb == 4000


def test_a_rescue_is_due_when_something_can_be_gained() -> None:
    blocked = outcome(tasks={"sum": TaskOutcome(1, 0, blocked=1)})
    assert is_rescue_due([judged(Action.RETRY)], outcome())
    assert is_rescue_due([judged(Action.QUARANTINE)], blocked)
    assert not is_rescue_due([judged(Action.QUARANTINE)], outcome())
    assert not is_rescue_due([judged(Action.HOLD), judged(Action.IGNORE)], blocked)


def test_outcomes_add_up() -> None:
    place = ("image", "20261101", "")
    before = outcome(
        tasks={"isr": TaskOutcome(4, 2, failed=2), "sum": TaskOutcome(1, 0, blocked=1)},
        failures=(failure(), failure(detector=2)),
        datasets={place: DatasetCount(2, 20, 4)},
    )
    after = outcome(
        tasks={"isr": TaskOutcome(1, 1)},
        datasets={place: DatasetCount(1, 10, 1)},
        run_collection=NEXT.run_collection,
        peak_memory_mb=9.0,
    )
    both = combine(before, after, [failure(detector=2)])
    assert both.tasks == {"isr": TaskOutcome(4, 3, failed=1), "sum": TaskOutcome(1, 0, blocked=1)}
    assert both.datasets == {place: DatasetCount(3, 30, 4)}
    assert both.failures == (failure(detector=2),)
    assert (both.cpu_s, both.wall_s, both.peak_memory_mb) == (2.0, 4.0, 9.0)
    assert both.run_collection == NEXT.run_collection


def test_what_is_held_is_held_until_it_is_tried_again() -> None:
    one, two = judged(Action.HOLD), judged(Action.HOLD, detector=2)
    before = outcome(failures=(one.failure, two.failure), judgements=(one, two))
    assert before.held == (one.failure, two.failure)
    again = outcome(failures=(two.failure,), judgements=(judged(Action.IGNORE, detector=2),))
    after = combine(before, again, [one.failure])
    assert after.held == (one.failure,)
    assert after.judgements == (one, *again.judgements)
    assert combine(after, outcome()).held == ()


def test_what_is_held_in_one_night_is_not_in_another() -> None:
    made = [
        Judgement(dataclasses.replace(failure(detector=number), partition=night), Decision(Action.HOLD, "p"))
        for number, night in enumerate(("20261101", "20261102", ""))
    ]
    both = outcome(failures=tuple(each.failure for each in made), judgements=tuple(made))
    assert both.within("20261101").held == (made[0].failure, made[2].failure)
    assert both.within("20261102").judgements == (made[1], made[2])


def test_what_was_decided_last_is_found_in_the_casebook_for_what_is_still_left() -> None:
    held, mended, again = failure(), failure(detector=2), failure(detector=3)
    first = cases_of(request(), [Judgement(each, Decision(Action.HOLD, "p")) for each in (held, mended, again)], "r")
    second = cases_of(request(), [Judgement(again, Decision(Action.RETRY, "p"))], "r")
    assert judgements_from([*second, *first], [held, again]) == [Judgement(held, Decision(Action.HOLD, "p"))]


COUNTS = st.integers(0, 50)


@given(done=COUNTS, bad=COUNTS, waiting=COUNTS, redone=COUNTS, bad_again=COUNTS)
def test_combined_counts_are_always_possible(done: int, bad: int, waiting: int, redone: int, bad_again: int) -> None:
    before = outcome(tasks={"t": TaskOutcome(done + bad + waiting, done, failed=bad, blocked=waiting)})
    after = outcome(tasks={"t": TaskOutcome(redone + bad_again, redone, failed=bad_again)})
    task = combine(before, after).tasks["t"]
    assert task.succeeded + task.failed + task.blocked == task.expected
    assert min(task.succeeded, task.failed, task.blocked, task.caveats) >= 0


def test_the_casebook_gets_what_failed_why_and_what_is_done() -> None:
    failed = dataclasses.replace(failure(), node="n1", memory_mb=2047.6)
    (case,) = cases_of(request(), [Judgement(failed, Decision(Action.MORE_MEMORY, "p", 99))], "run")
    assert (case.node, case.used_mb) == ("n1", 2047.6)
    assert (case.release, case.submission, case.action, case.memory_mb, case.log) == (
        "dr1",
        KEY.name,
        "more_memory",
        99,
        "s3://log",
    )


def test_causes_choose_by_task_exception_and_message() -> None:
    failures = [failure(), failure("calibrate"), failure(exception="KeyError")]
    assert of_causes(failures, []) == failures
    assert of_causes(failures, ["^calibrate"]) == [failures[1]]
    assert of_causes(failures, ["KeyError: too", "calib"]) == failures[1:]
    with pytest.raises(Rejected, match="not a regular expression"):
        of_causes(failures, ["("])


def test_what_was_not_tried_again_is_left_unless_it_is_quarantined() -> None:
    one, two, three = (failure(detector=detector) for detector in (1, 2, 3))
    tried = {quantum_of(two.task, two.data_id): True}
    assert not_tried([one, two, three], tried) == [one, three]
    assert not_tried([one, two, three], tried, [{"detector": 3}]) == [one]
