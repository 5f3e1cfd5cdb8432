"""The Slurm service on a real Slurm: what ends how, what is tried again, and what survives which death."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lsst.ctrl.bps import BpsConfig, GenericWorkflow, GenericWorkflowExec, GenericWorkflowJob, WmsRunReport, WmsStates

from launchers.slurm import dispatcher, service
from launchers.slurm.commands import Slurm as Commands
from launchers.slurm.service import SlurmService
from launchers.slurm.store import JobStore
from launchers.slurm.workflow import SlurmWorkflow
from resources.errors import OperatorError, Rejected, Retriable, SiteFault
from services.slurm import LICENCES, QUEUES, ClusterShape, Slurm

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BASH = GenericWorkflowExec("bash", "bash", False)
SETTINGS = {"computeSite": "slurm", "slurmPollInterval": 1, "slurmDispatcher": {"requestMemory": 200}}
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm"), ClusterShape(cpus=8, accounting=True)) as started:
        yield started


@pytest.fixture
def slurm(cluster, monkeypatch, tmp_path) -> Slurm:
    """The cluster, empty and whole, and the environment that leads to it."""
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    cluster.start()
    cluster.client("scancel", "--user=root")
    wait_until(lambda: not cluster.client("squeue", "--noheader"))
    return cluster


def job(folder: Path, name: str, command: str = "true", **attributes) -> GenericWorkflowJob:
    """Make a job that writes down that it began and ended; its label is what comes before the underscore."""
    script = f"-c 'echo {name} >>{folder}/began; {command} || exit $?; echo {name} >>{folder}/ended'"
    asked = {"request_memory": 60, "request_cpus": 1, "number_of_retries": 2, "retry_unless_exit": [1, 2]}
    return GenericWorkflowJob(
        name, name.split("_", maxsplit=1)[0], executable=BASH, arguments=script, **{**asked, **attributes}
    )


def prepare(folder: Path, *jobs: GenericWorkflowJob, edges=(), **settings) -> SlurmWorkflow:
    generic = GenericWorkflow(folder.name)
    for each in jobs:
        generic.add_job(each)
    for parent, child in edges:
        generic.add_job_relationships(parent, child)
    generic.add_final(job(folder, "finalJob"))
    folder.mkdir(exist_ok=True)
    return SlurmService({}).prepare(BpsConfig({**SETTINGS, **settings}), generic, str(folder / "submit"))


def submit(folder: Path, *jobs: GenericWorkflowJob, **options) -> str:
    return str(SlurmService({}).submit(prepare(folder, *jobs, **options)).run_id)


def report(wms_id: str) -> WmsRunReport:
    (found,), _ = SlurmService({}).report(wms_workflow_id=wms_id)
    return found


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def end_of(wms_id: str) -> WmsRunReport:
    wait_until(lambda: "ended_at" in (facts := JobStore(Path(wms_id)).read_facts()) and facts["ended_at"])
    return report(wms_id)


def states(found: WmsRunReport) -> dict[str, str]:
    return {each.name: each.state.name for each in found.jobs or ()}


def times(folder: Path, what: str) -> Counter[str]:
    """How often each job began, or ended."""
    path = folder / what
    return Counter(path.read_text().split() if path.exists() else ())


def running(wms_id: str, name: str) -> bool:
    return states(report(wms_id))[name] == "RUNNING"


def dispatcher_states(slurm: Slurm) -> list[str]:
    return slurm.client("squeue", "--noheader", f"--name={dispatcher.JOB_NAME}", "--format=%T").split()


def node_of(slurm: Slurm, wms_id: str, name: str) -> str:
    (element,) = [each.element for each in JobStore(Path(wms_id)).read()[0].jobs if each.name == name]
    return slurm.client("squeue", "--noheader", f"--jobs={element}", "--format=%N").strip()


def test_a_failed_job_blocks_its_descendants_alone_and_slurm_says_the_same(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, f"isr_{n}", "exit 1" if n == 1 else "true") for n in range(3)]
    jobs += [job(folder, f"cal_{n}") for n in range(3)] + [job(folder, "sum_0")]
    edges = [(f"isr_{n}", f"cal_{n}") for n in range(3)] + [("cal_0", "sum_0"), ("cal_2", "sum_0")]

    found = end_of(submit(folder, *jobs, edges=edges))

    assert found.state is WmsStates.FAILED
    assert Counter(states(found).values()) == {"SUCCEEDED": 6, "FAILED": 1, "PRUNED": 1}
    assert (states(found)["isr_1"], states(found)["cal_1"]) == ("FAILED", "PRUNED")
    assert (found.exit_code_summary or {})["isr"] == [1]
    assert times(folder, "began")["isr_1"] == 1
    by_element = {each.wms_id: each.state.name for each in found.jobs or ()}
    expected = {"SUCCEEDED": "COMPLETED", "FAILED": "FAILED", "PRUNED": "CANCELLED"}

    def accounted() -> dict[str, str]:
        lines = slurm.client("sacct", "-nPX", f"--jobs={','.join(by_element)}", "--format=JobID,State").splitlines()
        known = {name: state.split()[0] for name, state in (line.split("|") for line in lines)}
        # Some of what is cancelled before it could begin, accounting never hears of.
        return {element: known.get(element, "CANCELLED") for element in by_element}

    wait_until(lambda: accounted() == {element: expected[state] for element, state in by_element.items()})


def test_a_job_out_of_memory_gets_more_until_it_is_enough(slurm, tmp_path):
    folder = tmp_path / "w"
    hungry = job(folder, "oom_0", "head -c 150M /dev/zero | tail >/dev/null; exit $?", memory_multiplier=2.0)

    found = end_of(submit(folder, hungry))

    assert found.state is WmsStates.SUCCEEDED
    (done, _) = JobStore(Path(str(found.wms_id))).read()[0].jobs
    assert (done.attempt, done.out_of_memory) == (3, 2)
    assert done.usage.memory_mb > 150.0
    log = (folder / "submit" / "logs" / "oom" / "oom_0.1.log").read_text()
    assert "Slurm: this attempt is out of memory" in log


def test_a_job_that_needs_more_than_there_may_be_fails_and_says_of_what(slurm, tmp_path):
    folder = tmp_path / "w"
    command = "head -c 200M /dev/zero | tail >/dev/null; exit $?"
    hungry = job(folder, "oom_0", command, memory_multiplier=2.0, request_memory_max=100, number_of_retries=5)

    found = end_of(submit(folder, hungry))

    assert states(found) == {"oom_0": "FAILED", "finalJob": "SUCCEEDED"}
    assert times(folder, "began")["oom_0"] == 2
    assert "1 out of memory" in str(found.specific_info)


def test_a_job_that_takes_too_long_is_ended_and_tried_again(slurm, tmp_path):
    folder = tmp_path / "w"
    command = f"[ -e {folder}/second ] || (touch {folder}/second; sleep 600)"

    wms_id = submit(folder, job(folder, "isr_0", command, request_walltime="1"))
    wait_until((folder / "second").exists)
    (element,) = [each.wms_id for each in report(wms_id).jobs or () if each.name == "isr_0"]
    slurm.client("scontrol", "update", f"jobid={element}", "timelimit=00:00:01")
    found = end_of(wms_id)

    assert found.state is WmsStates.SUCCEEDED
    assert times(folder, "began")["isr_0"] == 2


def test_a_job_that_aborts_the_workflow_ends_every_other_but_the_final_one(slurm, tmp_path):
    folder = tmp_path / "w"
    evil = job(folder, "isr_0", f"until [ -s {folder}/began-both ]; do sleep 0.2; done; exit 9", abort_on_value=9)
    slow = job(folder, "isr_1", "sleep 3600")
    wms_id = submit(folder, evil, slow, job(folder, "cal_0"), edges=[("isr_0", "cal_0")])
    wait_until(lambda: running(wms_id, "isr_1"))
    (folder / "began-both").write_text("go")

    found = end_of(wms_id)

    assert found.state is WmsStates.FAILED
    assert states(found) == {"isr_0": "FAILED", "isr_1": "DELETED", "cal_0": "DELETED", "finalJob": "SUCCEEDED"}
    assert times(folder, "began") == {"isr_0": 1, "isr_1": 1, "finalJob": 1}
    wait_until(lambda: not any(list(node.processes()) for node in slurm.nodes))


def test_cancelling_ends_every_process_of_the_jobs(slurm, tmp_path):
    folder = tmp_path / "w"
    wms_id = submit(folder, *(job(folder, f"isr_{n}", "sleep 600") for n in range(3)), job(folder, "cal_0"))
    wait_until(lambda: sum(state == "RUNNING" for state in states(report(wms_id)).values()) == 3)

    assert SlurmService({}).cancel(wms_id) == (True, "")

    found = report(wms_id)
    assert found.state is WmsStates.DELETED
    wait_until(lambda: not any(list(node.processes()) for node in slurm.nodes))
    assert SlurmService({}).cancel(wms_id) == (False, "the workflow is over")
    assert SlurmService({}).list_submitted_jobs() == []


def test_a_cancelled_workflow_can_be_restarted_and_does_what_is_left(slurm, tmp_path):
    folder = tmp_path / "w"
    slow = f"[ -e {folder}/go ] || sleep 600"
    wms_id = submit(folder, job(folder, "isr_0"), job(folder, "isr_1", slow))
    wait_until(lambda: states(report(wms_id))["isr_0"] == "SUCCEEDED" and running(wms_id, "isr_1"))
    SlurmService({}).cancel(wms_id)
    (folder / "go").touch()

    assert SlurmService({}).restart(wms_id) == (wms_id, "w", "")

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "ended") == {"isr_0": 1, "isr_1": 1, "finalJob": 1}


def test_a_workflow_that_runs_is_not_restarted(slurm, tmp_path):
    wms_id = submit(tmp_path / "w", job(tmp_path / "w", "isr_0", "sleep 600"))

    assert SlurmService({}).restart(wms_id) == (None, None, "the workflow still runs; cancel it first")

    SlurmService({}).cancel(wms_id)


def test_all_workflows_share_one_running_dispatcher(slurm, tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    ids = [submit(folder, job(folder, "isr_0", "sleep 8"), job(folder, "cal_0")) for folder in folders]
    wait_until(lambda: "RUNNING" in dispatcher_states(slurm))

    wait_until(lambda: all(times(folder, "began")["isr_0"] for folder in folders))
    assert Counter(dispatcher_states(slurm)) == {"RUNNING": 1, "PENDING": 2}

    assert [end_of(wms_id).state for wms_id in ids] == [WmsStates.SUCCEEDED] * 3
    assert sorted(SlurmService({}).list_submitted_jobs()) == []
    wait_until(lambda: not dispatcher_states(slurm))


def test_without_its_dispatcher_a_workflow_is_held_and_goes_on_when_it_is_resumed(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, "isr_0", "sleep 5"), job(folder, "cal_0")]
    wms_id = submit(folder, *jobs, edges=[("isr_0", "cal_0")])
    wait_until(lambda: running(wms_id, "isr_0") and "RUNNING" in dispatcher_states(slurm))

    slurm.client("scancel", f"--name={dispatcher.JOB_NAME}")
    wait_until(lambda: SlurmService({}).get_status(wms_id)[0] is WmsStates.HELD)
    assert "bps restart" in SlurmService({}).get_status(wms_id)[1]
    assert SlurmService({}).resume(wms_id)
    assert not SlurmService({}).resume(wms_id)

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "cal_0": 1, "finalJob": 1}


def test_a_killed_controller_loses_nothing(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, f"isr_{n}", "sleep 12") for n in range(3)] + [job(folder, f"cal_{n}") for n in range(3)]
    wms_id = submit(folder, *jobs, edges=[(f"isr_{n}", f"cal_{n}") for n in range(3)])
    saved, began = slurm.folder / "state" / "job_state", time.time()
    wait_until(lambda: running(wms_id, "isr_2"))
    # What it has accepted it writes down some seconds later.
    wait_until(lambda: saved.stat().st_mtime > began + 1.0)

    assert slurm.pid is not None
    os.kill(slurm.pid, signal.SIGKILL)
    wait_until(lambda: slurm.pid is None)
    with pytest.raises(Retriable, match="Slurm doesn't answer"):
        report(wms_id)
    time.sleep(5.0)
    slurm.start()

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "ended") == {each.name: 1 for each in jobs} | {"finalJob": 1}


def test_a_node_that_dies_takes_no_job_with_it(slurm, tmp_path):
    folder = tmp_path / "w"
    first = f"[ -e {folder}/second ] || (touch {folder}/second; sleep 600)"
    wms_id = submit(folder, job(folder, "isr_0", first, preemptible=False), job(folder, "cal_0", "sleep 5"))
    wait_until((folder / "second").exists)
    name = node_of(slurm, wms_id, "isr_0")
    (node,) = [each for each in slurm.nodes if each.node == name]

    assert node.pid is not None
    os.kill(node.pid, signal.SIGKILL)
    for pid in list(node.processes()):
        os.kill(pid, signal.SIGKILL)
    found = end_of(wms_id)
    slurm.start()

    assert found.state is WmsStates.SUCCEEDED
    assert times(folder, "ended")["isr_0"] == 1
    assert times(folder, "began")["isr_0"] == 2


@pytest.mark.parametrize(("preemptible", "attempts"), [(True, 1), (False, 2)])
def test_a_job_that_had_to_make_room_is_done_again(slurm, tmp_path, preemptible, attempts):
    folder = tmp_path / "w"
    first = f"[ -e {folder}/second ] || (touch {folder}/second; sleep 600)"
    whole_node = job(folder, "isr_0", first, request_cpus=8, preemptible=preemptible, number_of_retries=1)
    wms_id = submit(folder, whole_node, job(folder, "cal_0"), edges=[("isr_0", "cal_0")])
    wait_until((folder / "second").exists)
    node = node_of(slurm, wms_id, "isr_0")

    options = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null"]
    urgent = slurm.client("sbatch", "--parsable", *options, f"--wrap=until [ -e {folder}/go ]; do sleep 0.2; done")
    wait_until(lambda: slurm.client("squeue", "--noheader", f"--jobs={urgent.strip()}", "--format=%T") == "RUNNING\n")
    wait_until(lambda: states(report(wms_id))["isr_0"] == "PENDING")
    assert states(report(wms_id))["cal_0"] == "UNREADY"
    (folder / "go").touch()

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 2, "cal_0": 1, "finalJob": 1}
    assert times(folder, "ended") == {"isr_0": 1, "cal_0": 1, "finalJob": 1}
    # What Slurm itself puts back is the same attempt; what it may not put back is preempted, and tried again by us.
    (done,) = [each for each in JobStore(Path(wms_id)).read()[0].jobs if each.name == "isr_0"]
    assert done.attempt == attempts


def test_a_concurrency_limit_holds_for_all_workflows_together(slurm, tmp_path):
    folders, most = [tmp_path / "one", tmp_path / "other"], LICENCES["db_limit"]
    command = f"until [ -e {tmp_path}/go ]; do sleep 0.2; done"
    ids = [
        submit(folder, *(job(folder, f"isr_{n}", command, concurrency_limit="db_limit") for n in range(most)))
        for folder in folders
    ]

    def began() -> int:
        return sum(times(folder, "began").total() for folder in folders)

    wait_until(lambda: began() == most)
    wait_until(lambda: slurm.client("squeue", "--noheader", "--array", "--format=%r").split().count("Licenses") == most)
    assert began() == most
    (tmp_path / "go").touch()

    assert [end_of(wms_id).state for wms_id in ids] == [WmsStates.SUCCEEDED] * 2


def test_a_concurrency_limit_that_the_cluster_does_not_know_limits_nothing_and_that_is_said(slurm, tmp_path):
    folder = tmp_path / "w"

    found = end_of(submit(folder, job(folder, "isr_0", concurrency_limit="gold,db_limit")))

    assert found.state is WmsStates.SUCCEEDED
    told = (folder / "submit" / "events.log").read_text()
    assert "isr: the cluster has no licence gold, so concurrencyLimit limits nothing" in told
    assert "db_limit" not in told


def test_a_controller_that_is_down_is_waited_for_and_nothing_is_submitted_twice(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_BETWEEN_TRIES_S", 0.1)
    folder = tmp_path / "w"
    workflow = prepare(folder, job(folder, "isr_0"))
    assert slurm.pid is not None
    slurm.controller.stop()
    with pytest.raises(Retriable, match="Slurm doesn't answer"):
        SlurmService({}).submit(workflow)
    assert SlurmService({}).ping()[0] != 0
    with pytest.raises(Retriable):
        SlurmService({}).run_submission_checks()
    slurm.start()

    first = SlurmService({}).submit(workflow)
    second = SlurmService({}).submit(workflow)

    assert first.run_id == second.run_id
    assert end_of(str(first.run_id)).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "finalJob": 1}


DIES_HALF_WAY = """
import os, signal, sys
from types import SimpleNamespace
from launchers.slurm import service
service._have_dispatcher = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
service.SlurmService({}).submit(SimpleNamespace(submit_path=sys.argv[1]))
"""


def left_by_a_submitter_who_was_killed(slurm: Slurm, folder: Path) -> str:
    """Submit a workflow but for its dispatcher; give its id."""
    wms_id = str(prepare(folder, job(folder, "isr_0")).submit_path)
    done = subprocess.run([sys.executable, "-c", DIES_HALF_WAY, wms_id], check=False)
    assert done.returncode == -signal.SIGKILL
    left = slurm.client("squeue", "--noheader", "--format=%T %r").splitlines()
    assert set(left) == {"PENDING JobHeldUser"}
    assert SlurmService({}).get_status(wms_id)[0] is WmsStates.UNREADY
    return wms_id


def test_what_a_submitter_who_was_killed_has_left_can_do_nothing_and_is_cleared_away(slurm, tmp_path):
    folder = tmp_path / "w"
    wms_id = left_by_a_submitter_who_was_killed(slurm, folder)

    SlurmService({}).submit(prepare(folder, job(folder, "isr_0")))

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "finalJob": 1}


def test_what_a_submitter_who_was_killed_has_left_is_listed_and_cancelled(slurm, tmp_path):
    wms_id = left_by_a_submitter_who_was_killed(slurm, tmp_path / "w")
    assert SlurmService({}).list_submitted_jobs() == [wms_id]

    assert SlurmService({}).cancel(wms_id) == (True, "")

    assert report(wms_id).state is WmsStates.DELETED
    assert not slurm.client("squeue", "--noheader")
    assert SlurmService({}).list_submitted_jobs() == []


def test_a_submission_of_which_slurm_refuses_a_part_leaves_nothing_and_is_refused_again(slurm, tmp_path):
    folder = tmp_path / "w"
    evil = job(folder, "cal_0", profile={"slurm": {"constraint": "gold"}})
    workflow = prepare(folder, job(folder, "isr_0"), evil)

    for _ in range(2):
        with pytest.raises(Rejected, match="Invalid feature specification"):
            SlurmService({}).submit(workflow)
        assert not slurm.client("squeue", "--noheader")

    assert SlurmService({}).get_status(str(workflow.submit_path))[0] is WmsStates.UNREADY


def test_a_job_that_slurm_takes_no_more_fails_with_its_reason_and_the_workflow_ends(slurm, tmp_path):
    folder = tmp_path / "w"
    evil = job(folder, "isr_0", f"until [ -e {folder}/go ]; do sleep 0.2; done; exit 3", queue="small")
    wms_id = submit(folder, evil, slurmDispatcher={"requestMemory": 200, "queue": "main"})
    wait_until(lambda: running(wms_id, "isr_0"))
    slurm.client("scontrol", "update", "partitionname=small", "state=inactive")
    try:
        (folder / "go").touch()

        found = end_of(wms_id)
    finally:
        slurm.client("scontrol", "update", "partitionname=small", "state=up")

    assert states(found) == {"isr_0": "FAILED", "finalJob": "SUCCEEDED"}
    assert (found.exit_code_summary or {})["isr"] == [3]
    assert "1 refused by Slurm" in str(found.specific_info)
    assert "Required partition not available" in (folder / "submit" / "logs" / "isr" / "isr_0.1.log").read_text()


@pytest.mark.parametrize(
    ("asked", "kind", "complaint"),
    [
        ({"queue": "nowhere"}, Rejected, f"isr: there is no queue nowhere; there are {', '.join(sorted(QUEUES))}"),
        ({"request_memory": 9000}, Rejected, "isr asks for 9000 MB, and the largest node has 4000 MB"),
        ({"request_cpus": 99}, Rejected, "isr asks for 99 CPUs, and the largest node has 8"),
        ({"profile": {"slurm": {"constraint": "gold"}}}, Rejected, "Slurm refuses: .*Invalid feature specification"),
        (
            {"queue": "small", "request_walltime": "100"},
            Rejected,
            "isr asks for 100 minutes, and jobs may take 60 there",
        ),
    ],
)
def test_what_slurm_cannot_do_is_said_in_one_line_and_leaves_nothing(slurm, tmp_path, asked, kind, complaint):
    with pytest.raises(kind, match=complaint) as caught:
        submit(tmp_path / "w", job(tmp_path / "w", "isr_0", **asked))

    assert isinstance(caught.value, OperatorError)
    assert "\n" not in str(caught.value)
    assert not dispatcher_states(slurm)


@contextlib.contextmanager
def file_system(folder: Path, size: str) -> Iterator[None]:
    """Have a file system of its own in a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room in a folder; give the file that takes it."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(folder).free == 0
    return ballast


def test_a_full_submit_folder_is_said_so(slurm, tmp_path):
    folder = tmp_path / "full"
    with (
        file_system(folder, "32k"),
        pytest.raises(SiteFault, match="there is no space left for the submission"),
    ):
        prepare(folder, *(job(folder, f"isr_{n}") for n in range(20)))


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [(fill, "there is no space left for the submission"), (make_read_only, "cannot be written: Read-only file system")],
)
def test_a_submit_folder_that_got_full_or_read_only_is_said_so_and_nothing_is_submitted(
    slurm, tmp_path, spoil, complaint
):
    folder = tmp_path / "spoilt"
    with file_system(folder, "1m"):
        workflow = prepare(folder, job(folder, "isr_0"))
        spoil(folder)

        with pytest.raises(SiteFault, match=complaint):
            SlurmService({}).submit(workflow)

        assert not slurm.client("squeue", "--noheader")


def test_a_submit_folder_that_got_full_halts_no_other_workflow_and_is_gone_on_with_when_there_is_room(slurm, tmp_path):
    folder, other = tmp_path / "w", tmp_path / "other"
    # So many that the record of their ends needs room that isn't there.
    jobs = [job(folder, f"isr_{n}", f"until [ -e {folder}/go ]; do sleep 0.2; done") for n in range(60)]
    jobs += [job(folder, f"cal_{n}") for n in range(60)]
    with file_system(folder / "submit", "4m"):
        wms_id = submit(folder, *jobs, edges=[(f"isr_{n}", f"cal_{n}") for n in range(60)])
        wait_until(lambda: times(folder, "began").total() and "RUNNING" in dispatcher_states(slurm))
        ballast = fill(folder / "submit")
        (folder / "go").touch()
        wait_until(lambda: times(folder, "ended").total())

        assert end_of(submit(other, job(other, "isr_0"))).state is WmsStates.SUCCEEDED
        assert "its submit folder is full" in str(report(wms_id).specific_info)
        ballast.unlink()

        assert end_of(wms_id).state is WmsStates.SUCCEEDED
        assert set(times(folder, "ended")) == {each.name for each in jobs} | {"finalJob"}
        assert "its submit folder is full" not in str(report(wms_id).specific_info)


def test_a_log_that_cannot_be_written_is_said_so(slurm, tmp_path):
    folder = tmp_path / "w"
    workflow = prepare(folder, job(folder, "isr_0", number_of_retries=0))
    logs = folder / "submit" / "logs" / "isr"
    logs.rmdir()
    logs.touch()

    found = end_of(str(SlurmService({}).submit(workflow).run_id))

    assert (found.exit_code_summary or {})["isr"] == [91]
    assert "its log cannot be written on the node" in (folder / "submit" / "events.log").read_text()


def test_a_workflow_is_found_by_the_number_of_its_dispatcher_too(slurm, tmp_path):
    wms_id = submit(tmp_path / "w", job(tmp_path / "w", "isr_0"))
    number = JobStore(Path(wms_id)).read_facts()["dispatcher_job"]

    assert SlurmService({}).report(wms_workflow_id=str(number))[0][0].wms_id == wms_id
    assert SlurmService({}).report(wms_workflow_id="987654") == ([], "no workflow was submitted from 987654")
    end_of(wms_id)
    assert [each.wms_id for each in SlurmService({}).report(hist=1)[0]] == [wms_id]
    assert SlurmService({}).report()[0] == []


def test_few_calls_submit_many_jobs(slurm, tmp_path, monkeypatch):
    calls: list[str] = []
    run = Commands._run

    def counted(self: Commands, program: str, *arguments: str) -> str:
        calls.append(program)
        return run(self, program, *arguments)

    monkeypatch.setattr(Commands, "_run", counted)
    folder = tmp_path / "w"
    jobs = [job(folder, f"{label}_{n}", "sleep 600") for label in ("isr", "cal") for n in range(300)]
    wms_id = submit(folder, *jobs, edges=[(f"isr_{n}", f"cal_{n}") for n in range(300)])

    assert Counter(calls)["sbatch"] == 4
    report(wms_id)
    assert Counter(calls)["squeue"] == 2
    SlurmService({}).cancel(wms_id)
