"""What submitting ten thousand jobs to Slurm takes, and reporting on them: ``python -m benchmarks.slurm``.

The workflow is of ctrl_bps's own kind, with 4,900 chains of two jobs (``isr``, ``calibrateImage``), 199 jobs that each
need many of those, and a final job. Slurm is a real one, with accounting, on this machine; its jobs sleep, so that what
is measured is not their running.

``submit_s``, ``submit_cpu_s``
    From the generic workflow to the dispatcher in the queue: writing scripts and record, submitting the arrays; wall
    time, and processor time of this process and the commands it started.
``submit_sbatch_calls``
    How often ``sbatch`` was called meanwhile.
``report_pending_s``
    ``SlurmService.report`` while all jobs wait or run (median of three).
``report_over_s``
    The same when the workflow is over (it was cancelled).
``cancel_s``
    Cancelling it.
``parsl_prepare_s``
    Preparing the same workflow with ctrl_bps_parsl, in the same process; left out where that is not installed
    (``uv run --with lsst-ctrl-bps-parsl python -m benchmarks.slurm``). Its submit returns when the last job has ended,
    and it has no report to compare with.

Belongs here: the workflow, the timing and the figures. Doesn't: how many jobs a second Slurm starts on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lsst.ctrl.bps import BpsConfig, GenericWorkflow, GenericWorkflowExec, GenericWorkflowJob
from rich.console import Console

from benchmarks.ending import end_in_order
from benchmarks.report import Machine, Report, Result
from launchers.slurm.service import SlurmService
from services.slurm import ClusterShape, Slurm

JOBS = 10_000
SUBMIT_TARGET_S = 15.0
CALLS_TARGET = 20.0
REPORT_TARGET_S = 3.0
_MERGES = 199
_REPORTS = 3


def make_workflow(jobs: int) -> GenericWorkflow:
    """Make a workflow of chains, of what joins them, and of a final job.

    Parameters
    ----------
    jobs
        How many altogether.
    """
    workflow = GenericWorkflow("ten_thousand")
    merges = max(1, jobs * _MERGES // JOBS)
    chains = (jobs - 1 - merges) // 2
    for number in range(chains):
        workflow.add_job(_job("isr", number))
        workflow.add_job(_job("calibrateImage", number), [f"isr_{number}"])
    for number in range(merges):
        parents = [f"calibrateImage_{chain}" for chain in range(number, chains, merges)]
        workflow.add_job(_job("consolidate", number), parents)
    workflow.add_final(_job("finalJob", 0))
    return workflow


def _job(label: str, number: int) -> GenericWorkflowJob:
    return GenericWorkflowJob(
        f"{label}_{number}",
        label,
        executable=GenericWorkflowExec("sleep", "sleep", False),
        arguments="600",
        request_memory=100,
        request_cpus=1,
        number_of_retries=2,
        memory_multiplier=2.0,
        request_memory_max=1000,
    )


@contextlib.contextmanager
def counted_calls(folder: Path) -> Iterator[Callable[[], int]]:
    """Count how often ``sbatch`` is called.

    Parameters
    ----------
    folder
        For what counts; there already.
    """
    real, calls = shutil.which("sbatch"), folder / "calls"
    calls.touch()
    wrapper = folder / "sbatch"
    wrapper.write_text(f'#!/bin/sh\necho >>{calls}\nexec {real} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{before}"
    try:
        yield lambda: len(calls.read_text().splitlines())
    finally:
        os.environ["PATH"] = before


def _cpu_s() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _timed(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def measure(folder: Path, jobs: int, console: Console) -> list[Result]:
    """Submit, report and cancel.

    Parameters
    ----------
    folder
        For the submission; there already.
    jobs
        How many.
    console
        Is told how far it is.
    """
    service, workflow = SlurmService({}), make_workflow(jobs)
    submit_path = str(folder / "submit")
    console.print(f"Submitting {sum(workflow.job_counts.values())} jobs")
    with counted_calls(folder) as calls:
        cpu_s = _cpu_s()
        config = BpsConfig({"computeSite": "slurm", "slurmPollInterval": 5})
        submit_s = _timed(lambda: service.submit(service.prepare(config, workflow, submit_path)))
        cpu_s = _cpu_s() - cpu_s
        count = calls()
    console.print("Reporting")
    pending = [_timed(lambda: service.report(wms_workflow_id=submit_path)) for _ in range(_REPORTS)]
    console.print("Cancelling")
    cancel_s = _timed(lambda: service.cancel(submit_path))
    over = [_timed(lambda: service.report(wms_workflow_id=submit_path)) for _ in range(_REPORTS)]
    results = [
        Result("submit_s", submit_s, "s", SUBMIT_TARGET_S),
        Result("submit_cpu_s", cpu_s, "s"),
        Result("submit_sbatch_calls", count, "", CALLS_TARGET),
        Result("report_pending_s", statistics.median(pending), "s", REPORT_TARGET_S),
        Result("report_over_s", statistics.median(over), "s", REPORT_TARGET_S),
        Result("cancel_s", cancel_s, "s"),
    ]
    parsl_s = time_parsl(folder, jobs)
    if parsl_s is None:
        console.print("ctrl_bps_parsl is not installed: nothing to compare with")
    else:
        results.append(Result("parsl_prepare_s", parsl_s, "s"))
    return results


def time_parsl(folder: Path, jobs: int) -> float | None:
    """Time ctrl_bps_parsl's preparation of the same workflow; None where it isn't installed.

    Parameters
    ----------
    folder
        For what it writes.
    jobs
        How many.
    """
    try:
        parsl = importlib.import_module("lsst.ctrl.bps.parsl")
    except ModuleNotFoundError:
        return None
    target = folder / "parsl"
    target.mkdir()
    site = {"local": {"class": "lsst.ctrl.bps.parsl.sites.Local", "cores": 1}}
    config = BpsConfig(
        {"computeSite": "local", "site": site, "submitPath": str(target), "subDirTemplate": "{label}", "project": "p"}
    )
    workflow = make_workflow(jobs)
    return _timed(lambda: parsl.ParslService(config).prepare(config, workflow, str(target)))


def main() -> None:
    """Measure, print, and write the results' file; a missed target is no error."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="benchmarks.slurm", description="Submitting to Slurm, and reporting.")
    parser.add_argument("--jobs", type=int, default=JOBS, help="how many")
    options = parser.parse_args()
    console = Console(highlight=False)
    machine = Machine.here()
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "home")
        with Slurm(folder / "cluster", ClusterShape(accounting=True)) as cluster:
            os.environ.update(cluster.variables)
            report = Report("slurm", machine, tuple(measure(folder, options.jobs, console)))
    console.print(report.table())
    console.print(f"Written to {report.write()}")


if __name__ == "__main__":
    main()
