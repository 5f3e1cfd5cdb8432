"""Submissions that a platform's Dagster has finished: how long each run took, and when its quanta were executed.

Belongs here: reading that from Dagster's run records and from provenance. Doesn't: the figures that follow
(`benchmarks.arithmetic`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from lsst.pipe.base.pipeline_graph import TaskImportMode
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph, ProvenanceQuantumGraph

from benchmarks.arithmetic import Interval, covered_s, span_s
from launchers.reattach import submissions_of_run


@dataclass(frozen=True, slots=True)
class FinishedSubmission:
    """One Dagster run of a step, and the submission that it made.

    Parameters
    ----------
    name
        The submission's, ``<release>_<step>_<digest>_<attempt>``.
    data_query
        What its graph was built for.
    quanta
        Number of quanta by task label.
    run
        When the Dagster run was created and when it ended, in seconds since the epoch.
    executions
        When each quantum began and ended, likewise.
    """

    name: str
    data_query: str
    quanta: Mapping[str, int]
    run: Interval
    executions: tuple[Interval, ...]

    @property
    def step(self) -> str:
        """Short name of its step."""
        return self.name.split("_")[-3]

    @property
    def work(self) -> str:
        """What it shares with other attempts at the same: all of the name but the attempt."""
        return self.name.rpartition("_")[0]

    @property
    def wall_s(self) -> float:
        """How long the Dagster run took, from its creation."""
        return self.run[1] - self.run[0]

    @property
    def around_s(self) -> float:
        """The run's time before its first quantum and after its last one."""
        return self.wall_s - span_s(self.executions)

    @property
    def without_quantum_s(self) -> float:
        """The run's time in which none of its quanta was being executed, that between two jobs included."""
        return self.wall_s - covered_s(self.executions)


def finished_submissions(instance: dg.DagsterInstance) -> list[FinishedSubmission]:
    """Read every successful run that has made a submission.

    Parameters
    ----------
    instance
        The platform's.

    Returns
    -------
    submissions
        In the order in which their runs were created.
    """
    submissions = []
    records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    for record in sorted(records, key=lambda each: each.create_timestamp):
        for handle in submissions_of_run(instance, record.dagster_run.run_id):
            folder = Path(handle.submit_path).parent
            with PredictedQuantumGraph.open(
                str(folder / f"{handle.name}.qg"), import_mode=TaskImportMode.DO_NOT_IMPORT
            ) as reader:
                header = reader.header
            submissions.append(
                FinishedSubmission(
                    name=handle.name,
                    data_query=str(header.metadata["data_query"]),
                    quanta={label: count for label, count in header.n_task_quanta.items() if count},
                    run=(record.create_timestamp.timestamp(), record.end_time or 0.0),
                    executions=read_executions(folder / "provenance.qg"),
                )
            )
    return submissions


def last_attempts(submissions: Iterable[FinishedSubmission]) -> list[FinishedSubmission]:
    """Leave out those that were made again later.

    Parameters
    ----------
    submissions
        In the order in which they were made.
    """
    last: dict[str, FinishedSubmission] = {}
    for submission in submissions:
        last.pop(submission.work, None)
        last[submission.work] = submission
    return list(last.values())


def read_executions(provenance: Path) -> tuple[Interval, ...]:
    """Read when each quantum of a submission began and ended.

    Parameters
    ----------
    provenance
        The graph that the final job wrote.

    Returns
    -------
    executions
        In seconds since the epoch: preparation, initialisation and running of each quantum, with reading its inputs and
        writing its outputs, without writing its log and metadata.
    """
    with ProvenanceQuantumGraph.from_args(str(provenance)) as (graph, _):
        nodes = graph.bipartite_xgraph.nodes
        usages = [
            attempt.resource_usage
            for quanta in graph.quanta_by_task.values()
            for quantum in quanta.values()
            for attempt in nodes[quantum]["attempts"]
            if attempt.resource_usage is not None
        ]
        return tuple((_seconds(usage.start), _seconds(usage.end)) for usage in usages)


def _seconds(moment: dt.datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
