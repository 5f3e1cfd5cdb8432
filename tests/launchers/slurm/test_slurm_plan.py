import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.slurm.ends import End, Ending, Mark, Usage
from launchers.slurm.jobs import Element, Job, JobState, Request
from launchers.slurm.plan import Plan

SUCCEEDED = End(Ending.SUCCEEDED, 0)
EVIL = End(Ending.FAILED, 1)
KILLED = End(Ending.FAILED, 137)
OUT_OF_MEMORY = End(Ending.OUT_OF_MEMORY, 137)
A, B, C, D, E, FINAL = range(6)
arrays = itertools.count(100)


def states(plan: Plan) -> str:
    """First letters of the jobs' states, in their order."""
    return "".join(job.state.name[:2].lower() + " " for job in plan.jobs).strip()


def run(plan: Plan, position: int, end: End = SUCCEEDED) -> None:
    if plan.jobs[position].is_parked:
        plan.released([position])
    else:
        plan.placed({position: Element(next(arrays), 0)}, parked=False)
    plan.seen(position, JobState.RUNNING)
    plan.ended(position, end)


def diamond(**asked) -> Plan:
    request = Request("j", memory_mb=1000, memory_multiplier=2.0, memory_limit_mb=3000, no_retry_codes=(1, 2))
    plan = Plan(
        [
            Job("a", "j", place=0),
            Job("b", "j", place=1, parents=(A,)),
            Job("c", "j", place=2),
            Job("d", "j", place=3, parents=(B, C)),
            Job("e", "j", place=4, parents=(C,)),
            Job("final", "finalJob", place=5, is_final=True),
        ],
        [dataclasses.replace(request, **asked)],
    )
    plan.settle()
    return plan


def test_jobs_without_parents_are_ready_at_once():
    assert states(diamond()) == "re un re un un un"


def test_a_parked_job_waits_for_its_parents_and_is_released():
    plan = diamond()
    plan.placed({B: Element(7, 1)}, parked=True)
    assert plan.jobs[B].state is JobState.UNREADY

    run(plan, A)
    assert plan.jobs[B].state is JobState.READY
    plan.released([B])

    assert (plan.jobs[B].state, plan.jobs[B].attempt) == (JobState.PENDING, 1)


def test_a_failed_job_blocks_its_descendants_and_nobody_else():
    plan = diamond()
    run(plan, A, EVIL)
    run(plan, C)
    run(plan, E)

    assert states(plan) == "fa pr su pr su re"


def test_the_final_job_waits_for_all_others_and_always_comes():
    plan = diamond()
    run(plan, A, EVIL)
    assert plan.jobs[FINAL].state is JobState.UNREADY

    run(plan, C, EVIL)

    assert plan.jobs[FINAL].state is JobState.READY


def test_a_killed_job_is_tried_again_as_often_as_allowed():
    plan = diamond(retries=2)
    for _ in range(2):
        run(plan, A, KILLED)
        assert plan.jobs[A].state is JobState.READY
        assert plan.memory_of(A) == 1000

    run(plan, A, KILLED)

    assert (plan.jobs[A].state, plan.jobs[A].attempt) == (JobState.FAILED, 3)


def test_an_exit_code_that_means_a_real_failure_is_not_tried_again():
    plan = diamond(retries=2)

    run(plan, A, EVIL)

    assert plan.jobs[A].state is JobState.FAILED


def test_a_job_out_of_memory_is_tried_again_with_more_until_there_is_no_more():
    plan = diamond(retries=5)
    asked = [plan.memory_of(A)]
    while plan.jobs[A].state is JobState.READY:
        run(plan, A, OUT_OF_MEMORY)
        asked.append(plan.memory_of(A))

    assert asked == [1000, 2000, 3000, 3000]
    assert plan.jobs[A].state is JobState.FAILED


@pytest.mark.parametrize("ending", [Ending.LOST_NODE, Ending.PREEMPTED, Ending.LOST, Ending.TIMEOUT])
def test_what_is_not_the_jobs_own_fault_is_tried_again_whatever_its_exit_code(ending):
    plan = diamond(retries=1)

    run(plan, A, End(ending, 1))

    assert plan.jobs[A].state is JobState.READY


def test_a_job_that_somebody_cancelled_is_not_tried_again_and_its_descendants_are_given_up():
    plan = diamond(retries=5)

    run(plan, C, End(Ending.CANCELLED, 143))

    assert states(plan) == "re un de pr pr un"


def test_a_parked_job_that_somebody_cancelled_is_gone():
    plan = diamond()
    plan.placed({E: Element(7, 4)}, parked=True)

    plan.taken_away(E)

    assert plan.jobs[E].state is JobState.DELETED


def test_the_abort_code_ends_the_workflow_but_for_its_final_job():
    plan = diamond(abort_code=9, retries=3)

    run(plan, A, End(Ending.FAILED, 9))

    assert states(plan) == "fa de de de de re"
    run(plan, FINAL)
    assert plan.is_over


def test_what_runs_when_the_workflow_is_aborted_is_waited_for_and_not_tried_again():
    plan = diamond(abort_code=9, retries=3)
    plan.placed({C: Element(7, 2)}, parked=False)
    plan.seen(C, JobState.RUNNING)

    run(plan, A, End(Ending.FAILED, 9))

    assert states(plan) == "fa de ru de de un"
    plan.ended(C, KILLED)
    assert states(plan) == "fa de fa de de re"


def test_a_record_of_an_aborted_workflow_says_so_until_it_is_restarted():
    plan = diamond(abort_code=9)
    run(plan, A, End(Ending.FAILED, 9))
    run(plan, FINAL)

    successor = Plan(plan.jobs, plan.blocks)

    assert successor.is_aborted
    successor.restart()
    assert not successor.is_aborted
    assert states(successor) == "re un re un un un"


def test_a_job_that_only_waits_runs_although_the_other_failed():
    plan = Plan([Job("a", "j"), Job("b", "j", waits_for=(A,))], [Request("j")])
    plan.settle()

    run(plan, A, EVIL)

    assert plan.jobs[B].state is JobState.READY


def test_a_node_without_a_command_passes_success_on():
    jobs = [Job("a", "j"), Job("gate", "gate", parents=(0,), has_command=False), Job("b", "j", parents=(1,))]
    plan = Plan(jobs, [Request("j")])
    plan.settle()

    run(plan, A)

    assert states(plan) == "su su re"


def test_a_job_that_slurm_puts_back_waits_again():
    plan = diamond()
    plan.placed({A: Element(7, 0)}, parked=False)
    plan.seen(A, JobState.RUNNING)

    plan.seen(A, JobState.PENDING)

    assert (plan.jobs[A].state, plan.jobs[A].attempt) == (JobState.PENDING, 1)


def test_a_parked_job_that_slurm_has_lost_is_submitted_anew_as_the_same_attempt():
    plan = diamond()
    plan.placed({B: Element(7, 1)}, parked=True)

    plan.unparked([B])

    assert (plan.jobs[B].element, plan.jobs[B].attempt, plan.jobs[B].is_parked) == (None, 0, False)


def test_what_attempts_took_is_added_up():
    plan = diamond(retries=1)
    run(plan, A, End(Ending.OUT_OF_MEMORY, 137, Mark(137, Usage(10.0, 1000.0, "n1"))))
    run(plan, A, End(Ending.SUCCEEDED, 0, Mark(0, Usage(5.0, 700.0, "n2"), quanta=3)))

    assert (plan.jobs[A].usage, plan.jobs[A].quanta) == (Usage(15.0, 1000.0, "n2"), 3)


def test_restart_does_again_what_did_not_succeed_with_the_memory_it_turned_out_to_need():
    plan = diamond(retries=1)
    run(plan, C)
    run(plan, E)
    run(plan, A, OUT_OF_MEMORY)
    run(plan, A, OUT_OF_MEMORY)
    run(plan, FINAL)
    assert states(plan) == "fa pr su pr su su"

    plan.restart()

    assert states(plan) == "re un su un su un"
    assert (plan.memory_of(A), plan.jobs[A].retries, plan.jobs[A].attempt) == (2000, 0, 2)


@pytest.mark.parametrize("far", ["ready", "parked", "pending", "running"])
def test_a_final_job_that_came_too_early_waits_for_what_is_done_again(far):
    plan = Plan([Job("a", "j"), Job("final", "finalJob", is_final=True)], [Request("j"), Request("finalJob")])
    plan.settle()
    if far == "parked":
        plan.placed({1: Element(7, 0)}, parked=True)
    run(plan, A, EVIL)
    if far in {"pending", "running"}:
        plan.placed({1: Element(7, 0)}, parked=False)
    if far == "running":
        plan.seen(1, JobState.RUNNING)

    plan.restart()

    assert states(plan) == "re un"
    assert not plan.jobs[1].is_in_slurm


def test_nothing_is_done_again_of_what_has_succeeded():
    plan = Plan([Job("a", "j"), Job("final", "finalJob", is_final=True)], [Request("j"), Request("finalJob")])
    plan.settle()
    run(plan, A)
    run(plan, 1)

    assert plan.restart() == []
    assert plan.is_over


def test_a_final_job_that_runs_goes_on_where_nothing_is_done_again():
    plan = Plan([Job("a", "j"), Job("final", "finalJob", is_final=True)], [Request("j"), Request("finalJob")])
    plan.settle()
    run(plan, A)
    plan.placed({1: Element(7, 0)}, parked=False)
    plan.seen(1, JobState.RUNNING)

    assert plan.restart() == []
    assert plan.jobs[1].is_in_slurm


def test_cancelling_leaves_what_is_over_as_it_is():
    plan = diamond()
    run(plan, C)

    plan.cancel()

    assert states(plan) == "de de su de de de"


@st.composite
def plans(draw) -> Plan:
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 8))):
        parents = draw(st.lists(st.sampled_from(range(number)), unique=True)) if number else []
        jobs.append(
            Job(f"j{number}", "j", place=number, parents=tuple(parents), has_command=draw(st.integers(0, 5)) > 0)
        )
    request = Request(
        "j", memory_mb=1, memory_multiplier=2, memory_limit_mb=4, retries=draw(st.integers(0, 3)), no_retry_codes=(1,)
    )
    return Plan([*jobs, Job("final", "final", is_final=True)], [request])


ENDS = st.sampled_from([SUCCEEDED, EVIL, KILLED, OUT_OF_MEMORY, End(Ending.LOST_NODE, 137), End(Ending.LOST, 137)])


@given(plans(), st.data())
def test_every_workflow_ends_with_its_final_job_and_by_the_table(plan, data):
    before = dict(enumerate(plan.jobs))
    changes = plan.settle()
    while not plan.is_over:
        ready = plan.in_state(JobState.READY)
        changes += plan.placed({position: Element(1, position) for position in ready}, parked=False)
        position = data.draw(st.sampled_from(plan.in_state(JobState.PENDING)))
        changes += plan.ended(position, data.draw(ENDS))

    assert plan.jobs[-1].attempt >= 1
    for job in plan.jobs:
        failed = any(plan.jobs[parent].state is not JobState.SUCCEEDED for parent in job.parents)
        assert failed == (job.state is JobState.PRUNED)
        assert job.attempt <= plan.blocks[0].retries + 1
    # What was reported as changed is all that a record needs to know.
    assert list((before | {position: plan.jobs[position] for position in changes}).values()) == plan.jobs
