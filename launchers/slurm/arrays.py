"""The arrays that jobs are submitted in: which job is which task of which, and what ``sbatch`` is told of it.

Belongs here: `Part`, which every array carries as its comment and is found again by, and the options of an array.
Doesn't: submitting it (`launchers.slurm.submissions`). Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from launchers.slurm.jobs import Job, Request
from launchers.slurm.queue import task_list

PREFIX = "bps"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """What one array is for: some jobs of one block that are tried for the same time.

    Parameters
    ----------
    block
        The block.
    number
        Which part of the block, for blocks larger than an array can be.
    attempt
        Which attempt at its jobs.
    """

    block: int
    number: int
    attempt: int

    @classmethod
    def parse(cls, comment: str) -> Self | None:
        """Read what `__str__` wrote; None where somebody else has written."""
        prefix, *numbers = comment.split(".")
        if prefix != PREFIX or len(numbers) != 3 or not all(number.isdigit() for number in numbers):
            return None
        return cls(*map(int, numbers))

    def __str__(self) -> str:
        return f"{PREFIX}.{self.block}.{self.number}.{self.attempt}"


def part_of(job: Job, array_size: int, attempt: int) -> tuple[Part, int]:
    """Give the part that a job belongs to in some attempt, and its task there."""
    number, task = divmod(job.place, array_size)
    return Part(job.block, number, attempt), task


def array_options(request: Request, part: Part, tasks: Iterable[int], memory_mb: int, *, calm: int = 0) -> list[str]:
    """Give the options of ``sbatch`` for an array.

    Parameters
    ----------
    request
        What its jobs ask for.
    part
        What it is for.
    tasks
        Which tasks of the part.
    memory_mb
        Memory for each.
    calm
        The highest urgency in the workflow: everybody may make his jobs less urgent, nobody more.
    """
    options = [
        f"--comment={part}",
        f"--array={task_list(tasks)}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={request.cpus}",
        "--output=/dev/null",
        "--requeue" if request.preemptible else "--no-requeue",
    ]
    if memory_mb:
        options.append(f"--mem={memory_mb}M")
    if request.disk_mb:
        options.append(f"--tmp={request.disk_mb}M")
    if request.walltime_min:
        options.append(f"--time={request.walltime_min}")
    if calm > request.urgency:
        options.append(f"--nice={calm - request.urgency}")
    if request.limits:
        options.append(f"--licenses={','.join(request.limits)}")
    return [*options, *request.options]
