"""What may run: the jobs of one workflow, and the rules that lead them from state to state.

Belongs here: dependencies, retries, pruning, cancelling and restarting, as functions of values. Doesn't: what a single
job is (`launchers.slurm.jobs`), Slurm's commands or words, files, clocks. Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from launchers.slurm.ends import End, Ending, Mark, Usage
from launchers.slurm.jobs import Element, Job, JobState, Request


def may_retry(job: Job, request: Request, end: End) -> bool:
    """Tell whether a job is tried again after such an end."""
    if job.retries >= request.retries or end.ending is Ending.CANCELLED:
        return False
    if end.ending is Ending.OUT_OF_MEMORY:
        return request.memory_after(job.out_of_memory + 1) > request.memory_after(job.out_of_memory)
    own = end.ending.is_the_jobs_own
    return not (own and (end.exit_code in request.no_retry_codes or end.exit_code == request.abort_code))


class Plan:
    """The jobs of one workflow by their positions; every change returns the positions that it touched.

    Attributes
    ----------
    is_aborted
        Whether a job has ended with the exit code that ends the whole workflow.
    """

    def __init__(self, jobs: Iterable[Job], blocks: Sequence[Request]) -> None:
        self.jobs = list(jobs)
        self.blocks = blocks
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        for position, job in enumerate(self.jobs):
            for before in {*job.parents, *job.waits_for}:
                self._children[before].append(position)
        self._final = [position for position, job in enumerate(self.jobs) if job.is_final]
        self._not_over = sum(not job.state.is_over and not job.is_final for job in self.jobs)
        self.is_aborted = any(self._aborts(job) for job in self.jobs)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self._not_over == 0 and all(self.jobs[position].state.is_over for position in self._final)

    def request(self, position: int) -> Request:
        """Give what a job asks for."""
        return self.blocks[self.jobs[position].block]

    def memory_of(self, position: int) -> int:
        """Memory that a job's next attempt asks for (MB)."""
        return self.request(position).memory_after(self.jobs[position].out_of_memory)

    def in_state(self, *states: JobState) -> list[int]:
        """Give the positions of the jobs in some states."""
        return [position for position, job in enumerate(self.jobs) if job.state in states]

    def settle(self) -> list[int]:
        """Look at every job anew, as after reading the store."""
        return self._look_at(range(len(self.jobs)))

    def placed(self, elements: Mapping[int, Element], *, parked: bool) -> list[int]:
        """Note that jobs have been submitted: parked, to be released when they are ready, or ready and to run."""
        for position, element in elements.items():
            job = self.jobs[position]
            changes = {"element": element, "is_parked": parked, "attempt": job.attempt + 1}
            if parked:
                self.jobs[position] = dataclasses.replace(job, **changes)  # type: ignore[arg-type]
            else:
                self._put(position, job.moved(JobState.PENDING, **changes))
        return list(elements)

    def released(self, positions: Sequence[int]) -> list[int]:
        """Note that ready jobs have been released."""
        for position in positions:
            self._put(position, self.jobs[position].moved(JobState.PENDING, is_parked=False))
        return list(positions)

    def unparked(self, positions: Sequence[int]) -> list[int]:
        """Note that parked jobs are no longer in Slurm: they are submitted anew when they are ready."""
        for position in positions:
            job = self.jobs[position]
            self.jobs[position] = dataclasses.replace(job, element=None, is_parked=False, attempt=job.attempt - 1)
        return list(positions)

    def seen(self, position: int, state: JobState) -> list[int]:
        """Note what Slurm says of a job that is its own."""
        if self.jobs[position].state is state:
            return []
        return self._put(position, self.jobs[position].moved(state))

    def ended(self, position: int, end: End) -> list[int]:
        """Note how a job's attempt ended: it succeeded, is tried again, or failed for good.

        One that aborts the workflow leaves to do what is with Slurm, which the caller cancels there, and the final job.
        """
        job, request = self.jobs[position], self.request(position)
        changes: dict[str, Any] = {"exit_code": end.exit_code, "ending": end.ending, "is_parked": False}
        if end.mark is not None:
            changes |= {"quanta": end.mark.quanta, "quanta_failed": end.mark.quanta_failed}
            changes["usage"] = _summed(job.usage, end.mark.usage)
        elif job.element is not None:
            changes["silent"] = (*job.silent, job.element)
        if end.ending is Ending.SUCCEEDED:
            changed = self._put(position, job.moved(JobState.SUCCEEDED, **changes))
        elif may_retry(job, request, end) and (job.is_final or not self.is_aborted):
            out_of_memory = job.out_of_memory + (end.ending is Ending.OUT_OF_MEMORY)
            again = {"element": None, "retries": job.retries + 1, "out_of_memory": out_of_memory}
            return self._put(position, job.moved(JobState.READY, **changes, **again))
        elif end.ending is Ending.CANCELLED:
            changed = self._put(position, job.moved(JobState.DELETED, **changes))
        else:
            changed = self._put(position, job.moved(JobState.FAILED, **changes))
            if self._aborts(self.jobs[position]):
                self.is_aborted = True
                changed += self._give_up_what_waits()
        return changed + self._look_at([*self._children[position], *self._final])

    def taken_away(self, position: int) -> list[int]:
        """Note that somebody has cancelled a job before it could run."""
        changed = self._put(position, self.jobs[position].moved(JobState.DELETED, ending=Ending.CANCELLED))
        return changed + self._look_at([*self._children[position], *self._final])

    def refused(self, position: int) -> list[int]:
        """Note that Slurm doesn't take a job, however often it is offered."""
        changed = self._put(position, self.jobs[position].moved(JobState.FAILED, ending=Ending.REFUSED))
        return changed + self._look_at([*self._children[position], *self._final])

    def used(self, position: int, usage: Usage) -> list[int]:
        """Note what is known of an attempt that left nothing behind."""
        job = self.jobs[position]
        self.jobs[position] = dataclasses.replace(job, usage=_summed(job.usage, usage))
        return [position]

    def accounted(self, position: int, element: Element, usage: Usage) -> list[int]:
        """Note what accounting knows of an attempt: all of a silent one, of others what they could not say."""
        job = self.jobs[position]
        if element not in job.silent and job.usage.cpu_s:
            usage = dataclasses.replace(usage, cpu_s=0.0)
        silent = tuple(each for each in job.silent if each != element)
        self.jobs[position] = dataclasses.replace(job, silent=silent)
        return self.used(position, usage)

    def told(self, position: int, element: Element, mark: Mark) -> list[int]:
        """Note what an attempt has left behind that was taken for silent."""
        changed = self.accounted(position, element, mark.usage)
        job = self.jobs[position]
        if job.element == element:
            self.jobs[position] = dataclasses.replace(job, quanta=mark.quanta, quanta_failed=mark.quanta_failed)
        return changed

    def cancel(self) -> list[int]:
        """Give up everything that is not over; the caller cancels it in Slurm."""
        given_up = [position for position, job in enumerate(self.jobs) if not job.state.is_over]
        for position in given_up:
            self._put(position, self.jobs[position].moved(JobState.DELETED, is_parked=False))
        return given_up

    def restart(self) -> list[int]:
        """Do again what did not succeed, and the final job after it; nothing where all has succeeded.

        Where Slurm has the final job although there is more to come, the caller cancels it.
        """
        again = self.in_state(JobState.FAILED, JobState.PRUNED, JobState.DELETED)
        is_more_to_come = any(not self.jobs[position].is_final for position in again)
        if is_more_to_come:
            early = [position for position in self._final if self.jobs[position].state is not JobState.UNREADY]
            again += [position for position in early if position not in again]
        fresh: dict[str, Any] = {"element": None, "is_parked": False, "retries": 0, "exit_code": None, "ending": None}
        for position in again:
            self._put(position, self.jobs[position].moved(JobState.UNREADY, **fresh))
        self.is_aborted = False
        return [*dict.fromkeys([*again, *self.settle()])]

    def _aborts(self, job: Job) -> bool:
        if job.state is not JobState.FAILED or job.ending is not Ending.FAILED:
            return False
        return job.exit_code == self.blocks[job.block].abort_code

    def _give_up_what_waits(self) -> list[int]:
        waiting = [n for n in self.in_state(JobState.UNREADY, JobState.READY) if not self.jobs[n].is_final]
        for position in waiting:
            self._put(position, self.jobs[position].moved(JobState.DELETED))
        return waiting

    def _put(self, position: int, job: Job) -> list[int]:
        if not job.is_final:
            self._not_over += int(self.jobs[position].state.is_over) - int(job.state.is_over)
        self.jobs[position] = job
        return [position]

    def _next_state(self, job: Job) -> JobState | None:
        if job.state is not JobState.UNREADY:
            return None
        if job.is_final:
            return JobState.READY if self._not_over == 0 else None
        parents = [self.jobs[parent].state for parent in job.parents]
        if any(state.is_over and state is not JobState.SUCCEEDED for state in parents):
            return JobState.PRUNED
        if all(state.is_over for state in parents) and all(self.jobs[p].state.is_over for p in job.waits_for):
            return JobState.READY
        return None

    def _look_at(self, positions: Iterable[int]) -> list[int]:
        changed: dict[int, None] = {}
        waiting = list(positions)
        while waiting:
            position = waiting.pop()
            state = self._next_state(self.jobs[position])
            if state is not None:
                self._put(position, self.jobs[position].moved(state))
                changed[position] = None
            job = self.jobs[position]
            if job.state is JobState.READY and not job.has_command:
                self._put(position, job.moved(JobState.SUCCEEDED, exit_code=0))
                changed[position] = None
                state = JobState.SUCCEEDED
            if state is not None and state.is_over:
                waiting += [*self._children[position], *self._final]
        return list(changed)


def _summed(one: Usage, other: Usage) -> Usage:
    return Usage(one.cpu_s + other.cpu_s, max(one.memory_mb, other.memory_mb), other.node or one.node)
