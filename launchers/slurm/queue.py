"""What Slurm says, read: its queue, its accounting, its partitions, its limits; and its way of naming many tasks.

Belongs here: the formats that are asked for, and pure functions from printed text to values. Doesn't: asking
(`launchers.slurm.commands`), or what follows from the answers (`launchers.slurm.conductor`). Standard library only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from launchers.slurm.ends import Usage, status_of
from launchers.slurm.jobs import Element, JobState

_BAR = "|"
QUEUE_FIELDS = (
    "JobID",
    "ArrayJobID",
    "ArrayTaskID",
    "State",
    "exit_code",
    "RestartCnt",
    "NodeList",
    "Reason",
    "Name",
    "Comment",
    "WorkDir",
)
QUEUE_FORMAT = ",".join(f"{name}:{_BAR}" for name in QUEUE_FIELDS)
"""Of ``squeue --Format``."""

ACCOUNT_FORMAT = "JobID,State,ExitCode,MaxRSS,TotalCPU,NodeList"
"""Of ``sacct --format``."""

PARTITION_FORMAT = f"%P{_BAR}%m{_BAR}%c{_BAR}%l{_BAR}%a"
"""Of ``sinfo --format``."""

_ALIVE = {
    "PENDING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "CONFIGURING": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SUSPENDED": JobState.HELD,
    "STOPPED": JobState.HELD,
    "REQUEUE_HOLD": JobState.HELD,
    "REQUEUE_FED": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
}
_ENDING = frozenset({"COMPLETING"})
_HELD = re.compile(r"JobH[eo]ld|requeued in held|requeued held")
_KIB_PER_MB = 1024.0
_UNITS_MB = {"": 1.0 / _KIB_PER_MB**2, "K": 1.0 / _KIB_PER_MB, "M": 1.0, "G": _KIB_PER_MB, "T": _KIB_PER_MB**2}


@dataclass(frozen=True, slots=True)
class Queued:
    """One job or element, as the queue has it.

    Parameters
    ----------
    job
        Its number in Slurm.
    element
        Array and task; an element of itself for a job that is no array.
    state
        Slurm's word.
    status
        Exit status, as of ``wait``.
    restarts
        How often Slurm has put it back into the queue.
    node
        Where it runs.
    reason
        Why it waits.
    name, comment, folder
        As submitted.
    """

    job: int
    element: Element
    state: str
    status: int = 0
    restarts: int = 0
    node: str = ""
    reason: str = ""
    name: str = ""
    comment: str = ""
    folder: str = ""

    @property
    def alive(self) -> JobState | None:
        """What it is while it is not over; None when it is, or about to be."""
        if self.state == "PENDING" and _HELD.search(self.reason):
            return JobState.HELD
        return _ALIVE.get(self.state)

    @property
    def could_not_start(self) -> bool:
        """Whether Slurm holds it because its node could not start it: a broken prologue, a number given out twice."""
        return self.state == "PENDING" and self.reason == "launch failed requeued held"

    @property
    def is_parked(self) -> bool:
        """Whether it waits as it was submitted: held, and never begun."""
        return self.state == "PENDING" and self.reason == "JobHeldUser" and not self.restarts

    @property
    def is_over(self) -> bool:
        """Whether Slurm has done with it."""
        return self.state not in _ALIVE and self.state not in _ENDING


@dataclass(frozen=True, slots=True)
class Queue:
    """All jobs of a user in the queue, those among them that ended a moment ago."""

    elements: Mapping[Element, Queued] = field(default_factory=dict)

    def of_folder(self, folder: str) -> list[Queued]:
        """Give those that were submitted from a folder."""
        return [queued for queued in self.elements.values() if queued.folder == folder]


def parse_queue(text: str) -> Queue:
    """Read what ``squeue`` prints in `QUEUE_FORMAT`, one line a task.

    Parameters
    ----------
    text
        Its output.
    """
    found = {}
    for line in text.splitlines():
        fields = line.split(_BAR)
        if len(fields) <= len(QUEUE_FIELDS):
            continue
        job, array, task, state, status, restarts, node, reason, name, comment = fields[:10]
        folder = _BAR.join(fields[10:-1])
        element = Element(int(array), int(task)) if task.isdigit() else Element(int(job), 0)
        found[element] = Queued(
            int(job), element, state, int(status or 0), int(restarts or 0), node, reason, name, comment, folder
        )
    return Queue(found)


@dataclass(frozen=True, slots=True)
class Accounted:
    """One element, as accounting has it."""

    state: str
    status: int
    usage: Usage


def parse_accounts(text: str) -> Mapping[Element, Accounted]:
    """Read what ``sacct --parsable2 --noheader`` prints in `ACCOUNT_FORMAT`.

    Parameters
    ----------
    text
        Its output: a line an element, and one for each of its steps, which alone know of memory.
    """
    whole: dict[str, tuple[str, str, str, str]] = {}
    memory: defaultdict[str, float] = defaultdict(float)
    for line in text.splitlines():
        fields = line.split(_BAR)
        if len(fields) != len(ACCOUNT_FORMAT.split(",")):
            continue
        name, state, code, resident, cpu, node = fields
        job, _, step = name.partition(".")
        memory[job] = max(memory[job], size_mb(resident))
        if not step:
            whole[job] = (state, code, cpu, node)
    return {
        Element.parse(job): Accounted(state, status_of(code), Usage(seconds(cpu), memory[job], node))
        for job, (state, code, cpu, node) in whole.items()
        if re.fullmatch(r"\d+_\d+", job)
    }


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition's largest nodes.

    Parameters
    ----------
    name
        The partition's.
    memory_mb, cpus
        The most that one of its nodes has.
    is_up
        Whether it takes jobs.
    walltime_min
        How long a job may take there; None: as long as it likes.
    is_default
        Whether jobs go there that name none.
    """

    name: str
    memory_mb: int
    cpus: int
    is_up: bool = True
    walltime_min: float | None = None
    is_default: bool = False


def parse_partitions(text: str) -> Mapping[str, Partition]:
    """Read what ``sinfo --noheader`` prints in `PARTITION_FORMAT`, where the default partition's name has a star.

    Parameters
    ----------
    text
        Its output: a line for each kind of node of a partition.
    """
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        marked, memory, cpus, limit, available = line.split(_BAR)
        name, is_default = marked.removesuffix("*"), marked.endswith("*")
        minutes = seconds(limit) / 60.0 if limit[:1].isdigit() else None
        first = Partition(name, 0, 0, is_up=available == "up", walltime_min=minutes, is_default=is_default)
        known = found.get(name, first)
        found[name] = replace(
            known, memory_mb=max(known.memory_mb, _leading(memory)), cpus=max(known.cpus, _leading(cpus))
        )
    return found


def parse_settings(text: str) -> Mapping[str, str]:
    """Read what ``scontrol show config`` prints.

    Parameters
    ----------
    text
        Its output.
    """
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def parse_licences(text: str) -> frozenset[str]:
    """Read the names that ``scontrol show licenses`` prints.

    Parameters
    ----------
    text
        Its output.
    """
    return frozenset(re.findall(r"^LicenseName=(\S+)", text, re.MULTILINE))


def task_list(tasks: Iterable[int]) -> str:
    """Name tasks of an array as Slurm does: ``1-3,7``.

    Parameters
    ----------
    tasks
        Their numbers, in any order.
    """
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in _spans(sorted(set(tasks))))


def element_lists(elements: Iterable[Element]) -> list[str]:
    """Name elements array by array, as ``scontrol`` and ``scancel`` take them: ``12_[1-3,7]``.

    Parameters
    ----------
    elements
        Of any arrays.
    """
    tasks: defaultdict[int, list[int]] = defaultdict(list)
    for element in elements:
        tasks[element.array].append(element.task)
    return [f"{array}_[{task_list(numbers)}]" for array, numbers in sorted(tasks.items())]


def seconds(text: str) -> float:
    """Read a time such as ``1-02:03:04``, ``02:03.500`` or the shell's ``0m1.5s``; nothing is 0."""
    if shell := re.fullmatch(r"(\d+)m([\d.]+)s", text):
        return int(shell[1]) * 60.0 + float(shell[2])
    days, _, rest = text.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = total * 60.0 + float(part or 0)
    return total + 86400.0 * int(days or 0)


def size_mb(text: str) -> float:
    """Read a size such as ``1234K``, ``1.5G`` or a number of bytes (MB of 2^20 bytes); nothing is 0."""
    sized = re.fullmatch(r"([\d.]+)([KMGT]?)", text)
    return float(sized[1]) * _UNITS_MB[sized[2]] if sized else 0.0


def _spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last


def _leading(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0
