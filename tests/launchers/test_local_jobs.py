import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.local.jobs import TRANSITIONS, Job, JobState, Plan


def states(plan: Plan) -> dict[str, str]:
    return {name: job.state.name for name, job in plan.jobs.items()}


def run(plan: Plan, name: str, exit_code: int = 0) -> None:
    plan.started(name)
    plan.ended(name, exit_code)


def diamond(**changes) -> Plan:
    plan = Plan(
        [
            Job("a", "a", **changes),
            Job("b", "b", parents=("a",)),
            Job("c", "c"),
            Job("d", "d", parents=("b", "c")),
            Job("e", "e", parents=("c",)),
            Job("final", "finalJob", is_final=True),
        ]
    )
    plan.settle()
    return plan


def test_jobs_without_parents_are_ready_at_once():
    assert [job.name for job in diamond().startable(8, None)] == ["a", "c"]


def test_a_failed_job_blocks_its_descendants_and_nobody_else():
    plan = diamond()
    run(plan, "a", exit_code=1)
    run(plan, "c")
    run(plan, "e")

    assert states(plan) == {
        "a": "FAILED",
        "b": "PRUNED",
        "c": "SUCCEEDED",
        "d": "PRUNED",
        "e": "SUCCEEDED",
        "final": "READY",
    }


def test_the_final_job_waits_for_all_others_and_always_comes():
    plan = diamond()
    run(plan, "a", exit_code=1)
    assert plan.jobs["final"].state is JobState.UNREADY

    run(plan, "c", exit_code=1)

    assert plan.jobs["final"].state is JobState.READY


def test_a_killed_job_is_tried_again_as_often_as_allowed():
    plan = diamond(retries=2)
    for _ in range(2):
        run(plan, "a", exit_code=137)
        assert plan.jobs["a"].state is JobState.READY

    run(plan, "a", exit_code=137)

    assert (plan.jobs["a"].state, plan.jobs["a"].attempt) == (JobState.FAILED, 3)


def test_an_attempt_that_never_began_does_not_count():
    plan = diamond(retries=0)
    plan.started("a")

    plan.not_started("a")

    assert (plan.jobs["a"].state, plan.jobs["a"].attempt) == (JobState.READY, 0)


def test_an_exit_code_that_means_a_real_failure_is_not_tried_again():
    plan = diamond(retries=2, no_retry_codes=frozenset({1, 2}))

    run(plan, "a", exit_code=1)

    assert plan.jobs["a"].state is JobState.FAILED


def test_the_abort_code_ends_the_workflow_but_for_its_final_job():
    plan = diamond(abort_code=9, retries=3)
    plan.started("c")

    run(plan, "a", exit_code=9)

    assert states(plan) == {"a": "FAILED"} | dict.fromkeys("bcde", "DELETED") | {"final": "READY"}


def test_a_job_that_only_waits_runs_although_the_other_failed():
    plan = Plan([Job("a", "a"), Job("b", "b", waits_for=("a",))])
    plan.settle()

    run(plan, "a", exit_code=1)

    assert plan.jobs["b"].state is JobState.READY


def test_a_node_without_a_command_passes_success_on():
    plan = Plan(
        [Job("a", "a"), Job("gate", "gate", parents=("a",), has_command=False), Job("b", "b", parents=("gate",))]
    )
    plan.settle()

    run(plan, "a")

    assert plan.jobs["b"].state is JobState.READY


def test_jobs_take_no_more_cores_than_there_are():
    plan = Plan([Job("a", "a", cpus=2), Job("b", "b"), Job("c", "c")])
    plan.settle()

    assert [job.name for job in plan.startable(3, None)] == ["a", "b"]


def test_jobs_take_no_more_memory_than_there_is():
    plan = Plan([Job("a", "a", memory_mb=3000), Job("b", "b", memory_mb=3000)])
    plan.settle()

    assert [job.name for job in plan.startable(8, 4000)] == ["a"]


def test_a_job_too_big_for_the_machine_runs_alone():
    plan = Plan([Job("a", "a", cpus=16), Job("b", "b")])
    plan.settle()

    assert [job.name for job in plan.startable(2, None)] == ["a"]


def test_restart_does_again_what_did_not_succeed():
    plan = diamond()
    run(plan, "c")
    run(plan, "e")
    run(plan, "a", exit_code=1)
    run(plan, "final")

    plan.restart()

    assert states(plan) == {
        "a": "READY",
        "b": "UNREADY",
        "c": "SUCCEEDED",
        "d": "UNREADY",
        "e": "SUCCEEDED",
        "final": "UNREADY",
    }


@pytest.mark.parametrize("runs", [False, True])
def test_a_final_job_that_came_too_early_waits_for_what_is_done_again(runs):
    plan = Plan([Job("a", "a"), Job("final", "finalJob", is_final=True)])
    plan.settle()
    run(plan, "a", exit_code=1)
    if runs:
        plan.started("final")

    plan.restart()

    assert states(plan) == {"a": "READY", "final": "UNREADY"}


def test_nothing_is_done_again_of_what_has_succeeded():
    plan = Plan([Job("a", "a"), Job("final", "finalJob", is_final=True)])
    plan.settle()
    run(plan, "a")
    run(plan, "final")

    assert plan.restart() == []
    assert plan.is_over


def test_a_final_job_that_runs_goes_on_where_nothing_is_done_again():
    plan = Plan([Job("a", "a"), Job("final", "finalJob", is_final=True)])
    plan.settle()
    run(plan, "a")
    plan.started("final")

    assert plan.restart() == []
    assert states(plan) == {"a": "SUCCEEDED", "final": "RUNNING"}


def test_cancelling_leaves_what_is_over_as_it_is():
    plan = diamond()
    run(plan, "c")

    plan.cancel()

    assert states(plan) == dict.fromkeys("abde", "DELETED") | {"c": "SUCCEEDED", "final": "DELETED"}


def test_a_transition_that_the_table_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="UNREADY cannot become SUCCEEDED"):
        Job("a", "a").moved(JobState.SUCCEEDED)


@st.composite
def plans(draw) -> Plan:
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 8))):
        names = [job.name for job in jobs]
        jobs.append(
            Job(
                f"j{number}",
                "j",
                parents=tuple(draw(st.lists(st.sampled_from(names), unique=True))) if names else (),
                cpus=draw(st.integers(1, 3)),
                retries=draw(st.integers(0, 2)),
                no_retry_codes=frozenset({1}),
                has_command=draw(st.integers(0, 5)) > 0,
            )
        )
    return Plan([*jobs, Job("final", "final", is_final=True)])


@given(plans(), st.data())
def test_every_workflow_ends_with_its_final_job_and_by_the_table(plan, data):
    before = dict(plan.jobs)
    changes = plan.settle()
    while not plan.is_over:
        ready = plan.startable(2, None)
        running = [job for job in plan.jobs.values() if job.state is JobState.RUNNING]
        assert ready or running
        for job in ready:
            changes += plan.started(job.name)
        job = data.draw(st.sampled_from([*running, *ready]))
        changes += plan.ended(job.name, data.draw(st.sampled_from([0, 1, 137])))

    assert plan.jobs["final"].attempt >= 1
    for job in plan.jobs.values():
        parents = [plan.jobs[name].state for name in job.parents]
        pruned = any(state is not JobState.SUCCEEDED for state in parents)
        assert pruned == (job.state is JobState.PRUNED)
        assert job.attempt <= job.retries + 1
    # What was reported as changed is all that a store needs to know.
    assert before | {job.name: job for job in changes} == dict(plan.jobs)


@given(plans(), st.data())
def test_a_plan_read_back_from_any_moment_goes_on_to_the_same_end(plan, data):
    plan.settle()
    for _ in range(data.draw(st.integers(0, 6))):
        for job in plan.startable(2, None):
            plan.started(job.name)
        running = [job.name for job in plan.jobs.values() if job.state is JobState.RUNNING]
        if running:
            plan.ended(data.draw(st.sampled_from(running)), data.draw(st.sampled_from([0, 1])))

    copy = Plan(plan.jobs.values())
    for each in (plan, copy):
        each.settle()
        while not each.is_over:
            for job in each.startable(2, None):
                each.started(job.name)
            for job in list(each.jobs.values()):
                if job.state is JobState.RUNNING:
                    each.ended(job.name, 0)

    assert states(plan) == states(copy)


def test_every_state_has_a_row_in_the_table():
    assert set(TRANSITIONS) == set(JobState)
