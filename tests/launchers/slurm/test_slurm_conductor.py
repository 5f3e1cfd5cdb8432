"""Workflows conducted on a Slurm that forgets, refuses and is silent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from toy_slurm import FakeSlurm

from launchers.slurm import conductor as conductor_module
from launchers.slurm.conductor import Conductor
from launchers.slurm.ends import Ending, Usage
from launchers.slurm.jobs import Element, Job, JobState, Request
from launchers.slurm.plan import Plan
from launchers.slurm.queue import Accounted
from launchers.slurm.record import Record
from launchers.slurm.refusals import MOST
from launchers.slurm.store import JobStore
from resources.errors import Rejected, Retriable

FACTS = {"name": "w", "user": "me", "poll_s": 0.0, "most_jobs": None, "dispatcher": []}


class World:
    """A workflow, its folder and its Slurm."""

    def __init__(self, folder: Path, jobs: Sequence[Job], *, requests: Sequence[Request] = (), **facts) -> None:
        self.store = JobStore(folder)
        requests = requests or [Request("j", memory_mb=100, memory_multiplier=2.0, retries=2, no_retry_codes=(1,))]
        self.store.create(Plan(jobs, requests), ["true\n"] * len(jobs), {**FACTS, **facts})
        self.slurm = FakeSlurm(folder)
        self.conductor = self.successor()

    def successor(self) -> Conductor:
        """Somebody else who conducts after a death."""
        return Conductor(JobStore(self.store.submit_path), self.slurm)  # type: ignore[arg-type]

    def park(self) -> None:
        self.conductor.submissions.park(self.slurm.queue())
        self.conductor.release_ready()

    def turn(self, conductor: Conductor | None = None) -> None:
        conductor = conductor or self.conductor
        conductor.look()
        conductor.reconcile(self.slurm.queue())
        conductor.act()

    def element(self, name: str) -> Element:
        (found,) = [job.element for job in self.conductor.plan.jobs if job.name == name]
        assert found is not None
        return found

    def end(self, name: str, code: int | None, state: str = "") -> None:
        """End a job: with what it leaves behind, unless the code is None, and as Slurm says."""
        element = self.element(name)
        if code is not None:
            mark = self.store.submit_path / "ended" / f"{element}.0"
            mark.write_text(f"code {code}\nnode n1\nmemory 1048576\n0m0.0s 0m0.0s\n0m1.0s 0m0.5s\n")
        self.slurm.put(element, state or ("FAILED" if code else "COMPLETED"), status=(code or 0) << 8)

    @property
    def states(self) -> dict[str, str]:
        return {job.name: job.state.name for job in self.conductor.plan.jobs}


def chain() -> list[Job]:
    return [
        Job("a", "j", place=0),
        Job("b", "j", place=1, parents=(0,)),
        Job("c", "j", place=2),
        Job("final", "j", place=3, is_final=True),
    ]


@pytest.fixture
def world(tmp_path) -> Callable[..., World]:
    def make(jobs: Sequence[Job] | None = None, **changes) -> World:
        return World(tmp_path / "submit", chain() if jobs is None else jobs, **changes)

    return make


def test_a_block_is_one_array_and_what_waits_for_nobody_is_released(world):
    w = world()

    w.park()

    (options,) = w.slurm.submissions
    assert "--array=0-3" in options
    assert "--hold" in options
    assert w.states == {"a": "PENDING", "b": "UNREADY", "c": "PENDING", "final": "UNREADY"}
    held = {element.task for element, queued in w.slurm.elements.items() if queued.alive is JobState.HELD}
    assert held == {1, 3}


def test_a_job_is_released_when_its_parents_say_that_they_succeeded(world):
    w = world()
    w.park()

    w.end("a", 0)
    w.conductor.look()
    w.conductor.act()

    assert w.states["b"] == "PENDING"
    assert w.slurm.elements[w.element("b")].alive is JobState.PENDING


def test_a_failed_job_has_its_descendants_cancelled_and_nobody_elses(world):
    w = world()
    w.park()

    w.end("a", 1)
    w.turn()

    assert w.states == {"a": "FAILED", "b": "PRUNED", "c": "PENDING", "final": "UNREADY"}
    assert w.slurm.elements[w.element("b")].state.startswith("CANCELLED")
    assert w.slurm.elements[w.element("c")].alive is JobState.PENDING


def test_what_runs_when_a_job_aborts_the_workflow_is_cancelled_before_the_final_job_runs(world):
    w = world(requests=[Request("j", abort_code=9, retries=2)])
    w.park()
    w.slurm.put(w.element("c"), "RUNNING")

    w.end("a", 9)
    w.turn()

    assert w.states == {"a": "FAILED", "b": "DELETED", "c": "RUNNING", "final": "UNREADY"}
    alive = {element for element, queued in w.slurm.elements.items() if not queued.is_over}
    assert alive == {w.element("final")}
    w.turn()
    assert w.states == {"a": "FAILED", "b": "DELETED", "c": "DELETED", "final": "PENDING"}
    w.end("final", 0)
    w.turn()
    assert w.conductor.is_over
    assert (
        "a: attempt 1 failed (exit code 9); it aborts the workflow" in (w.store.submit_path / "events.log").read_text()
    )


def test_a_workflow_that_was_aborted_is_cancelled_by_whoever_conducts_it_next(world):
    w = world(requests=[Request("j", abort_code=9, retries=2)])
    w.park()
    w.slurm.put(w.element("c"), "RUNNING")
    w.end("a", 9)
    cancel, w.slurm.cancel_elements = w.slurm.cancel_elements, lambda elements: None
    w.turn()
    w.slurm.cancel_elements = cancel

    w.turn(w.successor())

    assert w.slurm.elements[w.element("c")].is_over


def test_a_job_out_of_memory_is_submitted_again_with_more(world):
    w = world()
    w.park()

    w.end("a", 137, "OUT_OF_MEMORY")
    w.turn()

    assert "--mem=200M" in w.slurm.submissions[-1]
    assert "--array=0" in w.slurm.submissions[-1]
    assert "--hold" not in w.slurm.submissions[-1]
    assert "tried again with 200 MB" in (w.store.submit_path / "events.log").read_text()


def test_the_end_is_written_down_with_what_accounting_knows_of_the_silent(world):
    w = world([Job("a", "j"), Job("final", "j", place=1, is_final=True)], requests=[Request("j")])
    w.park()
    w.end("a", None, "NODE_FAIL")
    w.slurm.accounted[w.element("a")] = Accounted("NODE_FAIL", 0, Usage(60.0, 500.0, "n2"))
    w.turn()
    w.end("final", 0)
    w.turn()

    assert w.conductor.is_over
    plan, facts = w.store.read()
    assert facts["ended_at"]
    assert plan.jobs[0].usage == Usage(60.0, 500.0, "n2")
    assert plan.jobs[1].usage == Usage(1.5, 1.0, "n1")


def test_the_node_of_a_job_that_was_killed_is_what_the_queue_says_and_accounting_knows_the_rest(world):
    w = world([Job("a", "j"), Job("final", "j", place=1, is_final=True)], requests=[Request("j")])
    w.park()
    w.slurm.put(w.element("a"), "TIMEOUT", node="n3")
    w.turn()
    assert w.store.read()[0].jobs[0].usage == Usage(node="n3")

    w.slurm.accounted[w.element("a")] = Accounted("TIMEOUT", 0, Usage(60.0, 500.0, "n3"))
    w.end("final", 0)
    w.turn()

    assert w.store.read()[0].jobs[0].usage == Usage(60.0, 500.0, "n3")


@pytest.mark.parametrize("is_hidden", [True, False])
def test_what_a_job_left_behind_counts_although_slurm_said_first_that_it_was_over(world, monkeypatch, is_hidden):
    w = world()
    w.park()
    monkeypatch.setattr(JobStore, "has_new_marks", lambda _: not is_hidden)
    if not is_hidden:
        w.slurm.put(w.element("a"), "COMPLETED", node="n1")
        w.turn()
    w.end("a", 0)

    w.turn()

    assert w.store.read()[0].jobs[0].usage == Usage(1.5, 1.0, "n1")
    w.turn(w.successor())
    assert w.store.read()[0].jobs[0].usage == Usage(1.5, 1.0, "n1")


def test_what_a_job_left_behind_counts_although_slurm_has_forgotten_it(world, monkeypatch):
    monkeypatch.setattr(conductor_module, "_MISSING_S", 0.0)
    monkeypatch.setattr(JobStore, "has_new_marks", lambda _: False)
    w = world()
    w.park()
    w.end("a", 0)
    del w.slurm.elements[w.element("a")]

    w.turn()

    assert (w.states["a"], w.conductor.plan.jobs[0].usage.cpu_s) == ("SUCCEEDED", 1.5)


@pytest.mark.parametrize("dies", [True, False])
def test_accounting_tells_what_attempts_took_that_were_killed_and_tried_again(world, dies):
    w = world([Job("a", "j"), Job("final", "j", place=1, is_final=True)])
    w.park()
    killed = w.element("a")
    w.end("a", None, "OUT_OF_MEMORY")
    w.slurm.accounted[killed] = Accounted("OUT_OF_MEMORY", 0, Usage(36000.0, 100.0, "n1"))
    w.turn()
    if dies:
        w.conductor = w.successor()
    w.end("a", 0)
    w.turn()
    w.end("final", 0)
    w.turn()

    assert w.conductor.is_over
    assert w.store.read()[0].jobs[0].usage == Usage(36001.5, 100.0, "n1")


def test_accounting_tells_the_memory_that_a_job_could_not_see(world):
    w = world([Job("a", "j")])
    w.park()
    w.end("a", 0)
    mark = w.store.submit_path / "ended" / f"{w.element('a')}.0"
    mark.write_text(mark.read_text().replace("memory 1048576", "memory 0"))
    w.slurm.accounted[w.element("a")] = Accounted("COMPLETED", 0, Usage(2.0, 900.0, "n1"))

    w.turn()

    assert w.conductor.is_over
    assert w.store.read()[0].jobs[0].usage == Usage(1.5, 900.0, "n1")


def test_a_block_larger_than_an_array_is_several(world):
    FakeSlurmSmall = type("FakeSlurmSmall", (FakeSlurm,), {"array_size": 3})
    w = world([Job(f"j{n}", "j", place=n) for n in range(7)])
    w.slurm.__class__ = FakeSlurmSmall

    w.park()

    arrays = [next(option for option in each if "--array" in option) for each in w.slurm.submissions]
    assert arrays == ["--array=0-2", "--array=0-2", "--array=0"]


def test_what_slurm_has_no_room_for_is_submitted_when_there_is(world):
    w = world([Job(f"j{n}", "j", place=n) for n in range(5)], most_jobs=3)
    w.park()
    assert w.slurm.submissions == []

    w.turn()
    assert set(w.states.values()) == {"PENDING", "READY"}
    w.slurm.elements.clear()
    for job in w.conductor.plan.jobs[:3]:
        (w.store.submit_path / "ended" / f"{job.element}.0").write_text("code 0\n")
    w.turn()

    assert list(w.states.values()) == ["SUCCEEDED"] * 3 + ["PENDING"] * 2


class LimitedSlurm(FakeSlurm):
    """Takes only so many jobs at a time, and doesn't say how many."""

    most = 7
    refused = 0

    def submit(self, options: Sequence[str], script: Sequence[str]) -> int:
        before = dict(self.elements)
        array = super().submit(options, script)
        if sum(not queued.is_over for queued in self.elements.values()) > self.most:
            self.elements, self.refused = before, self.refused + 1
            raise Rejected("Slurm refuses: AssocMaxSubmitJobLimit")
        return array


@pytest.mark.parametrize("most", [3, 7, 70])
def test_under_a_limit_that_it_does_not_know_a_workflow_is_submitted_in_pieces(world, most):
    jobs = [Job(f"a{n}", "j", place=n) for n in range(50)]
    jobs += [Job(f"b{n}", "j", block=1, place=n, parents=(n,)) for n in range(50)]
    w = world([*jobs, Job("final", "j", place=50, is_final=True)], requests=[Request("j"), Request("j")])
    w.slurm.__class__ = LimitedSlurm
    w.slurm.most = most
    w.park()

    for _ in range(150):
        w.turn()
        going = {element for element, queued in w.slurm.elements.items() if queued.alive is JobState.PENDING}
        for job in w.conductor.plan.jobs:
            if job.element in going and job.state.is_with_slurm:
                w.end(job.name, 0)

    assert w.conductor.is_over
    assert set(w.states.values()) == {"SUCCEEDED"}
    assert w.store.read_facts()["trouble"] == ""
    assert w.slurm.refused <= 50


def test_a_conductor_that_dies_before_it_can_write_has_submitted_nothing_twice(world, monkeypatch):
    w = world()
    monkeypatch.setattr(Record, "place", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        w.park()
    monkeypatch.undo()
    assert len(w.slurm.submissions) == 1

    w.conductor = w.successor()
    w.turn()

    assert len(w.slurm.submissions) == 1
    assert w.states == {"a": "PENDING", "b": "UNREADY", "c": "PENDING", "final": "UNREADY"}


@pytest.mark.parametrize("code", [0, 137, None])
def test_what_was_released_and_has_ended_before_its_releaser_could_write_so_is_not_done_again(world, monkeypatch, code):
    monkeypatch.setattr(conductor_module, "_MISSING_S", 0.0)
    w = world(requests=[Request("j")])
    monkeypatch.setattr(Plan, "released", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        w.park()
    monkeypatch.undo()
    for name in "ac":
        w.end(name, code)
        element, ended = w.element(name), "FAILED" if code else "COMPLETED"
        w.slurm.accounted[element] = Accounted(ended, (code or 0) << 8, Usage(1.0))
        del w.slurm.elements[element]

    w.conductor = w.successor()
    w.turn()

    assert len(w.slurm.submissions) == 1
    ended, after = ("FAILED", "PRUNED") if code else ("SUCCEEDED", "PENDING")
    assert w.states == {"a": ended, "b": after, "c": ended, "final": "PENDING" if code else "UNREADY"}
    assert w.conductor.plan.jobs[0].exit_code == (code or 0)


def test_a_job_that_slurm_has_lost_is_tried_again_after_a_while(world, monkeypatch):
    w = world()
    w.park()
    del w.slurm.elements[w.element("a")]
    w.turn()
    assert w.states["a"] == "PENDING"

    monkeypatch.setattr(conductor_module, "_MISSING_S", 0.0)
    w.turn()

    assert w.conductor.plan.jobs[0].attempt == 2
    assert len(w.slurm.submissions) == 2


def test_a_parked_job_that_slurm_has_lost_is_submitted_when_it_is_ready(world, monkeypatch):
    monkeypatch.setattr(conductor_module, "_MISSING_S", 0.0)
    w = world()
    w.park()
    del w.slurm.elements[w.element("b")]
    w.turn()

    w.end("a", 0)
    w.turn()

    assert (w.states["b"], w.conductor.plan.jobs[1].attempt) == ("PENDING", 1)


def test_a_job_that_slurm_puts_back_although_it_has_succeeded_is_cancelled(world):
    w = world()
    w.park()
    w.end("a", 0)
    w.conductor.look()
    w.slurm.put(w.element("a"), "PENDING", reason="BeginTime", restarts=1)

    w.turn()

    assert w.states["a"] == "SUCCEEDED"
    assert w.slurm.elements[w.element("a")].state.startswith("CANCELLED")


def test_a_job_that_an_operator_holds_is_said_to_be_held(world):
    w = world()
    w.park()
    w.slurm.put(w.element("a"), "PENDING", reason="JobHeldAdmin")

    w.turn()

    assert w.states["a"] == "HELD"


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize(("reason", "restarts"), [("JobHeldUser", 0), ("launch failed requeued held", 1)])
def test_a_job_whose_release_is_forgotten_or_whose_node_could_not_start_it_is_let_go_again(
    world, reason, restarts, is_new
):
    w = world()
    w.park()
    w.slurm.put(w.element("a"), "PENDING", reason=reason, restarts=restarts)

    w.turn(w.successor() if is_new else None)

    assert w.slurm.elements[w.element("a")].alive is JobState.PENDING
    w.turn()
    assert w.states["a"] == "PENDING"


def test_a_job_that_no_node_can_start_waits_for_a_person(world):
    w = world()
    w.park()
    w.slurm.put(w.element("a"), "PENDING", reason="launch failed requeued held", restarts=6)

    w.turn()

    assert w.states["a"] == "HELD"
    assert w.slurm.elements[w.element("a")].alive is JobState.HELD


def test_a_number_that_slurm_gives_out_again_is_another_job(world, monkeypatch):
    monkeypatch.setattr(conductor_module, "_MISSING_S", 0.0)
    w = world()
    w.park()
    lost = w.element("a")
    w.slurm.put(lost, "COMPLETED", comment="bps.7.0.1")

    w.turn()
    w.turn()

    assert w.element("a") != lost
    assert w.states["a"] == "PENDING"


def test_a_release_that_slurm_did_not_hear_is_repeated(world, monkeypatch):
    w = world()
    w.park()
    release = w.slurm.release
    monkeypatch.setattr(w.slurm, "release", lambda *_: (_ for _ in ()).throw(Retriable("Slurm doesn't answer")))
    w.end("a", 0)
    w.turn()
    assert w.states["b"] == "READY"
    assert w.store.read_facts()["trouble"] == "Slurm doesn't answer"

    monkeypatch.setattr(w.slurm, "release", release)
    w.turn()

    assert w.states["b"] == "PENDING"
    assert w.slurm.elements[w.element("b")].alive is JobState.PENDING


def test_a_job_whose_release_is_forgotten_is_let_go_again_however_long_slurm_was_away(world, monkeypatch):
    monkeypatch.setattr(conductor_module, "_FORGETS_S", 0.0)
    w = world()
    w.park()
    w.slurm.put(w.element("a"), "PENDING", reason="JobHeldUser")

    w.turn()

    assert w.slurm.elements[w.element("a")].alive is JobState.PENDING


def test_a_job_that_its_owner_holds_later_stays_held(world, monkeypatch):
    monkeypatch.setattr(conductor_module, "_FORGETS_S", 0.0)
    w = world()
    w.park()
    w.turn()
    w.slurm.put(w.element("a"), "PENDING", reason="JobHeldUser")

    w.turn()

    assert w.states["a"] == "HELD"
    assert w.slurm.elements[w.element("a")].alive is JobState.HELD


def test_a_job_that_its_owner_holds_stays_held_when_all_others_of_its_array_are_let(world, monkeypatch):
    monkeypatch.setattr(conductor_module, "_FORGETS_S", 0.0)
    jobs = [Job("a", "j"), Job("b", "j", place=1), Job("c", "j", place=2, parents=(0,))]
    w = world(jobs)
    w.park()
    w.turn()
    w.slurm.put(w.element("b"), "PENDING", reason="JobHeldUser")
    w.turn()

    w.end("a", 0)
    w.turn()

    assert w.states == {"a": "SUCCEEDED", "b": "HELD", "c": "PENDING"}
    assert w.slurm.elements[w.element("b")].alive is JobState.HELD


@pytest.mark.parametrize("trouble", [Rejected("Slurm refuses: no"), Retriable("Slurm doesn't answer")])
def test_what_slurm_does_not_do_is_said_and_tried_again(world, trouble):
    w = world()
    w.park()
    w.end("a", 137, "OUT_OF_MEMORY")
    w.slurm.trouble = trouble

    w.turn()
    assert w.states["a"] == "READY"
    assert w.store.read_facts()["trouble"] == str(trouble)

    w.slurm.trouble = None
    w.turn()
    assert w.states["a"] == "PENDING"
    assert w.store.read_facts()["trouble"] == ""


def test_a_job_that_slurm_takes_no_more_fails_with_its_reason_and_the_workflow_ends(world):
    w = world()
    w.park()
    w.end("a", 137, "OUT_OF_MEMORY")
    w.end("c", 0)
    w.slurm.trouble = Rejected("Slurm refuses: Memory specification can not be satisfied", "sbatch")

    for _ in range(MOST):
        assert w.states["a"] != "FAILED"
        w.turn()

    assert w.states == {"a": "FAILED", "b": "PRUNED", "c": "SUCCEEDED", "final": "READY"}
    refused = w.conductor.plan.jobs[0]
    assert (refused.ending, refused.exit_code, refused.attempt) == (Ending.REFUSED, 137, 1)
    log = w.store.log(refused, refused.attempt).read_text()
    assert "Slurm refuses: Memory specification can not be satisfied" in log
    w.turn()
    w.end("final", 0)
    w.turn()
    assert w.conductor.is_over
    assert w.store.read()[0].jobs == w.conductor.plan.jobs


def test_what_slurm_refuses_of_one_job_keeps_no_other_from_being_submitted(world, monkeypatch):
    w = world([Job("a", "j"), Job("b", "k", block=1)], requests=[Request("j", retries=2), Request("k", retries=2)])
    w.park()
    submit = w.slurm.submit

    def refuse_the_first(options: Sequence[str], script: Sequence[str]) -> int:
        if "--job-name=w.j" in options:
            raise Rejected("Slurm refuses: no")
        return submit(options, script)

    monkeypatch.setattr(w.slurm, "submit", refuse_the_first)
    w.end("a", 137)
    w.end("b", 137)
    w.turn()

    assert w.states == {"a": "READY", "b": "PENDING"}
    assert w.store.read_facts()["trouble"] == "Slurm refuses: no"


def test_what_slurm_may_have_heard_is_looked_for_before_it_is_submitted_again(world, monkeypatch):
    w = world()
    w.park()
    w.end("a", 137, "OUT_OF_MEMORY")
    submit = w.slurm.submit

    def fall_silent(options: Sequence[str], script: Sequence[str]) -> int:
        submit(options, script)
        raise Retriable("Slurm doesn't answer")

    monkeypatch.setattr(w.slurm, "submit", fall_silent)
    w.turn()
    monkeypatch.setattr(w.slurm, "submit", submit)
    w.conductor.act()
    w.turn()

    assert len(w.slurm.submissions) == 2
    assert w.states["a"] == "PENDING"


def test_cancelling_ends_everything_in_slurm_and_in_the_record(world):
    w = world()
    w.park()
    w.end("c", 0)
    w.store.ask_to_cancel()

    w.turn()

    assert w.conductor.is_over
    assert w.states == {"a": "DELETED", "b": "DELETED", "c": "SUCCEEDED", "final": "DELETED"}
    assert all(queued.is_over for queued in w.slurm.elements.values())


def test_a_script_that_cannot_be_read_on_a_node_is_explained(world):
    w = world(requests=[Request("j")])
    w.park()

    w.end("a", 90)
    w.turn()

    assert "is the submit folder on a file system that nodes share?" in (w.store.submit_path / "events.log").read_text()


@given(st.data())
def test_whoever_conducts_and_however_often_he_dies_the_end_is_the_same(tmp_path_factory, data):
    w = World(tmp_path_factory.mktemp("w") / "submit", chain())
    w.park()
    failing = data.draw(st.sets(st.sampled_from("abc")))
    for _ in range(40):
        w.turn()
        if w.conductor.is_over:
            break
        if data.draw(st.booleans()):
            w.conductor = w.successor()
        going = [job for job in w.conductor.plan.jobs if job.state.is_with_slurm]
        for job in going:
            if data.draw(st.booleans()):
                w.end(job.name, int(job.name in failing))

    expected = {"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "SUCCEEDED", "final": "SUCCEEDED"}
    expected |= dict.fromkeys(failing, "FAILED")
    expected |= {"b": "PRUNED"} if "a" in failing else {}
    if w.conductor.is_over:
        assert w.states == expected
        assert len(w.slurm.submissions) == 1
    else:
        assert any(state in {"PENDING", "RUNNING"} for state in w.states.values())
