"""One job of a workflow: what it asks for, its states, and which may follow which.

Belongs here: those values, and the transition table. Doesn't: what follows for a job from the others
(`launchers.slurm.plan`), Slurm's commands or words, files, clocks. Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from launchers.slurm.ends import NO_USAGE, Ending, Usage, memory_mb


class JobState(Enum):
    """State of a job; the names are those of ``lsst.ctrl.bps.WmsStates``."""

    UNREADY = "UNREADY"
    READY = "READY"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    HELD = "HELD"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    PRUNED = "PRUNED"
    DELETED = "DELETED"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to the job unless the workflow is restarted."""
        return self in _OVER

    @property
    def is_with_slurm(self) -> bool:
        """Whether it is Slurm's turn."""
        return self in _WITH_SLURM


_OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.PRUNED, JobState.DELETED})
_WITH_SLURM = frozenset({JobState.PENDING, JobState.RUNNING, JobState.HELD})
_ENDS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.READY, JobState.DELETED, JobState.UNREADY})

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.UNREADY: frozenset({JobState.READY, JobState.PRUNED, JobState.DELETED}),
    JobState.READY: frozenset(
        {JobState.PENDING, JobState.SUCCEEDED, JobState.FAILED, JobState.DELETED, JobState.UNREADY}
    ),
    JobState.PENDING: _ENDS | {JobState.RUNNING, JobState.HELD},
    JobState.RUNNING: _ENDS | {JobState.PENDING, JobState.HELD},
    JobState.HELD: _ENDS | {JobState.PENDING, JobState.RUNNING},
    JobState.SUCCEEDED: frozenset({JobState.UNREADY}),
    JobState.FAILED: frozenset({JobState.UNREADY}),
    JobState.PRUNED: frozenset({JobState.UNREADY}),
    JobState.DELETED: frozenset({JobState.UNREADY}),
}
"""What may follow a state: READY after one that is with Slurm is a retry, SUCCEEDED after READY a job without work,
FAILED after READY one that Slurm doesn't take, PENDING after RUNNING a job that Slurm has put back into its queue,
UNREADY a restart."""


@dataclass(frozen=True, slots=True)
class Element:
    """A job as Slurm knows it: an array's number, and the task's in it."""

    array: int
    task: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `__str__` wrote."""
        array, _, task = text.partition("_")
        return cls(int(array), int(task))

    def __str__(self) -> str:
        return f"{self.array}_{self.task}"


@dataclass(frozen=True, slots=True)
class Request:
    """What all jobs of a block ask for.

    Parameters
    ----------
    label
        The name that they share.
    cpus, memory_mb, disk_mb
        What each takes of a node; no memory or disk: the site's default.
    memory_limit_mb, memory_multiplier
        How far, and by how much, memory grows when it did not suffice.
    walltime_min
        Longest that one may run; None: as the site says.
    retries
        How often one is tried again.
    no_retry_codes
        Exit codes after which it is not.
    abort_code
        Exit code that ends the whole workflow, but for its final job.
    preemptible
        Whether Slurm may put a running one back into its queue.
    urgency
        Those of higher urgency come first among the jobs of the workflow.
    limits
        Names of what only so many jobs may have at once, whichever workflow they belong to; with how many of it each
        takes if that is more than one (``"db_limit:2"``).
    options
        Further options of ``sbatch``, such as partition, account, QOS.
    """

    label: str
    cpus: int = 1
    memory_mb: int = 0
    disk_mb: int = 0
    memory_limit_mb: int | None = None
    memory_multiplier: float | None = None
    walltime_min: int | None = None
    retries: int = 0
    no_retry_codes: tuple[int, ...] = ()
    abort_code: int | None = None
    preemptible: bool = True
    urgency: int = 0
    limits: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def memory_after(self, out_of_memory: int) -> int:
        """Memory to ask for when a job ran out of it so many times (MB)."""
        return memory_mb(self.memory_mb, self.memory_multiplier, self.memory_limit_mb, out_of_memory)

    def limited_by(self, known: Collection[str]) -> Self:
        """Return the request with those of its limits that the cluster knows."""
        return dataclasses.replace(self, limits=tuple(each for each in self.limits if limit_name(each) in known))


@dataclass(frozen=True, slots=True)
class Job:
    """One job: what BPS asked for, and how far it is.

    Parameters
    ----------
    name, label
        Its unique name, and the name it shares with its like.
    block, place
        Which block it belongs to, and where in it.
    parents
        Positions of the jobs that must have succeeded before it.
    waits_for
        Positions of the jobs that must be over before it, however they ended.
    has_command
        False for a node that only orders others.
    is_final
        Whether it comes after all others, always.
    element
        What it is in Slurm, in its last attempt.
    is_parked
        Whether it waits there for its release.
    attempt
        Number of its last attempt.
    retries, out_of_memory
        How often it was tried again since the workflow was started, and how often memory did not suffice.
    exit_code, ending
        Of the last attempt that ended.
    usage
        Of all attempts together: the time summed up, the memory of the largest.
    quanta, quanta_failed
        How many quanta it says it has executed.
    silent
        Attempts that left nothing behind, so that accounting alone knows what they took.
    """

    name: str
    label: str
    block: int = 0
    place: int = 0
    parents: tuple[int, ...] = ()
    waits_for: tuple[int, ...] = ()
    has_command: bool = True
    is_final: bool = False
    state: JobState = JobState.UNREADY
    element: Element | None = None
    is_parked: bool = False
    attempt: int = 0
    retries: int = 0
    out_of_memory: int = 0
    exit_code: int | None = None
    ending: Ending | None = None
    usage: Usage = NO_USAGE
    quanta: int = 0
    quanta_failed: int = 0
    silent: tuple[Element, ...] = ()

    @property
    def is_in_slurm(self) -> bool:
        """Whether Slurm has it, held for its parents or not."""
        return self.is_parked or self.state.is_with_slurm

    @property
    def vague(self) -> tuple[Element, ...]:
        """Attempts of which it isn't known what they took of processors and memory."""
        is_known = self.ending is None or (self.usage.cpu_s and self.usage.memory_mb)
        return self.silent if self.element is None or is_known else (*self.silent, self.element)

    def moved(self, state: JobState, **changes: Any) -> Job:
        """Return the job in another state.

        Raises
        ------
        ValueError
            The transition table doesn't know such a step.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"{self.name}: {self.state.name} cannot become {state.name}")
        return dataclasses.replace(self, state=state, **changes)


def limit_name(limit: str) -> str:
    """Name a limit, without how much of it a job takes."""
    return limit.partition(":")[0]
