from pathlib import Path

import pytest
from lsst.ctrl.bps import WmsStates
from lsst.ctrl.bps.bps_reports import compile_code_summary, compile_job_summary

from launchers.slurm.dispatcher import COMMENT, JOB_NAME, waiting_dispatchers
from launchers.slurm.ends import Ending, Usage
from launchers.slurm.jobs import Element, Job, JobState, Request
from launchers.slurm.plan import Plan
from launchers.slurm.queue import Queue, Queued
from launchers.slurm.report import held_message, report_of, standing

FOLDER = Path("/submit")
NAME = f"{JOB_NAME}-0"
SUBMITTED = {
    "name": "w",
    "operator": "me",
    "project": "p",
    "campaign": "c",
    "payload": "l",
    "site": "s",
    "submitting_at": 1.0,
    "dispatcher_job": 9,
}
OVER = {**SUBMITTED, "ended_at": 2.0}


def plan(*jobs: Job) -> Plan:
    return Plan(jobs, [Request("isr")])


def queue(*queued: Queued, dispatcher: bool = True) -> Queue:
    found = {each.element: each for each in queued}
    if dispatcher:
        element = Element(9, 0)
        found[element] = Queued(9, element, "RUNNING", name=NAME, comment=COMMENT, folder=str(FOLDER))
    return Queue(found)


def job(name: str, state: JobState, **values) -> Job:
    return Job(name, name.rstrip("0123456789"), state=state, **values)


def seen(jobs: Plan, facts=SUBMITTED, slurm: Queue | None = None):
    return standing(FOLDER, jobs, facts, slurm)


def test_a_workflow_that_was_only_prepared_is_unready():
    assert seen(plan(job("isr1", JobState.UNREADY)), {"name": "w"}).state is WmsStates.UNREADY


def test_a_workflow_whose_dispatcher_was_never_submitted_is_unready():
    facts = {key: value for key, value in SUBMITTED.items() if key != "dispatcher_job"}

    assert seen(plan(), facts, queue(dispatcher=False)).state is WmsStates.UNREADY


def test_a_workflow_whose_dispatcher_was_submitted_counts_although_nobody_could_write_so():
    facts = {key: value for key, value in SUBMITTED.items() if key != "dispatcher_job"}

    assert seen(plan(), facts, queue()).state is WmsStates.PENDING


def test_a_workflow_without_a_dispatcher_is_held_and_says_what_to_do():
    found = seen(plan(job("isr1", JobState.PENDING)), SUBMITTED, queue(dispatcher=False))

    assert found.state is WmsStates.HELD
    assert held_message(found) == (
        "the dispatcher of this workflow is gone, see /submit/dispatcher.log; bps restart --id /submit goes on"
    )


def test_a_workflow_whose_dispatcher_could_not_be_started_is_held():
    element = Element(9, 0)
    reason = "launch failed requeued held"
    stuck = Queued(9, element, "PENDING", reason=reason, name=NAME, comment=COMMENT, folder=str(FOLDER))

    found = seen(plan(job("isr1", JobState.PENDING)), SUBMITTED, Queue({element: stuck}))

    assert found.state is WmsStates.HELD
    assert waiting_dispatchers(Queue({element: stuck}), str(FOLDER)) == [stuck]


def test_what_keeps_every_dispatcher_waiting_is_said_for_each_workflow():
    folders = [str(FOLDER), "/other"]
    reasons = ["Dependency", "PartitionTimeLimit"]
    waiting = [
        Queued(number, Element(number, 0), "PENDING", reason=reason, name=NAME, comment=COMMENT, folder=folder)
        for number, (folder, reason) in enumerate(zip(folders, reasons, strict=True))
    ]

    found = seen(plan(job("isr1", JobState.PENDING)), SUBMITTED, queue(*waiting, dispatcher=False))

    assert found.state is WmsStates.PENDING
    assert "the dispatcher of /other waits: PartitionTimeLimit" in str(report_of(found).specific_info)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([JobState.PENDING, JobState.UNREADY], WmsStates.PENDING),
        ([JobState.RUNNING, JobState.UNREADY], WmsStates.RUNNING),
        ([JobState.SUCCEEDED, JobState.PENDING], WmsStates.RUNNING),
    ],
)
def test_a_workflow_runs_when_something_of_it_has_begun(states, expected):
    jobs = [job(f"isr{n}", state) for n, state in enumerate(states)]

    assert seen(plan(*jobs), SUBMITTED, queue()).state is expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([JobState.SUCCEEDED, JobState.SUCCEEDED], WmsStates.SUCCEEDED),
        ([JobState.SUCCEEDED, JobState.FAILED, JobState.PRUNED], WmsStates.FAILED),
        ([JobState.SUCCEEDED, JobState.DELETED], WmsStates.FAILED),
    ],
)
def test_a_workflow_that_is_over_is_judged_without_slurm(states, expected):
    jobs = [job(f"isr{n}", state) for n, state in enumerate(states)]

    assert seen(plan(*jobs), OVER).state is expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([JobState.SUCCEEDED, JobState.DELETED], WmsStates.DELETED),
        ([JobState.FAILED, JobState.DELETED], WmsStates.DELETED),
        ([JobState.SUCCEEDED, JobState.SUCCEEDED], WmsStates.SUCCEEDED),
        ([JobState.SUCCEEDED, JobState.FAILED], WmsStates.FAILED),
    ],
)
def test_a_workflow_is_deleted_only_where_somebody_wanted_so_and_something_was_left_to_delete(states, expected):
    jobs = [job(f"isr{n}", state) for n, state in enumerate(states)]

    assert standing(FOLDER, plan(*jobs), OVER, None, is_cancelled=True).state is expected


def test_what_slurm_says_now_goes_before_what_was_recorded():
    elements = [Element(1, n) for n in range(3)]
    jobs = [job(f"isr{n}", JobState.PENDING, element=element) for n, element in enumerate(elements)]
    said = [
        Queued(1, elements[0], "RUNNING"),
        Queued(1, elements[1], "PENDING", reason="JobHeldAdmin"),
        Queued(1, elements[2], "COMPLETED"),
    ]

    states = seen(plan(*jobs), SUBMITTED, queue(*said)).states

    assert states == [WmsStates.RUNNING, WmsStates.HELD, WmsStates.SUCCEEDED]


def test_the_report_satisfies_bps():
    usage = Usage(7200.0, 1500.0, "n1")
    jobs = plan(
        job("isr1", JobState.SUCCEEDED, element=Element(1, 0), usage=usage, quanta=4),
        job("isr2", JobState.FAILED, exit_code=1, ending=Ending.FAILED, quanta_failed=1, quanta=2),
        job("isr3", JobState.FAILED, exit_code=137, ending=Ending.OUT_OF_MEMORY, retries=2),
        job("sum1", JobState.PRUNED),
    )

    report = report_of(seen(jobs, OVER))

    assert compile_job_summary(report) == []
    assert compile_code_summary(report) == []
    assert report.run_summary == "isr:3;sum:1"
    assert report.exit_code_summary == {"isr": [1, 137], "sum": []}
    assert report.job_state_counts is not None
    assert report.job_state_counts[WmsStates.FAILED] == 2
    assert set(report.job_state_counts) == set(WmsStates)
    assert report.jobs is not None
    assert next((each.wms_id, each.state.name) for each in report.jobs) == ("1_0", "SUCCEEDED")
    assert str(report.specific_info).splitlines() == [
        "Quanta: 6 succeeded, 1 failed",
        "CPU hours: 2.0; most memory: 1500 MB (isr1)",
        "Tried again: 2",
        "Not by their own fault: 1 out of memory",
    ]


def test_a_job_that_slurm_never_took_has_no_error_of_its_payload():
    report = report_of(seen(plan(job("isr1", JobState.FAILED, ending=Ending.REFUSED)), OVER))

    assert report.exit_code_summary == {"isr": [137]}


def test_what_keeps_slurm_from_going_on_is_in_the_report():
    report = report_of(seen(plan(job("isr1", JobState.READY)), {**SUBMITTED, "trouble": "Slurm refuses: no"}, queue()))

    assert "Slurm refuses: no" in str(report.specific_info)
