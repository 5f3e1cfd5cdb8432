"""What a trial of the launchers' soak must come to, and what breaks a promise; what the soak tells of it."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.report import Machine
from benchmarks.soak.launcher_faults import FAULTS, TrialResult
from benchmarks.soak.launcher_record import Trials, due, fault_table, report_of
from benchmarks.soak.launcher_trials import WHOLE, WITHOUT_ONE, Evidence, Expected, Trial, broken_promises
from launchers.outcome import TaskOutcome

GOOD = Evidence(
    run="SUCCESS",
    submissions=("a",),
    collections=("a/1",),
    workflow="SUCCEEDED",
    jobs={"SUCCEEDED": 5},
    completed=5,
    tasks=WHOLE,
    datasets={"toy_doubled": 2, "toy_squared": 2},
)
HUNG = Evidence(
    run="FAILURE",
    submissions=("a",),
    collections=("a/1",),
    workflow="FAILED",
    jobs={"SUCCEEDED": 3, "FAILED": 1, "PRUNED": 1},
    completed=3,
    tasks=WITHOUT_ONE,
    failed=(("double", 0),),
    datasets={"toy_doubled": 1, "toy_squared": 1},
)
CANCELLED = Evidence("CANCELED", ("a",), ("a/1",), "DELETED", {"DELETED": 5}, 0)
EXPECTED = {fault.name: fault.expected for fault in FAULTS}


@pytest.mark.parametrize(
    ("expected", "seen"),
    [
        (Expected(), GOOD),
        (EXPECTED["3 times the memory"], dataclasses.replace(GOOD, out_of_memory=2)),
        (EXPECTED["a quantum hangs"], HUNG),
        (EXPECTED["run cancelled"], CANCELLED),
    ],
)
def test_what_must_be_breaks_no_promise(expected, seen):
    assert broken_promises(expected, seen) == []


def test_a_job_that_lost_its_node_need_not_have_completed_for_slurm():
    assert broken_promises(Expected(), dataclasses.replace(GOOD, completed=4)) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"submissions": ()}, "0 submissions instead of one"),
        ({"submissions": ("a", "b")}, "2 submissions instead of one: a, b"),
        ({"collections": ("a/1", "a/2")}, "outputs in 2 runs: a/1, a/2"),
        ({"completed": 6}, "Slurm completed 6 jobs of 5 that succeeded"),
        ({"run": "STARTED"}, "Dagster's run is STARTED instead of SUCCESS"),
        ({"workflow": "HELD"}, "the workflow is HELD instead of SUCCEEDED"),
        ({"tasks": WHOLE | {"double": TaskOutcome(2, 1, failed=1)}}, "provenance says"),
        ({"tasks": None}, "provenance says None"),
        ({"datasets": {"toy_doubled": 2, "toy_squared": 1}}, "the Butler has 1 good toy_squared instead of 2"),
        ({"failed": (("square", 1),)}, "said to have failed"),
        ({"left": ("process 7 on node",)}, "left behind: process 7 on node"),
    ],
)
def test_whatever_is_otherwise_breaks_a_promise_and_is_named(change, complaint):
    (broken,) = broken_promises(Expected(), dataclasses.replace(GOOD, **change))

    assert broken.startswith(complaint)


def test_success_where_a_quantum_hung_is_no_honest_end():
    broken = broken_promises(EXPECTED["a quantum hangs"], GOOD)

    assert "Dagster's run is SUCCESS instead of FAILURE" in broken
    assert "said to have failed: () instead of (('double', 0),)" in broken


def test_a_job_that_never_ran_out_of_memory_has_shown_nothing():
    assert broken_promises(EXPECTED["3 times the memory"], GOOD) == ["0 times out of memory instead of 2"]


def test_a_trial_reads_what_it_wrote():
    trial = Trial("a", "sleep 1", {"pipetask": {"double": {"requestWalltime": 1}}})

    assert Trial.parse(str(trial)) == trial


def test_trials_of_different_names_share_neither_folder_nor_collection(tmp_path):
    one, other = (Trial(name).request(tmp_path, {"requestMemory": 1}) for name in ("a", "b"))

    assert one.folder != other.folder
    assert one.key.run_collection != other.key.run_collection


def test_a_trials_own_settings_win_and_its_trouble_is_one_detectors(tmp_path):
    request = Trial("a", "sleep 1", {"requestMemory": 600}).request(tmp_path, {"requestMemory": 1, "queue": "main"})

    assert request.bps == {"requestMemory": 600, "queue": "main"}
    assert request.config_overrides == ("double:trouble={0: 'sleep 1'}",)


def test_all_that_was_promised_to_be_tried_is():
    assert len(FAULTS) == len({fault.name for fault in FAULTS}) == 10


RESULTS = [
    TrialResult("node dies", "node-dies-1", "kill -9 1", 10.0, ()),
    TrialResult("node dies", "node-dies-2", "kill -9 2", 30.0, ("left behind: process 7",)),
    TrialResult("run cancelled", "run-cancelled-1", "cancelled", 3.0, ()),
]


def test_each_fault_has_its_times_and_a_broken_promise_is_a_missed_target():
    machine = Machine("s", "p", 2, 8.0, "3", 0.0)

    figures = {result.name: result for result in report_of(RESULTS, machine, 60.0).results}

    assert figures["node dies: trials"].value == 2
    assert not figures["node dies: trials with a broken promise"].met
    assert figures["run cancelled: trials with a broken promise"].met
    assert figures["node dies: until the run's end, median"].value == 20.0
    assert figures["node dies: until the run's end, longest"].value == 30.0


def test_the_table_has_a_line_for_each_fault_that_was_tried_and_one_for_each_broken_promise():
    assert fault_table(RESULTS, FAULTS).row_count == 3


def test_trials_are_there_when_they_are_read_again_until_they_are_forgotten(tmp_path):
    trials = Trials(tmp_path / "results")
    for result in RESULTS:
        trials.add(result)

    assert Trials(tmp_path / "results").read() == RESULTS
    trials.forget()
    assert trials.read() == []


def test_every_fault_has_its_turn_before_any_comes_again():
    names = [name for _, name in due(FAULTS, 2, ())]

    assert names[0] == "run-worker-killed-1"
    assert names[len(FAULTS)] == "run-worker-killed-2"
    assert len(set(names)) == 2 * len(FAULTS)


def test_what_was_done_before_a_soak_was_stopped_is_not_due_again():
    names = [name for _, name in due(FAULTS, 1, {"node-dies-1", "run-cancelled-1"})]

    assert len(names) == len(FAULTS) - 2
    assert not {"node-dies-1", "run-cancelled-1"}.intersection(names)
