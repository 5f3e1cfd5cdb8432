"""Workflows of jobs that write down that they ran, and what one asks of them while they do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from lsst.ctrl.bps import BpsConfig, GenericWorkflow, GenericWorkflowExec, GenericWorkflowJob, WmsRunReport

from launchers.slurm import dispatcher
from launchers.slurm.service import SlurmService
from launchers.slurm.store import JobStore
from launchers.slurm.workflow import SlurmWorkflow
from services.slurm import Slurm

BASH = GenericWorkflowExec("bash", "bash", False)
SETTINGS = {"computeSite": "slurm", "slurmPollInterval": 1, "slurmDispatcher": {"requestMemory": 200}}
PATIENCE_S = 240.0


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


def recorded(wms_id: str) -> dict[str, str]:
    """How jobs are as whoever conducts them has written down, whatever Slurm says by now."""
    return {each.name: each.state.name for each in JobStore(Path(wms_id)).read()[0].jobs}


def times(folder: Path, what: str) -> Counter[str]:
    """How often each job began, or ended."""
    path = folder / what
    return Counter(path.read_text().split() if path.exists() else ())


def running(wms_id: str, name: str) -> bool:
    return states(report(wms_id))[name] == "RUNNING"


def dispatcher_states(slurm: Slurm) -> list[str]:
    return [state for state, _ in _dispatchers(slurm)]


def cancel_dispatchers(slurm: Slurm) -> None:
    """Cancel all dispatchers, as somebody may who doesn't know what they are."""
    slurm.client("scancel", *(job for _, job in _dispatchers(slurm)))


def _dispatchers(slurm: Slurm) -> list[list[str]]:
    lines = slurm.client("squeue", "--noheader", "--format=%T %i %j").splitlines()
    return [line.split()[:2] for line in lines if f" {dispatcher.JOB_NAME}" in line]


def node_of(slurm: Slurm, wms_id: str, name: str) -> str:
    (element,) = [each.element for each in JobStore(Path(wms_id)).read()[0].jobs if each.name == name]
    return slurm.client("squeue", "--noheader", f"--jobs={element}", "--format=%N").strip()
