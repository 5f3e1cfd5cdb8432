"""What runs next: the jobs of one workflow, their states, and the rules that lead from one to the next.

Belongs here: the transition table, dependencies, retries, pruning, cancelling and restarting, as functions of values.
Doesn't: processes, files, clocks (`launchers.local.driver`, `launchers.local.store`). Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class JobState(Enum):
    """State of a job; the names are those of ``lsst.ctrl.bps.WmsStates``."""

    UNREADY = "UNREADY"
    READY = "READY"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    PRUNED = "PRUNED"
    DELETED = "DELETED"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to the job unless the workflow is restarted."""
        return self in _OVER


_OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.PRUNED, JobState.DELETED})

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.UNREADY: frozenset({JobState.READY, JobState.PRUNED, JobState.DELETED}),
    JobState.READY: frozenset({JobState.RUNNING, JobState.SUCCEEDED, JobState.DELETED, JobState.UNREADY}),
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.READY, JobState.DELETED, JobState.UNREADY}
    ),
    JobState.SUCCEEDED: frozenset({JobState.UNREADY}),
    JobState.FAILED: frozenset({JobState.UNREADY}),
    JobState.PRUNED: frozenset({JobState.UNREADY}),
    JobState.DELETED: frozenset({JobState.UNREADY}),
}
"""What may follow a state: READY after RUNNING is a retry, SUCCEEDED after READY a job without work, UNREADY a
restart."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job: what BPS asked for, and how far it is.

    Parameters
    ----------
    name, label
        Its unique name, and the name it shares with its like.
    parents
        Jobs that must have succeeded before it.
    waits_for
        Jobs that must be over before it, however they ended.
    cpus, memory_mb
        What it takes of the machine.
    walltime_s
        Longest it may run; None for as long as it likes.
    retries
        How often it is tried again.
    no_retry_codes
        Exit codes after which it is not.
    abort_code
        Exit code that ends the whole workflow but for its final job.
    has_command
        False for a node that only orders others.
    is_final
        Whether it comes after all others, always.
    """

    name: str
    label: str
    parents: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    cpus: int = 1
    memory_mb: int = 0
    walltime_s: float | None = None
    retries: int = 0
    no_retry_codes: frozenset[int] = frozenset()
    abort_code: int | None = None
    has_command: bool = True
    is_final: bool = False
    state: JobState = JobState.UNREADY
    attempt: int = 0
    exit_code: int | None = None

    def moved(self, state: JobState, **changes: int | None) -> Job:
        """Return the job in another state.

        Raises
        ------
        ValueError
            The transition table doesn't know such a step.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"{self.name}: {self.state.name} cannot become {state.name}")
        return dataclasses.replace(self, state=state, **changes)  # type: ignore[arg-type]

    def may_retry(self, exit_code: int) -> bool:
        """Whether the job is tried again after it ended so."""
        return self.attempt <= self.retries and exit_code not in self.no_retry_codes and exit_code != self.abort_code


class Plan:
    """The jobs of one workflow; every change returns the jobs that it touched, for the store to write down."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._children: dict[str, list[str]] = defaultdict(list)
        for job in self._jobs.values():
            for before in {*job.parents, *job.waits_for}:
                self._children[before].append(job.name)
        self._final = [job.name for job in self._jobs.values() if job.is_final]
        self._not_over = sum(not job.state.is_over and not job.is_final for job in self._jobs.values())

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name."""
        return self._jobs

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return all(job.state.is_over for job in self._jobs.values())

    def settle(self) -> list[Job]:
        """Look at every job anew, as after reading the store."""
        return self._look_at(list(self._jobs))

    def startable(self, cpus: int, memory_mb: int | None) -> list[Job]:
        """Name the ready jobs that fit beside those running, in order; one too big for the machine runs alone."""
        running = [job for job in self._jobs.values() if job.state is JobState.RUNNING]
        cpus -= sum(job.cpus for job in running)
        memory = None if memory_mb is None else memory_mb - sum(job.memory_mb for job in running)
        chosen: list[Job] = []
        for job in self._jobs.values():
            if job.state is not JobState.READY:
                continue
            fits = job.cpus <= cpus and (memory is None or job.memory_mb <= memory)
            if not fits and (running or chosen):
                continue
            chosen.append(job)
            cpus -= job.cpus
            memory = None if memory is None else memory - job.memory_mb
        return chosen

    def started(self, name: str) -> list[Job]:
        """Note that a job's process is about to start."""
        job = self._jobs[name]
        return [self._put(job.moved(JobState.RUNNING, attempt=job.attempt + 1, exit_code=None))]

    def not_started(self, name: str) -> list[Job]:
        """Note that a job's process never did anything: the attempt doesn't count."""
        job = self._jobs[name]
        return [self._put(job.moved(JobState.READY, attempt=job.attempt - 1))]

    def ended(self, name: str, exit_code: int) -> list[Job]:
        """Note how a job's process ended: it succeeded, is tried again, or failed for good.

        Where it aborts the workflow, the others are given up; the caller ends their processes.
        """
        job = self._jobs[name]
        if exit_code == 0:
            changed = [self._put(job.moved(JobState.SUCCEEDED, exit_code=0))]
        elif job.may_retry(exit_code):
            return [self._put(job.moved(JobState.READY, exit_code=exit_code))]
        else:
            changed = [self._put(job.moved(JobState.FAILED, exit_code=exit_code))]
            if exit_code == job.abort_code:
                changed += self._give_up(other for other in self._jobs.values() if not other.is_final)
        return changed + self._look_at([*self._children[name], *self._final])

    def cancel(self) -> list[Job]:
        """Give up everything that is not over; the caller ends the processes."""
        return self._give_up(self._jobs.values())

    def restart(self) -> list[Job]:
        """Do again what did not succeed, and the final job after it; what runs still, runs on.

        Where the final job runs although there is more to come, the caller ends it.
        """
        bad = {JobState.FAILED, JobState.PRUNED, JobState.DELETED}
        again = [job for job in self._jobs.values() if job.state in bad]
        if any(not job.is_final for job in again):
            early = {JobState.READY, JobState.RUNNING, JobState.SUCCEEDED}
            again += [job for name in self._final if (job := self._jobs[name]).state in early]
        changed = [self._put(job.moved(JobState.UNREADY, attempt=0, exit_code=None)) for job in again]
        return changed + self.settle()

    def _give_up(self, jobs: Iterable[Job]) -> list[Job]:
        return [self._put(job.moved(JobState.DELETED)) for job in list(jobs) if not job.state.is_over]

    def _put(self, job: Job) -> Job:
        if not job.is_final:
            self._not_over += int(self._jobs[job.name].state.is_over) - int(job.state.is_over)
        self._jobs[job.name] = job
        return job

    def _next_state(self, job: Job) -> JobState | None:
        if job.state is not JobState.UNREADY:
            return None
        if job.is_final:
            return JobState.READY if self._not_over == 0 else None
        parents = [self._jobs[name].state for name in job.parents]
        if any(state.is_over and state is not JobState.SUCCEEDED for state in parents):
            return JobState.PRUNED
        over = all(state.is_over for state in parents) and all(self._jobs[n].state.is_over for n in job.waits_for)
        return JobState.READY if over else None

    def _look_at(self, names: list[str]) -> list[Job]:
        changed: dict[str, Job] = {}
        waiting = list(names)
        while waiting:
            job = self._jobs[waiting.pop()]
            state = self._next_state(job)
            if state is not None:
                job = changed[job.name] = self._put(job.moved(state))
            if job.state is JobState.READY and not job.has_command:
                job = changed[job.name] = self._put(job.moved(JobState.SUCCEEDED, exit_code=0))
                state = JobState.SUCCEEDED
            if state is not None and job.state.is_over:
                waiting += [*self._children[job.name], *self._final]
        return list(changed.values())
