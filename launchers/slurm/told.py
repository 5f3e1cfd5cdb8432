"""What a workflow's record tells of the jobs that some quanta were in.

Belongs here: `job_ends`, from the record to `launchers.job_ends.JobEnd`. Doesn't: finding out how a job ended
(`launchers.slurm.ends`), or asking Slurm. Standard library only.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection

from launchers.job_ends import LOST_WITH_NODE, JobEnd, by_quantum, log_url
from launchers.slurm.ends import Ending
from launchers.slurm.jobs import Job, JobState
from launchers.slurm.store import JobStore, file_name


def job_ends(store: JobStore, quanta: Collection[uuid.UUID]) -> dict[uuid.UUID, JobEnd]:
    """Tell how the jobs ended that some quanta were in, as far as they did not succeed.

    Parameters
    ----------
    store
        The workflow's record.
    quanta
        Their identifiers in the graph.
    """
    plan, _ = store.read()
    bad = (job for job in plan.jobs if job.state in {JobState.FAILED, JobState.DELETED} and not job.is_final)
    scripts = ((store.submit_path / "jobs" / f"{file_name(job)}.sh", _end(store, job)) for job in bad)
    return by_quantum(quanta, scripts)


def _end(store: JobStore, job: Job) -> JobEnd:
    ending = "" if job.ending is None or job.ending.is_the_jobs_own else job.ending.value
    if job.ending is Ending.LOST_NODE and job.usage.node:
        ending = f"{LOST_WITH_NODE} node {job.usage.node}"
    return JobEnd(ending, job.usage.node, job.usage.memory_mb, log_url(store.log(job, job.attempt)))
