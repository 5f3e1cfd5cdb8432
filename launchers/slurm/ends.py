"""How a job ended in Slurm, and what that means for it.

Belongs here: the kinds of ends, reading them from Slurm's words and from what a job left behind, and memory for another
attempt, as functions of values. Doesn't: who is affected by an end (`launchers.slurm.plan`). Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

KILLED = 137
"""Exit code of a job that had no chance to give one: what the shell says of a process that was killed."""

_SIGNALS = 128


class Ending(Enum):
    """Why a job is over."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OUT_OF_MEMORY = "out of memory"
    TIMEOUT = "out of time"
    LOST_NODE = "lost with its node"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    LOST = "lost without a trace"
    REFUSED = "refused by Slurm"

    @property
    def is_the_jobs_own(self) -> bool:
        """Whether the exit code is the job's own, and says whether to try again."""
        return self in {Ending.FAILED, Ending.SUCCEEDED}


_BY_STATE = {
    "COMPLETED": Ending.SUCCEEDED,
    "FAILED": Ending.FAILED,
    "OUT_OF_MEMORY": Ending.OUT_OF_MEMORY,
    "TIMEOUT": Ending.TIMEOUT,
    "DEADLINE": Ending.TIMEOUT,
    "NODE_FAIL": Ending.LOST_NODE,
    "BOOT_FAIL": Ending.LOST_NODE,
    "LAUNCH_FAILED": Ending.LOST_NODE,
    "REVOKED": Ending.LOST_NODE,
    "PREEMPTED": Ending.PREEMPTED,
    "CANCELLED": Ending.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt took.

    Parameters
    ----------
    cpu_s
        Processor time of all its processes.
    memory_mb
        The most memory that it had.
    node
        Where it ran.
    """

    cpu_s: float = 0.0
    memory_mb: float = 0.0
    node: str = ""


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Mark:
    """What a job left behind when it ended.

    Parameters
    ----------
    exit_code
        Its own.
    usage
        As it has seen it.
    quanta, quanta_failed
        How many quanta it says it has executed well, and badly.
    """

    exit_code: int
    usage: Usage = NO_USAGE
    quanta: int = 0
    quanta_failed: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """The end of one attempt.

    Parameters
    ----------
    ending
        Why.
    exit_code
        The job's, or what stands for it.
    mark
        What it left behind, if it could.
    """

    ending: Ending
    exit_code: int = 0
    mark: Mark | None = None


def end_of(state: str | None, status: int, mark: Mark | None) -> End | None:
    """Tell how an attempt ended; None while Slurm doesn't say that it has.

    Parameters
    ----------
    state
        Slurm's word for the job's state (``"COMPLETED"``, ``"CANCELLED by 0"``); None where Slurm knows nothing of it.
    status
        Slurm's exit status, as of ``wait``.
    mark
        What the job left behind.
    """
    if mark is not None and mark.exit_code == 0:
        # It has done all it was to do, whatever befell it afterwards.
        return End(Ending.SUCCEEDED, 0, mark)
    if state is None:
        return End(Ending.FAILED, mark.exit_code, mark) if mark else End(Ending.LOST, KILLED)
    ending = _BY_STATE.get(state.split()[0].rstrip("+"))
    if ending is None:
        return None
    code = mark.exit_code if mark else exit_code(status)
    if ending is not Ending.SUCCEEDED and code == 0:
        code = KILLED
    return End(ending, code, mark)


def exit_code(status: int) -> int:
    """Turn a status as of ``wait`` into an exit code as of a shell."""
    signal = status & 0x7F
    return _SIGNALS + signal if signal else (status >> 8) & 0xFF


def status_of(code: str) -> int:
    """Turn what ``sacct`` calls an exit code (``"1:0"``: code and signal) into a status as of ``wait``."""
    exited, _, signal = code.partition(":")
    return (int(exited) << 8) | (int(signal or 0) & 0x7F)


def memory_mb(first_mb: int, multiplier: float | None, limit_mb: int | None, times: int) -> int:
    """Give the memory to ask for when a job has run out of it so many times: ``min(first · multiplier^times, limit)``.

    Parameters
    ----------
    first_mb
        What it asks for at first.
    multiplier
        How much more each time; None or less than 1: always the same.
    limit_mb
        The most that it may ask for; never less than the first.
    times
        How often it ran out of memory.
    """
    wanted = int(first_mb * max(multiplier or 1.0, 1.0) ** times)
    return wanted if limit_mb is None else max(first_mb, min(wanted, limit_mb))
