"""Quanta without a platform: ``python -m benchmarks.bare <work file> <times file>``.

The yardstick for what a platform adds: two processes, forked when everything is imported and every graph is read,
execute the quanta of one graph after the other, with quantum-backed Butlers and with nothing around them. They divide
each graph as the platform does (`launchers.clustering`), and wait for each other only where a stage ends, so that
dependencies hold. Only execution is timed: no graph is built, no process started, nothing recorded.

Belongs here: executing and timing them. Doesn't: building their graphs, or comparing (`benchmarks.comparison`).
"""

from __future__ import annotations

import gc
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from pathlib import Path

from lsst.daf.butler import ButlerConfig, Quantum, QuantumBackedButler
from lsst.daf.butler.datastore.cache_manager import DatastoreCacheManager
from lsst.pipe.base import TaskFactory
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph
from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor
from pydantic import TypeAdapter

from launchers import warm
from launchers.clustering import plan_clusters

PROCESSES = 2
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BareWork:
    """What to execute.

    Parameters
    ----------
    butler
        The repository's URI.
    graphs
        Files of graphs whose output runs are prepared, in the order in which they are executed.
    """

    butler: str
    graphs: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class BareTime:
    """How the execution of one graph went.

    Parameters
    ----------
    wall_s
        From the first quantum's start to the last one's end.
    failed
        How many quanta raised.
    """

    wall_s: float
    failed: int


_WORK = TypeAdapter(BareWork)
_TIMES = TypeAdapter(tuple[BareTime, ...])


def run_bare(work: BareWork, folder: Path) -> tuple[BareTime, ...]:
    """Execute graphs one after the other, in processes that come from a fresh one.

    Parameters
    ----------
    work
        What to execute.
    folder
        For the log, ``bare.log``; there already.

    Returns
    -------
    times
        One for each graph.

    Raises
    ------
    subprocess.CalledProcessError
        A process died.
    """
    work_file, times_file = folder / "work.json", folder / "bare.json"
    work_file.write_bytes(_WORK.dump_json(work))
    command = [sys.executable, "-m", "benchmarks.bare", str(work_file), str(times_file)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        # Its forks go with it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if code:
        raise subprocess.CalledProcessError(code, command)
    return _TIMES.validate_json(times_file.read_bytes())


class _Graph:
    """A graph in memory, its quanta dealt to the processes."""

    def __init__(self, path: Path, config: ButlerConfig) -> None:
        self._graph = PredictedQuantumGraph.read_execution_quanta(str(path))
        self._quanta = self._graph.build_execution_quanta()
        self._config = config
        dataset_types = self._graph.pipeline_graph.dataset_types.values()
        self._dataset_types = {node.name: node.dataset_type for node in dataset_types}
        by_task = {
            label: [quantum for _, quantum in sorted(members.items())]
            for label, members in self._graph.quanta_by_task.items()
        }
        edges = self._graph.quantum_only_xgraph.edges
        clusters = plan_clusters(by_task, edges, count=PROCESSES, max_quanta=max(1, len(self._quanta)))
        self.stages = [
            [cluster.quanta for cluster in stage] for _, stage in itertools.groupby(clusters, key=lambda c: c.label)
        ]
        self._executor = SingleQuantumExecutor(
            butler=None,
            task_factory=TaskFactory(),
            limited_butler_factory=self._butler,
            assume_no_existing_outputs=True,
        )

    def _butler(self, quantum: Quantum) -> QuantumBackedButler:
        return QuantumBackedButler.initialize(
            config=self._config,
            quantum=quantum,
            dimensions=self._graph.pipeline_graph.universe,
            dataset_types=self._dataset_types,
        )

    def execute(self, quantum: uuid.UUID) -> bool:
        """Execute a quantum; False when it raises, which is not this benchmark's concern."""
        task = self._graph.pipeline_graph.tasks[self._graph.quantum_only_xgraph.nodes[quantum]["task_label"]]
        try:
            self._executor.execute(task, self._quanta[quantum], quantum)
        except Exception:
            LOG.exception("%s %s", task.label, self._quanta[quantum].dataId)
            return False
        return True

    def execute_share(self, number: int, barrier: Barrier) -> BareTime:
        """Execute one process' share, stage by stage."""
        failed = 0
        barrier.wait()
        began = time.monotonic()
        for stage in self.stages:
            for quantum in stage[number] if number < len(stage) else ():
                failed += not self.execute(quantum)
            barrier.wait()
        return BareTime(time.monotonic() - began, failed)


def execute_bare(work: BareWork) -> tuple[BareTime, ...]:
    """Execute graphs one after the other.

    Parameters
    ----------
    work
        Which.

    Returns
    -------
    times
        One for each graph.

    Raises
    ------
    RuntimeError
        A process died.
    """
    warm.preload()
    # As pipetask does: one datastore cache for all Butlers, not a folder made for each quantum.
    DatastoreCacheManager.set_fallback_cache_directory_if_unset()
    config = ButlerConfig(work.butler)
    graphs = [_Graph(path, config) for path in work.graphs]
    gc.collect()
    gc.freeze()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    pipes = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    workers = [
        context.Process(target=_execute_all, args=(number, graphs, barrier, sender))
        for number, (_, sender) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    waiting = {worker.sentinel: worker for worker in workers}
    while waiting:
        for sentinel in wait(list(waiting)):
            worker = waiting.pop(sentinel)  # type: ignore[arg-type]
            worker.join()
            if worker.exitcode:
                # Nobody may wait for one that doesn't come any more.
                barrier.abort()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process of the bare execution died")
    shares = [receiver.recv() for receiver, _ in pipes]
    return tuple(
        BareTime(max(share.wall_s for share in both), sum(share.failed for share in both))
        for both in zip(*shares, strict=True)
    )


def _execute_all(
    number: int, graphs: Sequence[_Graph], barrier: Barrier, sender: multiprocessing.connection.Connection
) -> None:
    times = []
    for place, graph in enumerate(graphs, start=1):
        times.append(graph.execute_share(number, barrier))
        if number == 0:
            print(f"  bare: {place} of {len(graphs)} graphs, {times[-1].wall_s:.1f} s", flush=True)
    sender.send(times)


def main() -> None:
    """Execute what the first file says, write times into the second."""
    work_file, times_file = map(Path, sys.argv[1:])
    # The quanta's logs are datasets, as detailed as those of a platform's jobs.
    logging.basicConfig(level=logging.INFO, filename=times_file.with_suffix(".log"))
    times = execute_bare(_WORK.validate_json(work_file.read_bytes()))
    times_file.write_bytes(_TIMES.dump_json(times))


if __name__ == "__main__":
    main()
