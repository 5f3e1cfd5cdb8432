"""HTCondor as the watcher sees it: its files are real, its daemons stand-ins that evaluate what they are asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import classad2
import htcondor2
import pytest
from lsst.ctrl.bps.htcondor import common_utils, htcondor_service, lssthtc

from launchers import watch
from launchers.bps import Handle
from launchers.cancelling import cancel_with_run
from launchers.sites import HTCONDOR
from resources.errors import Retriable, SiteFault

NAME = "dr1_step1a_97a5a4d1_1"
EVENT = "{number:03d} ({cluster}.000.000) 2026-11-01 {time} {text}\n...\n"
SUBMITTED = (0, "Job submitted from host: <10.0.0.1:9618?sock=schedd>")
EXECUTING = (1, "Job executing on host: <10.0.0.1:9618?sock=schedd>")
REMOVED = (9, "Job was aborted.\n\tPython-initiated action. (by user drp)")
RUNNING_AD = {"JobStatus": 2, "DAG_NodesTotal": 3, "DAG_NodesDone": 1, "DAG_NodesReady": 0, "DAG_NodesUnready": 1}


def terminated(code: int) -> tuple[int, str]:
    usage = "".join(
        f"\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  {kind} Usage\n"
        for kind in ("Run Remote", "Run Local", "Total Remote", "Total Local")
    )
    sent = "\n".join(f"\t0  -  {when} Bytes {way} By Job" for when in ("Run", "Total") for way in ("Sent", "Received"))
    return 5, f"Job terminated.\n\t(1) Normal termination (return value {code})\n{usage}{sent}"


class Pool:
    """A schedd with its queue, and a collector that knows it."""

    def __init__(self) -> None:
        self.queue: list[dict[str, Any]] = []
        self.is_away = 0
        self.schedd = create_autospec(htcondor2.Schedd, instance=True)
        self.schedd.query.side_effect = self.query
        self.schedd.history.side_effect = AssertionError("a schedd's history is long, and asking it takes long")
        self.schedd.act.return_value = {"TotalSuccess": 1, "TotalError": 0}
        self.collector = create_autospec(htcondor2.Collector, instance=True)
        self.collector.locate.side_effect = self.locate

    def locate(self, *_: Any) -> classad2.ClassAd:
        if self.is_away:
            self.is_away -= 1
            raise htcondor2.HTCondorException("Unable to locate local daemon.")
        return classad2.ClassAd({"Name": "schedd"})

    def query(self, constraint: str = "True", *_: Any, **__: Any) -> list[classad2.ClassAd]:
        asked = classad2.ExprTree(constraint)
        return [ad for ad in map(classad2.ClassAd, self.queue) if asked.eval(ad) is True]


@pytest.fixture
def pool(monkeypatch) -> Pool:
    pool = Pool()
    for module in (lssthtc, htcondor_service, common_utils):
        monkeypatch.setattr(module, "Collector", lambda: pool.collector)
        monkeypatch.setattr(module, "Schedd", lambda *_, **__: pool.schedd)
    return pool


@pytest.fixture
def handle(tmp_path) -> Handle:
    """A DAG of two jobs and a final one, as its submitter has left it."""
    folder = tmp_path / "submit"
    folder.mkdir()
    jobs = ("JOB 1_isr", "JOB 2_isr", "FINAL finalJob")
    (folder / f"{NAME}.dag").write_text("".join(f'{job} "job.sub" DIR "jobs"\n' for job in jobs))
    (folder / f"{NAME}.dag.dagman.out").touch()
    facts = {"ClusterId": 77, "GlobalJobId": "schedd#77.0", "bps_run": NAME, "bps_job_summary": "isr:2;finalJob:1"}
    (folder / f"{NAME}.info.json").write_text(json.dumps({"schedd": {"77.0": facts | {"bps_run_quanta": "isr:2"}}}))
    log(folder, SUBMITTED)
    return Handle(HTCONDOR, str(folder), NAME, str(folder))


def log(folder: Path, *events: tuple[int, str], cluster: int = 77) -> None:
    """Have HTCondor write down what happened to DAGMan."""
    with (folder / f"{NAME}.dag.dagman.log").open("a") as file:
        for number, text in events:
            file.write(EVENT.format(number=number, cluster=cluster, time="20:00:00", text=text))


def write_nodes(folder: Path, *states: int) -> None:
    """Have DAGMan write down how its nodes are."""
    nodes = "".join(
        f'[\n  Type = "NodeStatus";\n  Node = "{name}";\n  NodeStatus = {state};\n  StatusDetails = "";\n'
        "  RetryCount = 0;\n  JobProcsQueued = 0;\n  JobProcsHeld = 0;\n]\n"
        for name, state in zip(("1_isr", "2_isr", "finalJob"), states, strict=True)
    )
    counts = f"  NodesTotal = 3;\n  NodesDone = {states.count(5)};\n  NodesFailed = {states.count(6)};\n"
    (folder / f"{NAME}.node_status").write_text(f'[\n  Type = "DagStatus";\n{counts}]\n{nodes}')


def ad(handle: Handle, cluster: int = 77, **changes: Any) -> dict[str, Any]:
    return {
        "ClusterId": cluster,
        "ProcId": 0,
        "GlobalJobId": f"schedd#{cluster}.0",
        "Cmd": "/usr/bin/condor_dagman",
        "Iwd": handle.submit_path,
        "JobUniverse": 7,
        "Owner": "drp",
        "bps_isjob": "True",
        "bps_run": NAME,
        "bps_job_summary": "isr:2;finalJob:1",
    } | changes


@pytest.mark.parametrize(
    ("end", "nodes", "state"),
    [
        (terminated(0), (5, 5, 5), "SUCCEEDED"),
        (terminated(1), (5, 6, 5), "FAILED"),
        (REMOVED, (5, 0, 5), "DELETED"),
    ],
)
def test_watching_ends_with_a_dag_that_has_left_the_queue(pool, handle, end, nodes, state):
    folder = Path(handle.submit_path)
    log(folder, EXECUTING, end)
    write_nodes(folder, *nodes)

    last = watch.watch(handle, poll_s=0.0, silence_s=0.0)

    assert last.state == state
    assert sum(last.jobs.values()) == 3
    assert last.jobs["SUCCEEDED"] == nodes.count(5)


@pytest.mark.parametrize(
    ("queued", "state", "jobs"),
    [
        ({"JobStatus": 1}, "PENDING", {}),
        (RUNNING_AD, "RUNNING", {"UNREADY": 1, "SUCCEEDED": 1}),
        (RUNNING_AD | {"JobStatus": 5}, "HELD", {"UNREADY": 1, "SUCCEEDED": 1}),
        (RUNNING_AD | {"JobStatus": 3}, "RUNNING", {"UNREADY": 1, "SUCCEEDED": 1}),
    ],
    ids=["DAGMan waits", "DAGMan runs", "somebody holds it", "it is being removed"],
)
def test_a_dag_in_the_queue_is_as_far_as_the_queue_says(pool, handle, queued, state, jobs):
    pool.queue = [ad(handle, **queued), ad(handle, 99, Iwd="/elsewhere", JobStatus=4)]

    seen = watch.look(handle)

    assert (seen.state, seen.jobs) == (state, jobs)


@pytest.mark.parametrize(("end", "state"), [(terminated(1), "FAILED"), (REMOVED, "DELETED")])
def test_a_dagman_that_ended_before_it_wrote_anything_has_ended_too(pool, handle, end, state):
    log(Path(handle.submit_path), end)

    assert watch.look(handle).state == state


def test_a_dag_that_is_gone_without_a_word_is_a_fault(pool, handle):
    log(Path(handle.submit_path), EXECUTING)
    write_nodes(Path(handle.submit_path), 5, 3, 0)

    with pytest.raises(SiteFault, match=r"DAGMan has left the queue, and its log in .* doesn't say how"):
        watch.watch(handle, poll_s=0.001, silence_s=0.01)


def test_a_schedd_that_is_restarted_is_waited_for(pool, handle):
    log(Path(handle.submit_path), EXECUTING, terminated(0))
    write_nodes(Path(handle.submit_path), 5, 5, 5)
    pool.is_away = 3

    assert watch.watch(handle, poll_s=0.0, silence_s=5.0).state == "SUCCEEDED"
    assert pool.is_away == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda service, folder: service.report(folder),
        lambda service, folder: service.report(),
        lambda service, folder: service.restart("77.0"),
        lambda service, folder: service.cancel("77.0"),
        lambda service, folder: service.list_submitted_jobs(folder),
    ],
)
def test_every_question_to_a_schedd_that_is_away_is_worth_another_try(pool, handle, ask: Callable[..., Any]):
    pool.is_away = 10

    with pytest.raises(Retriable, match=r"condor_schedd: HTCondor doesn't answer: Unable to locate local daemon\."):
        ask(handle.service(), handle.wms_id)


def test_cancelling_takes_dagman_itself_out_of_the_queue(pool, handle):
    pool.queue = [ad(handle, **RUNNING_AD), ad(handle, 99, Iwd="/elsewhere")]

    assert watch.cancel(handle) == (True, "")
    pool.schedd.act.assert_called_once_with(htcondor2.JobAction.Remove, "ClusterId == 77")


def test_cancelling_while_the_schedd_is_away_says_how_to_do_it_by_hand(pool, handle):
    pool.is_away = 10

    is_cancelled, said = cancel_with_run(handle, "run")

    assert not is_cancelled
    assert said.endswith(f"bps cancel --wms-service-class {HTCONDOR} --id {handle.submit_path}")


def test_a_restarted_dag_is_the_same_one_under_another_number(pool, handle, monkeypatch):
    folder = Path(handle.submit_path)
    log(folder, EXECUTING, REMOVED)
    write_nodes(folder, 5, 0, 5)
    assert watch.look(handle).state == "DELETED"
    (folder / f"{NAME}.dag.rescue001").touch()
    (folder / f"{NAME}.dag.condor.sub").touch()

    def submit(sub: object) -> dict[str, dict[str, dict[str, Any]]]:
        log(folder, SUBMITTED, cluster=78)
        pool.queue = [ad(handle, 78, JobStatus=1)]
        return {"schedd": {"78.0": dict(pool.queue[0])}}

    monkeypatch.setattr(
        htcondor_service, "htc_submit_dag", create_autospec(htcondor_service.htc_submit_dag, side_effect=submit)
    )

    assert watch.restart(handle) == handle

    assert watch.look(handle).state == "PENDING"
    assert watch.cancel(handle) == (True, "")
    pool.schedd.act.assert_called_once_with(htcondor2.JobAction.Remove, "ClusterId == 78")
    pool.queue = []
    log(folder, EXECUTING, terminated(0), cluster=78)
    write_nodes(folder, 5, 5, 5)
    assert watch.look(handle).state == "SUCCEEDED"


def test_reports_name_dags_by_their_folders(pool, handle):
    pool.queue = [ad(handle, **RUNNING_AD)]

    (report,), _ = handle.service().report(hist=None)

    assert (report.wms_id, report.run) == (handle.submit_path, NAME)
