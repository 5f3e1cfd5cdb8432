"""What became of a submission, as values: quanta by task, failures with their causes, datasets, resources used.

Belongs here: those values, and what was decided about each failure. Doesn't: reading them from provenance
(`launchers.judging`), or deciding (`launchers.policies`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planning.policies import Action, Decision

type Quantum = tuple[str, frozenset[tuple[str, int | str]]]
"""A quantum's name: task label and items of its data ID."""

NO_RECORDS = "launchers.outcome.GraphWithoutDatastoreRecords"
LOST = "launchers.outcome.QuantumLost"


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The quanta of one task.

    Parameters
    ----------
    expected
        Quanta in the graph.
    succeeded
        Executed well, those with caveats among them.
    failed
        Executed badly, or lost with their process.
    caveats
        Succeeded without doing all that was expected: no work, partial outputs.
    blocked
        Not executed, because something before them failed.
    """

    expected: int = 0
    succeeded: int = 0
    failed: int = 0
    caveats: int = 0
    blocked: int = 0


@dataclass(frozen=True, slots=True)
class QuantumFailure:
    """One quantum that failed, and why.

    Parameters
    ----------
    task
        Task label.
    data_id
        What it was to work on.
    exception
        Full name of the exception's type.
    message
        First line of its message.
    log
        URI of the quantum's log, or of its job's where it left none; empty where there is neither.
    memory_mb
        Largest resident size of its process at its end, or of its job; 0 where it isn't known.
    partition
        The partition that its data ID is in; empty where it doesn't say.
    node
        Where it ran; empty where the batch system doesn't tell.
    """

    task: str
    data_id: Mapping[str, int | str]
    exception: str
    message: str
    log: str
    memory_mb: float = 0.0
    partition: str = ""
    node: str = ""

    @property
    def quantum(self) -> Quantum:
        """Which one failed."""
        return quantum_of(self.task, self.data_id)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A failure, and what is done about it."""

    failure: QuantumFailure
    decision: Decision


@dataclass(frozen=True, slots=True)
class DatasetCount:
    """Datasets of one type in one partition and band: how many there are, their bytes, how many were expected."""

    count: int = 0
    bytes: int = 0
    expected: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission.

    Parameters
    ----------
    tasks
        By task label, in the pipeline's order.
    failures
        Every quantum that failed.
    datasets
        By dataset type, partition (``""`` where its data IDs don't have the partition's dimension) and band (``""``
        likewise). Logs, metadata and configurations are not counted.
    cpu_s
        CPU time of all quanta.
    peak_memory_mb
        Largest resident size of a process at the end of a quantum.
    wall_s
        From the first quantum's start to the last one's end.
    run_collection
        Where the outputs are; of several submissions, the latest one's.
    judgements
        What was decided about failures, in the order in which it was: also about those that have been made good since.
    """

    tasks: Mapping[str, TaskOutcome]
    failures: tuple[QuantumFailure, ...]
    datasets: Mapping[tuple[str, str, str], DatasetCount]
    cpu_s: float
    peak_memory_mb: float
    wall_s: float
    run_collection: str
    judgements: tuple[Judgement, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every quantum was executed and none failed."""
        return bool(self.tasks) and all(task.succeeded == task.expected for task in self.tasks.values())

    @property
    def worked(self) -> bool:
        """Whether anything came of it."""
        return any(dataset.count for dataset in self.datasets.values())

    @property
    def held(self) -> tuple[QuantumFailure, ...]:
        """Failures about which somebody has to decide before anything that depends on them goes on."""
        last = {each.failure.quantum: each.decision.action for each in self.judgements}
        return tuple(each for each in self.failures if last.get(each.quantum) is Action.HOLD)

    def within(self, partition: str) -> Outcome:
        """Give the same with the failures of one partition alone, and those whose data ID doesn't say in which it is.

        Parameters
        ----------
        partition
            Its key.
        """
        places = {"", partition}
        return replace(
            self,
            failures=tuple(each for each in self.failures if each.partition in places),
            judgements=tuple(each for each in self.judgements if each.failure.partition in places),
        )

    @property
    def expected(self) -> int:
        """Number of quanta in the graph."""
        return sum(task.expected for task in self.tasks.values())

    @property
    def succeeded(self) -> int:
        """Number of quanta that were executed well."""
        return sum(task.succeeded for task in self.tasks.values())


def quantum_of(task: str, data_id: Mapping[str, int | str]) -> Quantum:
    """Name a quantum.

    Parameters
    ----------
    task, data_id
        Task label, and what it works on.
    """
    return task, frozenset(data_id.items())
