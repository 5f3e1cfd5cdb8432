"""Submissions to a Slurm that refuses or falls silent in the midst of them."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from lsst.ctrl.bps import (
    BpsConfig,
    GenericWorkflow,
    GenericWorkflowExec,
    GenericWorkflowJob,
    WmsStates,
)

sys.path.insert(0, str(Path(__file__).parent))

from toy_slurm import FakeSlurm

from launchers.slurm import dispatcher, service
from launchers.slurm.conductor import Conductor
from launchers.slurm.dispatcher import COMMENT
from launchers.slurm.jobs import JobState
from launchers.slurm.queue import Partition, Queue
from launchers.slurm.service import SlurmService
from launchers.slurm.store import JobStore
from launchers.slurm.workflow import SlurmWorkflow
from resources.errors import OperatorError, Rejected, Retriable

SILENT = Retriable("Slurm doesn't answer")
HEARD = Retriable("Slurm doesn't answer, but has heard")
REFUSED = Rejected("Slurm refuses: Invalid feature specification")
FULL = Rejected(
    "Slurm refuses: AssocMaxSubmitJobLimit; Batch job submission failed: Job violates accounting/QOS policy"
)


class FaultySlurm(FakeSlurm):
    """Raises what it is told to, command by command and call by call; None: that call is answered."""

    settings: Mapping[str, str] = {}
    environment = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.faults: defaultdict[str, list[Exception | None]] = defaultdict(list)
        self.asked_for: list[str] = []

    def submit(self, options: Sequence[str], script: Sequence[str]) -> int:
        fault = self._next("sbatch")
        if fault is not None and fault is not HEARD:
            raise fault
        number = super().submit(options, script)
        if fault is HEARD:
            raise fault
        return number

    def queue(self, user: str = "") -> Queue:
        self._answer("squeue")
        self.asked_for.append(user)
        return super().queue()

    def cancel(self, names: Sequence[str]) -> None:
        self._answer("scancel")
        super().cancel(names)

    def partitions(self) -> Mapping[str, Partition]:
        self._answer("sinfo")
        return super().partitions()

    def licences(self) -> frozenset[str]:
        self._answer("scontrol")
        return frozenset({"db"})

    def _answer(self, command: str) -> None:
        fault = self._next(command)
        if fault is not None:
            raise fault

    def _next(self, command: str) -> Exception | None:
        return self.faults[command].pop(0) if self.faults[command] else None

    @property
    def alive(self) -> list[str]:
        """Names of what isn't over, once for each element; a dispatcher's without what it asks for."""
        return [re.sub("(?<=dispatcher-1)-.*", "", each.name) for each in self.elements.values() if not each.is_over]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(service, "_BETWEEN_TRIES_S", 0.0)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FaultySlurm:
    made = FaultySlurm(tmp_path / "submit")
    monkeypatch.setattr(service, "Slurm", lambda: made)
    return made


@pytest.fixture
def generic() -> GenericWorkflow:
    """Three labels, and so three arrays: two jobs, one that waits for them, and the final one."""
    made = GenericWorkflow("w")
    made.add_job(job("isr_0"))
    made.add_job(job("isr_1"))
    made.add_job(job("cal_0"), ["isr_0", "isr_1"])
    made.add_final(job("final_0"))
    return made


@pytest.fixture
def workflow(generic: GenericWorkflow, tmp_path: Path) -> SlurmWorkflow:
    return SlurmService({}).prepare(BpsConfig({"computeSite": "here"}), generic, str(tmp_path / "submit"))


def job(name: str) -> GenericWorkflowJob:
    executable = GenericWorkflowExec("true", "true", False)
    return GenericWorkflowJob(name, name.partition("_")[0], executable=executable, concurrency_limit="db")


ONE_WHOLE = ["bps-dispatcher-1", "w.cal", "w.final", "w.isr", "w.isr"]


def states(workflow: SlurmWorkflow) -> list[str]:
    plan, _ = JobStore(Path(workflow.submit_path)).read()
    return [each.state.name for each in plan.jobs]


@pytest.mark.parametrize("accepted", range(4))
@pytest.mark.parametrize("fault", [REFUSED, KeyboardInterrupt()])
def test_a_submission_that_is_refused_half_way_leaves_nothing_in_slurm_and_can_be_repeated(
    slurm, workflow, accepted, fault
):
    slurm.faults["sbatch"] = [None] * accepted + [fault]

    with pytest.raises(type(fault)):
        SlurmService({}).submit(workflow)

    assert slurm.alive == []
    assert JobStore(Path(slurm.folder)).read_environment() is None
    assert SlurmService({}).get_status(str(slurm.folder))[0] is WmsStates.UNREADY
    assert SlurmService({}).list_submitted_jobs() == []
    assert SlurmService({}).report()[0] == []
    SlurmService({}).submit(workflow)
    assert sorted(slurm.alive) == ONE_WHOLE
    assert sorted(states(workflow)) == ["PENDING", "PENDING", "UNREADY", "UNREADY"]
    assert SlurmService({}).list_submitted_jobs() == [slurm.folder]


@pytest.mark.parametrize(
    ("command", "faults"),
    [
        ("squeue", [SILENT]),
        ("sinfo", [SILENT, SILENT]),
        ("scontrol", [SILENT]),
        ("sbatch", [SILENT]),
        ("sbatch", [HEARD]),
        ("sbatch", [None, None, HEARD, None, SILENT]),
        ("sbatch", [None, None, None, SILENT]),
        ("sbatch", [None, None, None, HEARD]),
    ],
)
def test_a_silence_in_the_midst_of_a_submission_is_waited_for_and_nothing_is_there_twice(
    slurm, workflow, command, faults
):
    slurm.faults[command] = list(faults)

    SlurmService({}).submit(workflow)

    assert slurm.faults[command] == []
    assert sorted(slurm.alive) == ONE_WHOLE
    plan, facts = JobStore(Path(slurm.folder)).read()
    assert all(not slurm.elements[each.element].is_over for each in plan.jobs)
    assert slurm.elements[next(each for each in slurm.elements if each.array == facts["dispatcher_job"])].name


def test_a_slurm_that_stays_silent_is_reported_and_what_it_had_accepted_is_cleared_away_by_the_next(slurm, workflow):
    slurm.faults["sbatch"] = [None, SILENT]
    slurm.faults["squeue"] = [None] + [SILENT] * 10

    with pytest.raises(Retriable):
        SlurmService({}).submit(workflow)

    assert slurm.alive == ["w.isr", "w.isr"]
    assert SlurmService({}).list_submitted_jobs() == [slurm.folder]
    slurm.faults.clear()
    SlurmService({}).submit(workflow)
    assert sorted(slurm.alive) == ONE_WHOLE


def test_what_a_submitter_who_was_killed_has_left_is_cancelled_as_any_workflow(slurm, workflow, monkeypatch):
    slurm.faults["sbatch"] = [None, None, None, SILENT]
    slurm.faults["squeue"] = [None] + [SILENT] * 10
    with pytest.raises(Retriable):
        SlurmService({}).submit(workflow)
    slurm.faults.clear()
    monkeypatch.setattr("launchers.slurm.conductor.Slurm", lambda environment: slurm)
    (wms_id,) = SlurmService({}).list_submitted_jobs()
    assert len(slurm.alive) == 4

    assert SlurmService({}).cancel(wms_id) == (True, "")

    assert slurm.alive == []
    assert set(states(workflow)) == {"DELETED"}
    assert SlurmService({}).get_status(wms_id)[0] is WmsStates.DELETED
    assert SlurmService({}).list_submitted_jobs() == []
    SlurmService({}).submit(workflow)
    assert slurm.alive == []


def test_a_workflow_that_slurm_does_not_cancel_is_not_said_to_be_and_can_be_cancelled_again(slurm, workflow):
    SlurmService({}).submit(workflow)
    slurm.faults["scancel"] = [Rejected("Slurm refuses: Access/permission denied", "scancel", "see what was asked for")]

    assert SlurmService({}).cancel(slurm.folder) == (
        False,
        "scancel: Slurm refuses: Access/permission denied; see what was asked for",
    )

    assert SlurmService({}).get_status(slurm.folder)[0] is WmsStates.PENDING
    assert SlurmService({}).cancel(slurm.folder) == (True, "")
    assert slurm.alive == []


def test_a_workflow_is_cancelled_in_its_owners_queue_and_goes_on_by_its_owner_alone(slurm, workflow, monkeypatch):
    SlurmService({}).submit(workflow)
    owner = service.user_name()
    monkeypatch.setattr(service, "user_name", lambda: "somebody")
    for ask in (SlurmService({}).restart, SlurmService({}).resume):
        slurm.elements = {each: queued for each, queued in slurm.elements.items() if queued.comment != COMMENT}
        with pytest.raises(Rejected, match=f"{slurm.folder}: the workflow is of {owner}, and this is somebody"):
            ask(slurm.folder)

    assert SlurmService({}).cancel(slurm.folder) == (True, "")

    assert set(slurm.asked_for) == {owner}
    assert slurm.alive == []


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING"])
def test_a_workflow_that_is_restarted_at_once_does_not_rely_on_a_dispatcher_that_is_leaving(slurm, workflow, state):
    SlurmService({}).submit(workflow)
    (leaving,) = dispatcher.dispatchers(slurm.queue()).values()
    slurm.put(leaving.element, state)
    assert SlurmService({}).cancel(slurm.folder) == (True, "")
    assert [queued.state for queued in slurm.elements.values() if not queued.is_over] == [state]

    assert SlurmService({}).restart(slurm.folder) == (slurm.folder, "w", "")

    (waiting,) = dispatcher.waiting_dispatchers(slurm.queue(), slurm.folder)
    slurm.put(leaving.element, "COMPLETED")
    assert SlurmService({}).get_status(slurm.folder)[0] is not WmsStates.HELD
    assert JobStore(Path(slurm.folder)).read_facts()["dispatcher_job"] == waiting.job


def test_a_dispatcher_that_slurm_is_clearing_away_conducts_nothing(slurm, workflow):
    SlurmService({}).submit(workflow)
    (leaving,) = dispatcher.dispatchers(slurm.queue()).values()
    slurm.put(leaving.element, "COMPLETING")

    assert SlurmService({}).get_status(slurm.folder)[0] is WmsStates.HELD
    assert SlurmService({}).resume(slurm.folder)
    assert not SlurmService({}).resume(slurm.folder)
    assert SlurmService({}).get_status(slurm.folder)[0] is WmsStates.PENDING


def test_a_dispatcher_that_could_never_begin_is_refused_as_its_jobs_would_be(slurm, generic, tmp_path):
    config = BpsConfig({"computeSite": "here", "slurmDispatcher": {"requestMemory": 9000}})
    workflow = SlurmService({}).prepare(config, generic, str(tmp_path / "submit"))

    with pytest.raises(Rejected, match="slurmDispatcher asks for 9000 MB, and the largest node has 4000 MB"):
        SlurmService({}).submit(workflow)

    assert slurm.alive == []


def test_a_dispatcher_that_is_kept_waiting_says_why(slurm, workflow):
    SlurmService({}).submit(workflow)
    (waiting,) = dispatcher.dispatchers(slurm.queue()).values()
    slurm.put(waiting.element, "PENDING", reason="PartitionDown")

    assert SlurmService({}).get_status(slurm.folder) == (
        WmsStates.PENDING,
        f"the dispatcher of {slurm.folder} waits: PartitionDown",
    )


@pytest.mark.parametrize(
    ("accepted", "alive"),
    [(0, ["bps-dispatcher-1"]), (1, ["bps-dispatcher-1", "w.isr"]), (2, ONE_WHOLE[:1] + ONE_WHOLE[3:])],
)
def test_what_a_limit_has_no_room_for_is_left_to_the_dispatcher_which_gets_room_itself(
    slurm, workflow, accepted, alive
):
    slurm.faults["sbatch"] = [None] * accepted + [FULL]

    SlurmService({}).submit(workflow)

    assert sorted(slurm.alive) == alive
    conductor = Conductor(JobStore(Path(slurm.folder)), slurm)
    conductor.reconcile(slurm.queue())
    conductor.act()
    assert [each.state for each in conductor.plan.jobs[:2]] == [JobState.PENDING] * 2
    assert sorted(slurm.alive).count("w.isr") == 2


def test_a_submission_for_whose_dispatcher_there_is_no_room_is_refused(slurm, workflow):
    slurm.faults["sbatch"] = [FULL, FULL]

    with pytest.raises(Rejected, match="AssocMaxSubmitJobLimit"):
        SlurmService({}).submit(workflow)

    assert slurm.alive == []


def test_a_submission_that_counts_is_found_and_not_made_again(slurm, workflow):
    first = SlurmService({}).submit(workflow)
    calls = len(slurm.submissions)
    (dispatching,) = dispatcher.dispatchers(slurm.queue()).values()
    slurm.put(dispatching.element, "CANCELLED by 0")

    second = SlurmService({}).submit(workflow)

    assert first.run_id == second.run_id
    assert len(slurm.submissions) == calls
    assert SlurmService({}).get_status(slurm.folder)[0] is WmsStates.HELD


def test_a_job_that_was_taken_back_is_not_found_again_in_the_queue(slurm, workflow):
    slurm.faults["sbatch"] = [None, REFUSED]
    with pytest.raises(OperatorError):
        SlurmService({}).submit(workflow)
    store = JobStore(Path(slurm.folder))

    conductor = Conductor(store, slurm)
    conductor.reconcile(slurm.queue())
    conductor.act()

    assert [each.state for each in conductor.plan.jobs[:2]] == [JobState.PENDING] * 2
    assert slurm.alive == ["w.isr", "w.isr"]


@pytest.mark.parametrize("name", ["link/submit", "other/../submit"])
@pytest.mark.parametrize("is_asked_by_it", [True, False])
def test_a_folder_is_the_same_workflow_by_whatever_name_it_is_submitted_and_asked_for(
    slurm, generic, tmp_path, name, is_asked_by_it
):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other").mkdir()
    plain, other = str(tmp_path / "submit"), str(tmp_path / name)
    submitted, asked = (plain, other) if is_asked_by_it else (other, plain)
    service = SlurmService({})
    service.submit(service.prepare(BpsConfig({"computeSite": "here"}), generic, submitted))

    assert service.get_status(asked)[0] is WmsStates.PENDING
    assert service.restart(asked) == (None, None, "the workflow still runs; cancel it first")
    assert [report.wms_id for report in service.report(asked)[0]] == [plain]
    assert f"launchers.slurm.dispatcher {plain}" in (tmp_path / "submit" / "dispatcher.sh").read_text()


@pytest.mark.parametrize("file", ["workflow.json", "journal.jsonl"])
def test_a_record_that_cannot_be_read_hides_no_other_workflow(slurm, generic, tmp_path, caplog, file):
    service, config = SlurmService({}), BpsConfig({"computeSite": "here"})
    spoilt, sound = (service.prepare(config, generic, str(tmp_path / name)) for name in ("spoilt", "sound"))
    service.submit(spoilt)
    service.submit(sound)
    (tmp_path / "spoilt" / file).write_text("")

    reports, _ = service.report()

    assert [report.wms_id for report in reports] == [str(tmp_path / "sound")]
    assert f"{tmp_path / 'spoilt'}: the record of this workflow cannot be read" in caplog.text
    assert str(tmp_path / "sound") in service.list_submitted_jobs()
    with pytest.raises(OperatorError, match="cannot be read"):
        service.get_status(str(tmp_path / "spoilt"))


def test_jobs_that_end_while_nobody_conducts_are_reported_as_they_ended(slurm, workflow):
    SlurmService({}).submit(workflow)
    store = JobStore(Path(slurm.folder))
    well, badly = (each.element for each in store.read()[0].jobs[:2])
    (store.submit_path / "ended" / f"{well}.0").write_text("code 0\n0m1.0s 0m0.5s\n")
    (store.submit_path / "ended" / f"{badly}.0").write_text("code 3\n")
    (dispatching,) = dispatcher.dispatchers(slurm.queue()).values()
    for element in (well, badly, dispatching.element):
        del slurm.elements[element]

    (report,), _ = SlurmService({}).report(slurm.folder)

    assert report.state is WmsStates.HELD
    assert [each.state.name for each in report.jobs or ()] == ["SUCCEEDED", "FAILED", "PRUNED", "READY"]
    assert (report.exit_code_summary or {})["isr"] == [3]
    assert states(workflow) == ["PENDING", "PENDING", "UNREADY", "UNREADY"]


def test_what_has_succeeded_is_not_restarted(slurm, workflow):
    SlurmService({}).submit(workflow)
    store = JobStore(Path(slurm.folder))
    conductor = Conductor(store, slurm)
    while not conductor.is_over:
        for each in slurm.queue().elements.values():
            if each.reason != "JobHeldUser":
                slurm.put(each.element, "COMPLETED")
        conductor.reconcile(slurm.queue())
        conductor.act()
    calls = len(slurm.submissions)

    assert SlurmService({}).restart(slurm.folder) == (None, None, "the workflow has succeeded already")

    assert SlurmService({}).get_status(slurm.folder)[0] is WmsStates.SUCCEEDED
    assert len(slurm.submissions) == calls
