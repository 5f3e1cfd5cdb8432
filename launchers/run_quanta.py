"""Many small quanta in one process: ``drp-quanta <butler> <graph> --qgraph-node-id <id>,…``, for ``runQuantumCommand``.

``pipetask run-qbb`` reads the repository's configuration and makes a datastore anew for every quantum, which takes
longer than a small quantum itself. Here all quanta of a process share one datastore, which knows all of their inputs;
everything else is pipe_base's own, with the settings of ``run-qbb``.

Belongs here: that command. Doesn't: which quanta make up a job (`launchers.clustering`), or what became of them
(`launchers.outcome`).
"""

from __future__ import annotations

import argparse
import itertools
import logging
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lsst.daf.butler import ButlerConfig, Quantum, QuantumBackedButler
from lsst.daf.butler.cli.cliLog import CliLog
from lsst.daf.butler.datastore.cache_manager import DatastoreCacheManager
from lsst.daf.butler.datastore.record_data import DatastoreRecordData
from lsst.pipe.base import TaskFactory
from lsst.pipe.base.mp_graph_executor import MPGraphExecutor
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph
from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor
from lsst.utils.threads import disable_implicit_threading

import launchers.zip_seek  # noqa: F401

LOG = logging.getLogger(__name__)
_TIMEOUT_S = 30 * 24 * 3600


class ButlersOfOneDatastore:
    """Makes the Butler of each quantum of a graph.

    Parameters
    ----------
    butler
        The repository's URI.
    graph
        Quanta of which each will ask for its Butler.
    """

    def __init__(self, butler: str, graph: PredictedQuantumGraph) -> None:
        quanta = graph.build_execution_quanta().values()
        self._dimensions = graph.pipeline_graph.universe
        self._dataset_types = {node.name: node.dataset_type for node in graph.pipeline_graph.dataset_types.values()}
        self._all = QuantumBackedButler.from_predicted(
            config=ButlerConfig(butler),
            predicted_inputs=(),
            predicted_outputs=(),
            dimensions=self._dimensions,
            datastore_records=DatastoreRecordData.merge_mappings(*(quantum.datastore_records for quantum in quanta)),
            dataset_types=self._dataset_types,
        )

    def __call__(self, quantum: Quantum) -> QuantumBackedButler:
        """Make a quantum's Butler, which sees this quantum's datasets only."""
        inputs = itertools.chain(*quantum.inputs.values(), quantum.initInputs.values())
        return QuantumBackedButler(
            predicted_inputs=[ref.id for ref in inputs],
            predicted_outputs=[ref.id for ref in itertools.chain.from_iterable(quantum.outputs.values())],
            dimensions=self._dimensions,
            datastore=self._all._datastore,
            storageClasses=self._all.storageClasses,
            dataset_types=self._dataset_types,
        )


def run_quanta(butler: str, graph: str, quanta: Sequence[uuid.UUID]) -> None:
    """Execute quanta one after the other; what is done already is left as it is.

    Parameters
    ----------
    butler
        The repository's URI.
    graph
        URI of the graph, whose output run is prepared.
    quanta
        Which of its quanta; none for all.

    Raises
    ------
    lsst.pipe.base.quantum_graph_executor.QuantumGraphExecutorError
        A quantum failed; all that didn't depend on it were executed.
    """
    disable_implicit_threading()
    chosen = PredictedQuantumGraph.read_execution_quanta(graph, quantum_ids=set(quanta) or None)
    with _one_datastore_cache():
        executor = SingleQuantumExecutor(
            butler=None,
            task_factory=TaskFactory(),
            limited_butler_factory=ButlersOfOneDatastore(butler, chosen),
            skip_existing=True,
            clobber_outputs=True,
        )
        MPGraphExecutor(num_proc=1, timeout=_TIMEOUT_S, quantum_executor=executor).execute(chosen)


@contextmanager
def _one_datastore_cache() -> Iterator[None]:
    """Let all quanta share a datastore cache, instead of a folder for each; it is removed by whoever made it."""
    is_ours, folder = DatastoreCacheManager.set_fallback_cache_directory_if_unset()
    try:
        yield
    finally:
        if is_ours:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Read the command line, which is that of ``pipetask run-qbb`` as BPS writes it."""
    parser = argparse.ArgumentParser(prog="drp-quanta", description="Execute quanta of a graph.")
    parser.add_argument("butler", help="URI of the repository")
    parser.add_argument("graph", help="URI of the quantum graph")
    parser.add_argument("--qgraph-node-id", default="", help="the quanta's identifiers; by default all")
    options = parser.parse_args()
    CliLog.initLog(longlog=True, log_tty=True)
    CliLog.setLogLevels([(None, "INFO")])
    try:
        run_quanta(
            options.butler, options.graph, [uuid.UUID(text) for text in options.qgraph_node_id.split(",") if text]
        )
    except Exception:
        LOG.exception("not all quanta were executed")
        sys.exit(1)


if __name__ == "__main__":
    main()
