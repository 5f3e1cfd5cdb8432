"""What a step's run does about a batch system that is away, or about what others have done to its submission."""

import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from lsst.ctrl.bps import WmsStates

sys.path.insert(0, str(Path(__file__).parent))

from scripted_service import ScriptedService

from launchers import bps, reattach, step_run, wanted
from launchers.bps import Handle
from launchers.casebook import Case
from launchers.outcome import Outcome, QuantumFailure
from launchers.submission import StepRequest, SubmissionKey
from planning.policies import Action, FailurePolicy
from resources.errors import Rejected, Retriable, SiteFault

KEY = SubmissionKey("dr1", "step1a", ("20261101",))


@pytest.fixture
def service() -> type[ScriptedService]:
    ScriptedService.forget()
    return ScriptedService


@pytest.fixture
def request_with_submission(tmp_path: Path) -> StepRequest:
    handle = Handle(f"{ScriptedService.__module__}.ScriptedService", "1", KEY.name, str(tmp_path / "submit"))
    (tmp_path / "handle.json").write_text(str(handle))
    (tmp_path / "bps.yaml").write_text(f"provenanceOnWorkers: {tmp_path}/provenance.qg")
    return StepRequest(KEY, "repo", "DRP.yaml#step1a", ("dr1",), "dr1", "", tmp_path)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the run's log says; the outcome and the event log are others' matter."""
    monkeypatch.setattr(step_run, "read_outcome", lambda request, handle: "outcome")
    monkeypatch.setattr(reattach, "record_reattachment", lambda *_: None)
    return []


def context_that_logs(said: list[str]) -> SimpleNamespace:
    return SimpleNamespace(run_id="run", instance=None, log=SimpleNamespace(info=said.append, warning=said.append))


def test_a_worker_resumed_while_the_batch_system_is_away_waits_for_it(service, request_with_submission, said):
    service.script += [None, None, WmsStates.RUNNING, WmsStates.SUCCEEDED]

    outcome = step_run.launch_and_watch(context_that_logs(said), request_with_submission, poll_s=0.0)

    assert outcome == "outcome"
    assert said[0].endswith("was submitted before: watching it again (1)")


class AwayAtFirst:
    """A batch system that takes a submission only after it has been asked a few times."""

    def __init__(self, tmp_path: Path, *refusals: Exception) -> None:
        self.refusals = list(refusals)
        self.asked = 0
        self.handle = Handle(f"{ScriptedService.__module__}.ScriptedService", "1", KEY.name, str(tmp_path / "submit"))

    def submit(self, request: StepRequest, graph: SimpleNamespace) -> Handle:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)
        return self.handle


@pytest.fixture
def to_submit(tmp_path, monkeypatch, said) -> StepRequest:
    """A request that nobody has submitted, and a graph."""
    monkeypatch.setattr(step_run, "build_graph", lambda request: SimpleNamespace(quanta={}, total=0))
    monkeypatch.setattr(reattach, "record_launch", lambda *_: None)
    return StepRequest(KEY, "repo", "DRP.yaml#step1a", ("dr1",), "dr1", "", tmp_path)


def away() -> Retriable:
    return Retriable("the scheduler is down", "slurm", "try again")


def test_a_batch_system_that_is_away_when_something_is_submitted_is_waited_for(
    service, to_submit, said, monkeypatch, tmp_path
):
    service.script += [WmsStates.SUCCEEDED]
    batch = AwayAtFirst(tmp_path, away(), away(), ConnectionResetError("gone"))
    monkeypatch.setattr(step_run.bps, "submit", batch.submit)

    outcome = step_run.launch_and_watch(context_that_logs(said), to_submit, poll_s=0.0, silence_s=60)

    assert (outcome, batch.asked) == ("outcome", 4)
    waiting = f"{KEY.name} is not submitted yet, and tried again for 60 s: "
    assert said[1:3] == [f"{waiting}slurm: the scheduler is down; try again", f"{waiting}gone"]


def test_a_batch_system_that_stays_away_when_something_is_submitted_ends_the_run(
    service, to_submit, said, monkeypatch, tmp_path
):
    monkeypatch.setattr(step_run.bps, "submit", AwayAtFirst(tmp_path, *(away() for _ in range(10**4))).submit)

    with pytest.raises(SiteFault, match=r"silent for 0 s: slurm: the scheduler is down.*re-execute the run"):
        step_run.launch_and_watch(context_that_logs(said), to_submit, poll_s=0.001, silence_s=0.02)


@pytest.mark.parametrize("kind", [Rejected, SiteFault])
def test_what_waiting_cannot_mend_fails_at_once(service, to_submit, said, monkeypatch, tmp_path, kind):
    batch = AwayAtFirst(tmp_path, kind("no queue 'nosuch'", "slurm", "correct it"))
    monkeypatch.setattr(step_run.bps, "submit", batch.submit)

    with pytest.raises(kind, match="no queue"):
        step_run.launch_and_watch(context_that_logs(said), to_submit, poll_s=0.0)

    assert batch.asked == 1


def test_a_run_can_be_cancelled_while_it_waits_to_submit(service, to_submit, said, monkeypatch, tmp_path):
    service.script += [None]
    intention = Handle(f"{ScriptedService.__module__}.ScriptedService", "", KEY.name, str(tmp_path / "submit"))

    def submit(request: StepRequest, graph: SimpleNamespace) -> Handle:
        (tmp_path / "handle.json").write_text(str(intention))
        raise away()

    def interrupt(_: float) -> None:
        raise dg.DagsterExecutionInterruptedError

    def silent(handle: Handle) -> None:
        raise away()

    monkeypatch.setattr(step_run.bps, "submit", submit)
    monkeypatch.setattr(step_run.bps, "_look_up", silent)
    monkeypatch.setattr(step_run.watch.time, "sleep", interrupt)
    context = context_that_logs(said)
    run = SimpleNamespace(status=dg.DagsterRunStatus.CANCELING)
    context.instance = SimpleNamespace(get_run_by_id=lambda run_id: run)

    with pytest.raises(dg.DagsterExecutionInterruptedError):
        step_run.launch_and_watch(context, to_submit, poll_s=0.0)

    assert said[-1].startswith(f"whether the batch system has {KEY.name} it doesn't say: slurm: the scheduler is down")
    assert said[-1].endswith("see bps report, and end it with bps cancel")


def test_what_somebody_cancelled_in_the_batch_system_stays_cancelled(service, request_with_submission, said):
    service.script += [WmsStates.DELETED]

    step_run.launch_and_watch(context_that_logs(said), request_with_submission, poll_s=0.0)

    assert service.restarted == []


def interrupted(monkeypatch, request: StepRequest, said: list[str]) -> None:
    """Have the run cancelled while it watches."""

    def interrupt(*_: object, **__: object) -> None:
        raise dg.DagsterExecutionInterruptedError

    run = SimpleNamespace(status=dg.DagsterRunStatus.CANCELING)
    context = context_that_logs(said)
    context.instance = SimpleNamespace(get_run_by_id=lambda run_id: run)
    with monkeypatch.context() as patch:
        patch.setattr(step_run.watch, "watch", interrupt)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            step_run.launch_and_watch(context, request, poll_s=0.0)


def test_what_was_cancelled_with_its_run_goes_on_when_it_is_asked_for_again(
    service, request_with_submission, said, monkeypatch
):
    service.script += [WmsStates.RUNNING, WmsStates.DELETED, WmsStates.SUCCEEDED]
    interrupted(monkeypatch, request_with_submission, said)
    assert said[-1] == f"{KEY.name} was cancelled with its run: gone"

    step_run.launch_and_watch(context_that_logs(said), request_with_submission, poll_s=0.0)

    assert service.restarted == ["1"]
    assert any(line.endswith("watching it again (2)") for line in said)
    assert bps.find(request_with_submission.folder).wms_id == "2"


def test_a_run_that_is_cancelled_from_another_machine_cancels_its_submission_itself(
    service, request_with_submission, said, monkeypatch
):
    monkeypatch.setattr(wanted, "ASK_EVERY_S", 0.0)
    service.script += [WmsStates.RUNNING]
    statuses = iter([dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTED])
    context = context_that_logs(said)
    context.instance = SimpleNamespace(
        get_run_by_id=lambda _: dg.DagsterRun("job", status=next(statuses, dg.DagsterRunStatus.CANCELING))
    )

    with pytest.raises(dg.DagsterExecutionInterruptedError):
        step_run.launch_and_watch(context, request_with_submission, poll_s=0.0)

    assert service.cancelled == ["1"]
    assert said[-1] == f"{KEY.name} was cancelled with its run: gone"


def test_what_was_not_cancelled_is_said_so_with_how_to_do_it_by_hand(
    service, request_with_submission, said, monkeypatch
):
    service.script += [WmsStates.RUNNING]
    service.refusal = "no answer from the scheduler"

    interrupted(monkeypatch, request_with_submission, said)

    assert said[-1].startswith(f"{KEY.name} was not cancelled: no answer from the scheduler; where it still runs, end")
    assert said[-1].endswith("--id 1")
    service.script[:] = [WmsStates.DELETED]
    step_run.launch_and_watch(context_that_logs(said), request_with_submission, poll_s=0.0)
    assert service.restarted == []


def test_what_waited_for_a_failure_has_its_own_attempts(tmp_path, monkeypatch, said):
    double, square = (QuantumFailure(task, {"exposure": 7}, "E", "m", "") for task in ("double", "square"))
    outcomes = iter([(double,), (square,), ()])
    noted: list[Case] = []

    def launch(*_: object, **__: object) -> Outcome:
        return Outcome({}, next(outcomes), {}, 0.0, 0.0, 0.0, "run")

    monkeypatch.setattr(step_run, "launch_and_watch", launch)
    monkeypatch.setattr(step_run, "read_quanta", lambda request: {double.quantum: True, square.quantum: True})
    again = FailurePolicy(name="again", action=Action.RETRY, attempts=2, then=Action.HOLD)
    casebook = SimpleNamespace(note=noted.extend)
    request = StepRequest(KEY, "repo", "DRP.yaml#step1a", ("dr1",), "dr1", "", tmp_path / "dr1" / KEY.name)

    outcome = step_run.run_step(context_that_logs(said), request, step_run.FailureRules((again,), casebook, tmp_path))

    assert [(case.task, case.action) for case in noted] == [("double", "retry"), ("square", "retry")]
    assert not outcome.failures


def test_a_run_lives_for_others_until_it_is_done_with_their_step():
    found: dict[str, bool] = {}

    def lives(context: dg.OpExecutionContext, step: str, run_id: str = "") -> bool:
        asking = SimpleNamespace(instance=context.instance, op_handle=step, log=context.log)
        return step_run.others_of(asking).lives(run_id or context.run_id)

    @dg.op
    def first(context: dg.OpExecutionContext) -> None:
        found["at it"] = lives(context, "first")
        found["before it"] = lives(context, "second")

    @dg.op(ins={"start": dg.In(dg.Nothing)})
    def second(context: dg.OpExecutionContext) -> None:
        found["after it"] = lives(context, "first")
        found["unknown"] = lives(context, "first", "no such run")

    @dg.job
    def steps() -> None:
        second(first())

    with dg.DagsterInstance.ephemeral() as instance:
        result = steps.execute_in_process(instance=instance)
        asking = SimpleNamespace(instance=instance, op_handle="first", log=SimpleNamespace(info=print))
        found["ended"] = step_run.others_of(asking).lives(result.run_id)

    assert found == {"at it": True, "before it": True, "after it": False, "unknown": False, "ended": False}
