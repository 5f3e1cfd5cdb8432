"""What failed is decided about, and done again: exactly that, on a real Butler with real processes."""

import dataclasses
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from lsst.daf.butler import Butler
from lsst.pipe.base.quantum_graph import ProvenanceQuantumGraph

TOY = Path(__file__).parents[1] / "launchers"
sys.path.insert(0, str(TOY))

from toy_repository import make_repository, make_request  # noqa: E402

from launchers import bps, warm, watch  # noqa: E402
from launchers.attempts import attempts_of  # noqa: E402
from launchers.casebook import Casebook  # noqa: E402
from launchers.causes import describe  # noqa: E402
from launchers.claiming import claim_attempt  # noqa: E402
from launchers.graph import build_graph  # noqa: E402
from launchers.local.store import JobStore  # noqa: E402
from launchers.outcome import Outcome, TaskOutcome  # noqa: E402
from launchers.processes import exclusive  # noqa: E402
from launchers.rescue import read_remains  # noqa: E402
from launchers.step_run import FailureRules, launch_and_watch, others_of, rescue_turn, run_step  # noqa: E402
from launchers.submission import StepRequest, SubmissionKey  # noqa: E402
from planning.policies import Action, FailurePolicy  # noqa: E402
from resources.errors import Rejected  # noqa: E402

pytestmark = pytest.mark.integration

FIRST, BAD = 2026110100001, 2026110200002
WORK = SubmissionKey("toy", "step1", ("20261101", "20261102"))


@pytest.fixture(scope="module")
def warm_state(tmp_path_factory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("warm")
    yield state
    warm.stop(state)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path, warm_state):
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    monkeypatch.setenv(warm.STATE_VARIABLE, str(warm_state))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


class World:
    """One repository and its submissions, each run of which is a Dagster run."""

    def __init__(self, folder: Path) -> None:
        self.root = make_repository(folder / "repo")
        self.submissions = folder / "submissions"
        self.ledger = f"sqlite:///{folder}/ledger.sqlite3"
        self.log: list[str] = []

    def run(
        self,
        *policies: FailurePolicy,
        rescue: bool = False,
        causes: tuple[str, ...] = (),
        day: str | None = None,
        asked: str = "everything",
        **behaviour: str,
    ) -> Outcome:
        """Run the step, or only its part for one day, with quanta that behave by ``x<exposure>_<detector>``."""
        by_quantum = {key[1:].replace("_", "-"): value for key, value in behaviour.items()}
        with closing(Casebook(self.ledger)) as casebook, dg.DagsterInstance.ephemeral() as instance:
            result: list[Outcome] = []

            @dg.op
            def step(context: dg.OpExecutionContext) -> None:
                key, folder = claim_attempt(
                    self.submissions,
                    WORK,
                    context.run_id,
                    is_rescue=rescue,
                    asked=asked,
                    others=others_of(context),
                )
                request = make_request(
                    self.root,
                    folder,
                    key=key,
                    # As a release's chain is: what was made before is found there.
                    input_collections=("toy", "numbers") if key.attempt > 1 else ("numbers",),
                    config_overrides=(f"double:behaviour={by_quantum}",),
                    quarantined=tuple(entry.data_id for entry in casebook.quarantined("toy")),
                    data_query="instrument = 'ToyCam'" + (f" AND exposure.day_obs = {day}" if day else ""),
                )
                rules = FailureRules(policies, casebook, self.submissions, rescue, causes)
                result.append(run_step(context, request, rules, poll_s=0.1))

            @dg.job
            def job() -> None:
                step()

            run = job.execute_in_process(instance=instance)
            self.log = [entry.user_message for entry in instance.all_logs(run.run_id)]
        return result[0]

    @property
    def casebook(self) -> Casebook:
        return Casebook(self.ledger)

    def quanta(self, attempt: int) -> set[tuple[str, int, int | None]]:
        """What an attempt did, as its provenance says: task, exposure, detector."""
        (folder,) = (a.folder for a in attempts_of(self.submissions, "toy", "step1") if a.key.attempt == attempt)
        with ProvenanceQuantumGraph.from_args(str(folder / "provenance.qg")) as (graph, _):
            return {
                (label, data_id["exposure"], data_id.get("detector"))
                for label, quanta in graph.quanta_by_task.items()
                for data_id in quanta
            }

    def settings(self, attempt: int) -> dict:
        (folder,) = (a.folder for a in attempts_of(self.submissions, "toy", "step1") if a.key.attempt == attempt)
        return yaml.safe_load((folder / "bps.yaml").read_text())

    def total(self, exposure: int) -> int:
        with Butler.from_config(self.root, collections="toy") as butler:
            return butler.get("toy_total", instrument="ToyCam", exposure=exposure)["value"]


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


ONE = {("double", FIRST, 1), ("square", FIRST, 1), ("sum", FIRST, None)}
"""A quantum of the first task, and all that depends on it."""


def test_a_rescue_does_exactly_what_one_bad_detector_of_one_exposure_has_left(world):
    broken = world.run(x2026110100001_1="raise")

    assert broken.tasks == {
        "double": TaskOutcome(8, 7, failed=1),
        "square": TaskOutcome(8, 7, blocked=1),
        "sum": TaskOutcome(4, 3, blocked=1),
    }
    (failure,) = broken.failures
    assert (failure.task, failure.exception, failure.message) == (
        "double",
        "toy_tasks.EvilData",
        "this exposure is evil",
    )
    (told,) = (line for line in world.log if line.startswith("1 double: toy_tasks.EvilData: this exposure is evil"))
    assert ": listed (otherwise); such as detector=1, exposure=2026110100001, instrument=ToyCam, " in told
    assert failure.memory_mb > 50
    assert told.endswith(f" {failure.memory_mb:.0f} MB, log {failure.log}")

    mended = world.run(rescue=True)

    assert world.quanta(2) == ONE
    assert mended.complete
    assert {label: task.succeeded for label, task in mended.tasks.items()} == {"double": 8, "square": 8, "sum": 4}
    assert all(each.count == each.expected for each in mended.datasets.values())
    assert world.total(FIRST) == 4 + 16
    # The run before it stays in the record.
    assert len(world.quanta(1)) == 20
    assert [attempt.is_rescue for attempt in attempts_of(world.submissions, "toy", "step1")] == [False, True]
    (case,) = world.casebook.cases("toy")
    assert (case.submission, case.action) == (f"{WORK.name}", "ignore")


def test_a_rescue_of_one_cause_leaves_the_others_and_what_depends_on_them(world):
    world.run(x2026110100001_1="raise", x2026110200002_0="raise otherwise")

    mended = world.run(rescue=True, causes=("EvilData",))

    assert world.quanta(2) == ONE
    assert mended.tasks["double"] == TaskOutcome(8, 7, failed=1)
    assert mended.tasks["sum"] == TaskOutcome(4, 3, blocked=1)
    assert [failure.exception for failure in mended.failures] == ["ValueError"]

    rest = world.run(rescue=True)

    assert {exposure for _, exposure, _ in world.quanta(3)} == {2026110200002}
    assert rest.complete


def test_a_rescue_for_a_cause_that_nothing_failed_for_is_refused(world):
    world.run(x2026110100001_1="raise")

    with pytest.raises(Rejected, match="nothing failed for that"):
        world.run(rescue=True, causes=("MemoryError",))


def test_a_rescue_with_nothing_left_to_do_says_what_is_there(world):
    world.run()

    assert world.run(rescue=True).complete


def test_a_rescue_of_one_partition_leaves_the_others_and_counts_together_with_all_that_was_done(world):
    world.run(x2026110100001_1="raise", x2026110200002_0="raise")

    first = world.run(rescue=True, day="20261101")

    assert world.quanta(2) == ONE
    assert first.tasks["double"] == TaskOutcome(8, 7, failed=1)
    assert first.tasks["sum"] == TaskOutcome(4, 3, blocked=1)
    assert [(failure.partition, failure.data_id["exposure"]) for failure in first.failures] == [("20261102", BAD)]
    assert first.datasets["toy_doubled", "20261101", ""].count == 4
    assert first.datasets["toy_doubled", "20261102", ""].count == 3
    before = attempts_of(world.submissions, "toy", "step1")
    request = make_request(world.root, before[0].folder)
    assert not read_remains(request, before, partitions=["20261101"]).quanta
    left = read_remains(request, before, partitions=["20261102"])
    assert len(left.outcome.failures) == 1
    assert {dict(data_id)["exposure"] for _, data_id in left.quanta} == {BAD}

    rest = world.run(rescue=True)

    assert {exposure for _, exposure, _ in world.quanta(3)} == {BAD}
    assert rest.complete
    assert not rest.failures
    assert all(each.count == each.expected for each in rest.datasets.values())


def test_rescues_of_the_same_work_take_their_turns(tmp_path):
    told: queue.Queue[str] = queue.Queue()
    begun = threading.Event()
    context = SimpleNamespace(log=SimpleNamespace(info=told.put), run_id="second", instance=None)

    def second() -> None:
        with rescue_turn(context, tmp_path, WORK):
            begun.set()

    first = SimpleNamespace(log=SimpleNamespace(info=told.put), run_id="first", instance=None)
    with rescue_turn(first, tmp_path, WORK), rescue_turn(first, tmp_path, dataclasses.replace(WORK, step="step2")):
        thread = threading.Thread(target=second)
        thread.start()
        assert told.get(timeout=120).startswith(f"{WORK.work} is rescued by run first, process {os.getpid()} on ")
        assert not begun.is_set()
    thread.join(timeout=120)
    assert begun.is_set()


def test_a_connection_that_failed_is_tried_again_by_itself(world, tmp_path):
    outcome = world.run(x2026110100001_1=f"raise once {tmp_path}/raised")

    assert outcome.complete
    assert world.quanta(2) == ONE
    (decision,) = describe(outcome.judgements)
    assert decision.startswith("1 double: ConnectionError: the store didn't answer: tried again (connection); such as ")
    assert [case.action for case in world.casebook.cases("toy")] == ["retry"]


def test_retries_come_to_an_end_and_what_is_left_is_done_as_the_policy_says(world):
    again = FailurePolicy(name="evil", exception="EvilData", action=Action.RETRY, attempts=2, then=Action.HOLD)

    outcome = world.run(again, x2026110100001_1="raise")

    assert len(outcome.held) == 1
    assert len(outcome.failures) == 1
    assert world.quanta(2) == ONE
    assert [case.action for case in world.casebook.cases("toy")] == ["hold", "retry"]
    assert len(attempts_of(world.submissions, "toy", "step1")) == 2


def cancel_when_it_runs(submissions: Path) -> None:
    while (
        not (attempts := attempts_of(submissions, "toy", "step1")) or (handle := bps.find(attempts[0].folder)) is None
    ):
        time.sleep(0.1)
    while not JobStore(attempts[0].folder / "submit").read_running():
        time.sleep(0.1)
    watch.cancel(handle)


def test_what_somebody_cancelled_in_the_batch_system_is_not_submitted_again(world):
    somebody = threading.Thread(target=cancel_when_it_runs, args=(world.submissions,))
    somebody.start()

    outcome = world.run(x2026110100001_1="hang")

    somebody.join()
    assert outcome.held == outcome.failures != ()
    assert {case.policy for case in world.casebook.cases("toy")} == {"cancelled"}
    assert len(attempts_of(world.submissions, "toy", "step1")) == 1


def until_taken_over(submissions: Path, then: Path) -> None:
    while not attempts_of(submissions, "toy", "step1")[0].former_runs:
        time.sleep(0.1)
    then.touch()


def leave_running(world: World, gate: Path, **changes) -> StepRequest:
    """Submit as a run did that is no more; its jobs go on when there is a gate."""
    key, folder = claim_attempt(world.submissions, WORK, "gone", asked="everything")
    behaviour = {f"{FIRST}-1": f"wait for {gate}"}
    request = make_request(world.root, folder, key=key, config_overrides=(f"double:behaviour={behaviour}",), **changes)
    bps.submit(request, build_graph(request))
    return request


def test_what_a_run_that_is_gone_has_left_running_is_watched_and_not_submitted_again(world, tmp_path):
    leave_running(world, tmp_path / "gate")
    gatekeeper = threading.Thread(target=until_taken_over, args=(world.submissions, tmp_path / "gate"))
    gatekeeper.start()

    outcome = world.run()

    gatekeeper.join()
    assert outcome.complete
    (attempt,) = attempts_of(world.submissions, "toy", "step1")
    assert attempt.former_runs == ("gone",)
    assert any("still runs, without run gone: watching it" in (line or "") for line in world.log)
    jobs = JobStore(attempt.folder / "submit").read_jobs()
    assert {job.attempt for job in jobs} == {1}


def test_a_rescue_keeps_away_from_what_still_runs(world, tmp_path):
    request = leave_running(world, tmp_path / "gate")

    with pytest.raises(Rejected, match="attempt 1 still runs in the batch system"):
        world.run(rescue=True, asked="a rescue")

    handle = bps.find(request.folder)
    assert handle is not None
    watch.cancel(handle)
    assert len(attempts_of(world.submissions, "toy", "step1")) == 1


def test_more_memory_is_asked_for_by_the_failed_task_alone(world, tmp_path):
    more = FailurePolicy(name="more", exception="ConnectionError", action=Action.MORE_MEMORY, factor=1.5)

    outcome = world.run(more, x2026110100001_1=f"raise once {tmp_path}/raised")

    assert outcome.complete
    assert world.settings(2)["pipetask"] == {"double": {"requestMemory": 3072}}
    assert "pipetask" not in world.settings(1)


def test_a_quarantined_data_id_is_left_out_from_then_on_until_it_is_readmitted(world):
    evil = FailurePolicy(name="evil", exception="EvilData", action=Action.QUARANTINE)
    bad = {"instrument": "ToyCam", "exposure": FIRST, "detector": 1}

    outcome = world.run(evil, x2026110100001_1="raise")

    assert world.quanta(2) == {("sum", FIRST, None)}
    assert world.total(FIRST) == 4
    assert outcome.tasks["sum"] == TaskOutcome(4, 4)
    assert not outcome.failures
    (entry,) = world.casebook.quarantined("toy")
    assert entry.data_id == bad
    assert entry.why == "evil: double: toy_tasks.EvilData: this exposure is evil"

    world.run()
    assert not world.quanta(3) & (ONE - {("sum", FIRST, None)})
    assert len(world.quanta(3)) == 18

    assert world.casebook.readmit("toy", [bad], why="it was the software", by="me") == 1
    world.run()
    assert len(world.quanta(4)) == 20
    assert world.total(FIRST) == 4 + 16
    (past,) = world.casebook.quarantined("toy", history=True)
    assert past.readmitted_why == "it was the software"


def _watch(root: str, folder: Path, go, told) -> None:
    """A second watcher, in a process of its own."""
    said: list[str] = []
    log = SimpleNamespace(info=lambda line: (said.append(line), told.put(line)))
    context = SimpleNamespace(log=log, run_id="second", instance=None)
    go.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("launchers.reattach.record_reattachment", lambda *_: None)
        outcome = launch_and_watch(context, make_request(root, folder), poll_s=0.1, log_every_s=0.2)
    told.put(f"{outcome.succeeded} of {outcome.expected}")


def test_a_second_watcher_waits_until_the_first_is_gone(world, tmp_path):
    processes = multiprocessing.get_context("spawn")
    folder = tmp_path / "one"
    request = make_request(world.root, folder)
    handle = bps.submit(request, build_graph(request))
    go, told = processes.Event(), processes.Queue()
    second = processes.Process(target=_watch, args=(world.root, folder, go, told))
    second.start()

    with exclusive(folder / "watch.lock") as lock:
        assert lock is not None
        lock.write(b"run first")
        lock.flush()
        go.set()
        assert told.get(timeout=120) == f"{request.key.name} is watched by run first already: waiting"
        assert watch.watch(handle, poll_s=0.1).state == "SUCCEEDED"
        time.sleep(0.5)
        assert told.empty()

    lines = [told.get(timeout=120)]
    while not lines[-1].endswith("of 20"):
        lines.append(told.get(timeout=120))
    second.join(timeout=60)
    assert lines[-1] == "20 of 20"
    assert sum("was submitted before" in line for line in lines) == 1


def test_the_death_of_a_watcher_lets_the_next_one_in(tmp_path):
    processes = multiprocessing.get_context("spawn")
    path = tmp_path / "watch.lock"
    ready = processes.Event()
    holder = processes.Process(target=_hold, args=(path, ready))
    holder.start()
    assert ready.wait(60)
    with exclusive(path) as lock:
        assert lock is None

    holder.kill()
    holder.join(timeout=60)

    with exclusive(path, wait_s=10) as lock:
        assert lock is not None


def _hold(path: Path, ready) -> None:
    with exclusive(path):
        ready.set()
        time.sleep(600)
