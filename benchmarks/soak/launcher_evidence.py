"""What is seen of a trial that is over: in Dagster, Slurm and its submit folder, provenance, Butler and ``/proc``.

Belongs here: looking. Doesn't: what must be seen (`benchmarks.soak.launcher_trials`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import dagster as dg
from lsst.daf.butler import Butler

from benchmarks.soak.launcher_site import LauncherSite
from benchmarks.soak.launcher_trials import DETECTORS, OUTPUTS, Evidence, Trial, site_bps
from launchers import bps, reattach, watch
from launchers.judging import read_outcome
from launchers.slurm.commands import Slurm, user_name
from launchers.slurm.dispatcher import COMMENT
from launchers.slurm.store import JobStore
from launchers.submission import StepRequest
from resources.errors import Retriable

_GONE_WITHIN_S = 90.0
_POLL_S = 0.5


def look(site: LauncherSite, instance: dg.DagsterInstance, trial: Trial, *, judged: bool) -> Evidence:
    """Look at everything that a trial has left.

    Parameters
    ----------
    site, instance
        Where it ran.
    trial
        It is over, as far as Dagster says.
    judged
        Whether there is provenance to be read.
    """
    left = _left_behind(site, instance, trial)
    runs = site.runs(instance, trial)
    request = trial.request(site.folder, site_bps())
    handles = {handle.name for run in runs for handle in reattach.submissions_of_run(instance, run.run_id)}
    handle = bps.find(request.folder)
    jobs = JobStore(request.submit_path).read()[0].jobs if handle is not None else []
    outcome = read_outcome(request, handle) if judged and handle is not None else None
    return Evidence(
        run=str(runs[0].status.value) if runs else "never there",
        submissions=tuple(sorted(handles)),
        collections=_collections(request),
        workflow=watch.look(handle).state if handle is not None else "never there",
        jobs=Counter(job.state.name for job in jobs),
        completed=_completed(request),
        out_of_memory=max((job.out_of_memory for job in jobs), default=0),
        tasks=dict(outcome.tasks) if outcome else None,
        failed=tuple((each.task, int(each.data_id["detector"])) for each in outcome.failures) if outcome else (),
        datasets=_datasets(request),
        left=tuple(left),
    )


def running_jobs(request: StepRequest) -> Mapping[str, str]:
    """Give the nodes of a submission's jobs that Slurm runs, by their numbers there; the dispatcher is no job."""
    queue = Slurm().queue(user_name()).of_folder(str(request.submit_path))
    return {str(one.job): one.node for one in queue if one.state == "RUNNING" and one.comment != COMMENT}


def _completed(request: StepRequest) -> int:
    queue = Slurm().queue(user_name()).of_folder(str(request.submit_path))
    return sum(one.state == "COMPLETED" and one.comment != COMMENT for one in queue)


def _collections(request: StepRequest) -> tuple[str, ...]:
    with Butler.from_config(request.butler) as butler:
        return tuple(sorted(butler.collections.query(f"{request.key.release}/*")))


def _datasets(request: StepRequest) -> Mapping[str, int]:
    """Count the datasets that a trial has made and that have the right value."""
    right = {"toy_doubled": lambda number: 2 * number, "toy_squared": lambda number: (2 * number) ** 2}
    found: Counter[str] = Counter()
    collections = _collections(request)
    with Butler.from_config(request.butler) as butler:
        for name in OUTPUTS.values():
            if not collections or not butler.registry.queryDatasetTypes(name):
                continue
            for ref in butler.query_datasets(name, collections=collections, explain=False, find_first=False):
                detector = int(ref.dataId["detector"])
                found[name] += butler.get(ref) == {"value": right[name](detector)} and detector < DETECTORS
    return found


def _left_behind(site: LauncherSite, instance: dg.DagsterInstance, trial: Trial) -> list[str]:
    """Wait until nothing is left, and give what is left after all patience."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    while (left := _there(site, instance, trial)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


def _there(site: LauncherSite, instance: dg.DagsterInstance, trial: Trial) -> list[str]:
    runs = site.runs(instance, trial)
    try:
        queued = [one for one in Slurm().queue(user_name()).elements.values() if not one.is_over]
    except Retriable as error:
        return [str(error)]
    on_nodes = [(node.node, pid) for node in site.slurm.nodes for pid in node.processes()]
    return [
        *(f"run {run.run_id[:8]} is {run.status.value}" for run in runs if not run.is_finished),
        *(f"worker {worker.pid}" for worker in site.workers(runs)),
        *(f"Slurm has job {one.element} {one.name} {one.state}" for one in queued),
        *(f"process {pid} on {node}" for node, pid in on_nodes),
        *(f"process {pid}: {command[:80]}" for pid, command in site.strays().items()),
    ]
