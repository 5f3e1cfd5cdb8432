"""Quantum graphs: a step over a group of partitions, as quanta that can be executed.

Belongs here: building the graph in this process, saying why it is empty, preparing its output run, and telling whether
a graph's file can be executed at all.
Doesn't: clustering or submitting it (`launchers.clustering`, `launchers.bps`), or what became of it
(`launchers.outcome`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from lsst.daf.butler import (
    Butler,
    EmptyQueryResultError,
    InvalidQueryError,
    MissingCollectionError,
    MissingDatasetTypeError,
)
from lsst.pipe.base import Pipeline, PipelineGraph
from lsst.pipe.base.all_dimensions_quantum_graph_builder import DatasetQueryConstraintVariant
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph, PredictedQuantumGraphComponents
from lsst.pipe.base.quantum_graph_builder import QuantumGraphBuilderError

import launchers.zip_seek  # noqa: F401
from launchers.folders import writing
from launchers.selection import SelectingGraphBuilder
from launchers.submission import StepRequest
from resources.butler import existing
from resources.errors import Rejected


class NothingLeft(Rejected):
    """All that is asked for has been made, or is left out."""


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """A graph on disk.

    Parameters
    ----------
    path
        Its file.
    quanta
        Number of quanta by task label, in the pipeline's order.
    """

    path: Path
    quanta: Mapping[str, int]

    @property
    def total(self) -> int:
        """Number of quanta."""
        return sum(self.quanta.values())


def build_graph(request: StepRequest) -> GraphSummary:
    """Build the graph of a submission, save it, and write what its output run needs before the first quantum.

    Raises
    ------
    resources.errors.Rejected
        The pipeline cannot be read, the query makes no sense, or the graph is empty: then the likely reason is named.
        It is `NothingLeft` where there is nothing wrong with that.
    resources.errors.SiteFault
        The submission's folder can't be written to.
    """
    pipeline_graph = _read_pipeline(request)
    with Butler.from_config(request.butler, writeable=False) as butler:
        components = _build(request, pipeline_graph, butler)
    quanta = {label: count for label, count in components.header.n_task_quanta.items() if count}
    if not quanta:
        raise _why_empty(request, pipeline_graph)
    with writing(request.folder):
        request.folder.mkdir(parents=True, exist_ok=True)
        components.write(str(request.graph_path))
    if not request.bps.get("payload", {}).get("runInit", False):
        prepare_run(request.butler, components)
    return GraphSummary(request.graph_path, quanta)


def read_summary(request: StepRequest) -> GraphSummary | None:
    """Read what `build_graph` has left in the submission's folder; None when there is nothing yet."""
    if not request.graph_path.exists():
        return None
    with PredictedQuantumGraph.open(str(request.graph_path)) as reader:
        counts = reader.header.n_task_quanta
    return GraphSummary(request.graph_path, {label: count for label, count in counts.items() if count})


def prepare_run(butler: str, components: PredictedQuantumGraphComponents) -> None:
    """Write task configurations and package versions into the graph's output run, as ``pipetask pre-exec-init-qbb``."""
    graph = components.assemble()
    with graph.make_init_qbb(butler) as limited:
        graph.init_output_run(limited)


def has_datastore_records(path: Path) -> bool:
    """Whether a graph says where its inputs are.

    Without it the quanta find no inputs, have "no work", and end with exit code 0 and nothing done.
    """
    with PredictedQuantumGraph.open(str(path)) as reader:
        reader.read_thin_graph()
        thin = reader.finish().quantum_only_xgraph
        # A quantum that nothing in the graph comes before reads only what was there before.
        sources = [quantum for quantum in thin if thin.in_degree(quantum) == 0]
        reader.read_quantum_datasets(sources)
        models = [reader.components.quantum_datasets[quantum] for quantum in sources]
    with_inputs = [model for model in models if any(model.inputs.values())]
    return all(model.datastore_records for model in with_inputs)


def _read_pipeline(request: StepRequest) -> PipelineGraph:
    try:
        pipeline = Pipeline.from_uri(request.pipeline)
        for override in request.config_overrides:
            task, _, assignment = override.partition(":")
            key, has_value, value = assignment.partition("=")
            if not has_value:
                raise Rejected(f"{override!r} is not of the form task:key=value", request.key.name, "correct it")
            pipeline.addConfigOverride(task, key, value)
        return pipeline.to_graph()
    except yaml.MarkedYAMLError as error:
        place = f" ({error.problem_mark.name}, line {error.problem_mark.line + 1})" if error.problem_mark else ""
        what = f"the pipeline cannot be read: {error.problem or _line(error)}{place}"
        raise Rejected(what, request.pipeline, "mend the pipeline") from error
    except (OSError, ValueError, KeyError, LookupError, ImportError, AttributeError) as error:
        # What pipe_base and pex_config raise for a file, a label, a class or a configuration field that is not there.
        raise Rejected(f"the pipeline cannot be read: {_line(error)}", request.pipeline, "mend the pipeline") from error


def _build(request: StepRequest, pipeline_graph: PipelineGraph, butler: Butler) -> PredictedQuantumGraphComponents:
    constraint = request.dataset_query_constraint
    variant = (
        DatasetQueryConstraintVariant.ALL
        if constraint is None
        else DatasetQueryConstraintVariant.fromExpression(constraint)
    )
    try:
        builder = SelectingGraphBuilder(
            pipeline_graph,
            butler,
            where=request.data_query,
            dataset_query_constraint=variant,
            input_collections=list(request.input_collections),
            output_run=request.key.run_collection,
            # An attempt that came to nothing has left no collection.
            skip_existing_in=existing(butler, request.skip_existing_in),
            clobber=True,
            quarantined=request.quarantined,
            later=request.later,
        )
        metadata = {"submission": request.key.name, "data_query": request.data_query}
        return builder.finish(request.output_chain, metadata=metadata, attach_datastore_records=True)
    except QuantumGraphBuilderError as error:
        missing = _missing_input(request, pipeline_graph, butler)
        raise missing or Rejected(f"no graph: {_line(error)}", request.key.name, "see the log") from error
    except InvalidQueryError as error:
        raise Rejected(f"the query makes no sense: {_line(error)}", request.data_query, "correct it") from error
    except MissingCollectionError as error:
        raise Rejected(_line(error), request.key.name, "make the collection, or don't search it") from error


def _why_empty(request: StepRequest, pipeline_graph: PipelineGraph) -> Rejected:
    with Butler.from_config(request.butler, writeable=False) as butler:
        pipeline_graph.resolve(butler.registry)
        missing = _missing_input(request, pipeline_graph, butler)
    if missing is not None:
        return missing
    if request.skip_existing_in:
        where = ", ".join(request.skip_existing_in)
        out = f", or left out ({len(request.quarantined)} quarantined)" if request.quarantined else ""
        return NothingLeft("nothing is left to do", request.key.name, f"all outputs are in {where} already{out}")
    if request.quarantined:
        return NothingLeft(
            "nothing is left to do", request.key.name, f"{len(request.quarantined)} data IDs are quarantined"
        )
    inputs = ", ".join(sorted(name for name, _ in pipeline_graph.iter_overall_inputs()))
    return Rejected(
        f"the graph is empty, though each of its inputs exists ({inputs})",
        request.key.name,
        f"look for data IDs that all of them have in common with {request.data_query!r}",
    )


def _missing_input(request: StepRequest, pipeline_graph: PipelineGraph, butler: Butler) -> Rejected | None:
    """Find the first input that isn't there: not at all, or not for these data IDs."""
    searched = ", ".join(request.input_collections)
    for name, node in sorted(
        pipeline_graph.iter_overall_inputs(), key=lambda item: item[1] is not None and item[1].is_prerequisite
    ):
        if not _exists(butler, name, request, ""):
            return Rejected(
                f"the graph is empty: there is no {name} in {searched}",
                request.key.name,
                f"make or ingest {name} first",
            )
        is_prerequisite = node is not None and node.is_prerequisite
        if not is_prerequisite and not _exists(butler, name, request, request.data_query):
            return Rejected(
                f"the graph is empty: {searched} has {name}, but none with {request.data_query!r}",
                request.key.name,
                f"make or ingest {name} for these data IDs first, or correct the query",
            )
    return None


def _exists(butler: Butler, dataset_type: str, request: StepRequest, where: str) -> bool:
    try:
        return bool(
            butler.query_datasets(
                dataset_type,
                collections=list(request.input_collections),
                where=where,
                find_first=False,
                limit=1,
                explain=False,
            )
        )
    except (MissingDatasetTypeError, EmptyQueryResultError):
        return False


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
