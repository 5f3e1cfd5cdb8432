"""What became of a submission is judged here, from provenance and from what is in the Butler, never from an exit code.

Belongs here: reading the provenance that the final job wrote (or writing it when the final job did not), and what
follows from it: quanta by task, failures with their causes, datasets by partition and band with their bytes, and
resources used.
Doesn't: the values that come of it (`launchers.outcome`), deciding what to do about it, or telling Dagster.

The silent trap: quanta that found no inputs, because their graph doesn't say where those are, "succeed" with exit code
0. Such a graph's empty successes are failures here.
"""

from __future__ import annotations

import datetime
import uuid
import zipfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsst.daf.butler import Butler, DataCoordinate, DatasetRef
from lsst.pipe.base import QuantumAttemptStatus, QuantumSuccessCaveats
from lsst.pipe.base import automatic_connection_constants as automatic
from lsst.pipe.base.quantum_graph import ProvenanceQuantumGraph
from lsst.pipe.base.quantum_graph.aggregator import AggregatorConfig, aggregate_graph
from lsst.resources import ResourcePath

import launchers.zip_seek  # noqa: F401
from launchers.bps import Handle, fetch_provenance
from launchers.graph import has_datastore_records
from launchers.job_ends import JobEnd, ends_of
from launchers.outcome import LOST, NO_RECORDS, DatasetCount, Outcome, Quantum, QuantumFailure, TaskOutcome, quantum_of
from launchers.selection import DataId, covers
from launchers.submission import StepRequest
from resources.errors import OperatorError, SiteFault

_SIZE_THREADS = 16
_BYTES_PER_MB = 1024.0 * 1024.0
_FAILED = frozenset({QuantumAttemptStatus.FAILED, QuantumAttemptStatus.ABORTED, QuantumAttemptStatus.UNKNOWN})


def read_outcome(request: StepRequest, handle: Handle | None = None) -> Outcome:
    """Judge a submission that is over.

    Parameters
    ----------
    request
        What was submitted.
    handle
        The submission, whose service may know how the jobs ended of which quanta say nothing.
    """
    path = request.provenance_path
    if not _is_whole(path):
        path.unlink(missing_ok=True)
        config = AggregatorConfig(output_path=str(path), worker_log_level="WARNING")
        try:
            fetch_provenance(request)
            if not _is_whole(path):
                # The final job was killed, failed or left out: do its work here, which may be repeated safely.
                aggregate_graph(str(request.graph_path), request.butler, config)
        except Exception as error:  # whatever a broken repository or site makes of it
            cause = str(error).strip().splitlines()
            raise SiteFault(
                f"no provenance could be gathered: {cause[-1] if cause else type(error).__name__}",
                request.key.name,
                f"see the final job's log in {request.submit_path}",
            ) from error
    with ProvenanceQuantumGraph.from_args(str(path)) as (graph, _), Butler.from_config(request.butler) as butler:
        return _judge(request, handle, graph, butler, has_records=has_datastore_records(request.graph_path))


def read_quanta(
    request: StepRequest, partitions: Collection[str] = (), quarantined: Collection[DataId] = ()
) -> dict[Quantum, bool]:
    """Read which quanta a submission that has been judged was to do, and whether each has succeeded.

    Parameters
    ----------
    request
        What was submitted.
    partitions
        Only quanta in these, and those whose data ID doesn't say in which; none: all.
    quarantined
        Parts of data IDs whose quanta are left out.
    """
    has_records = has_datastore_records(request.graph_path)
    with ProvenanceQuantumGraph.from_args(str(request.provenance_path)) as (graph, _), ExitStack() as opened:
        nodes = graph.bipartite_xgraph.nodes
        wanted = {"", *partitions}
        partition_of = None
        if partitions:
            butler = opened.enter_context(Butler.from_config(request.butler))
            partition_of = _Partitions(request.partition_dimension, graph, butler)
        return {
            quantum_of(label, _plain(data_id)): _verdict(nodes[quantum_id], has_records=has_records) == "succeeded"
            for label, quanta in graph.quanta_by_task.items()
            for data_id, quantum_id in quanta.items()
            if partition_of is None or partition_of(data_id) in wanted
            if not any(covers(part, data_id.mapping) for part in quarantined)
        }


def read_exit_codes(handle: Handle) -> dict[str, frozenset[int]]:
    """Read the exit codes of the jobs that failed, by job label; nothing where the service doesn't tell.

    Parameters
    ----------
    handle
        The submission.
    """
    try:
        reports, _ = handle.service().report(wms_workflow_id=handle.wms_id, return_exit_codes=True)
    except (OperatorError, RuntimeError, OSError):  # it is judged from provenance, whatever the service does
        return {}
    summary = (reports[0].exit_code_summary if reports else None) or {}
    return {label: frozenset(map(int, codes)) for label, codes in summary.items() if codes}


def _is_whole(path: Path) -> bool:
    """Whether the aggregator came to the end of its file: where each quantum stands in it is written last."""
    try:
        with zipfile.ZipFile(path) as file:
            return "nodes.addr" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


@dataclass(slots=True)
class _Resources:
    cpu_s: float = 0.0
    memory_bytes: float = 0.0
    starts: list[datetime.datetime] = field(default_factory=list)
    ends: list[datetime.datetime] = field(default_factory=list)

    def add(self, attempts: Iterable[Any]) -> None:
        for usage in (attempt.resource_usage for attempt in attempts if attempt.resource_usage is not None):
            self.cpu_s += usage.run_time_cpu
            self.memory_bytes = max(self.memory_bytes, usage.memory)
            self.starts.append(usage.start)
            self.ends.append(usage.end)

    @property
    def wall_s(self) -> float:
        return (max(self.ends) - min(self.starts)).total_seconds() if self.starts else 0.0


def _judge(
    request: StepRequest, handle: Handle | None, graph: ProvenanceQuantumGraph, butler: Butler, *, has_records: bool
) -> Outcome:
    tasks: dict[str, TaskOutcome] = {}
    failed: list[tuple[str, uuid.UUID]] = []
    resources = _Resources()
    nodes = graph.bipartite_xgraph.nodes
    partition_of = _Partitions(request.partition_dimension, graph, butler)
    for label, quanta in graph.quanta_by_task.items():
        counts: Counter[str] = Counter(expected=len(quanta))
        for quantum_id in quanta.values():
            quantum = nodes[quantum_id]
            resources.add(quantum["attempts"])
            verdict = _verdict(quantum, has_records=has_records)
            counts[verdict] += 1
            counts["caveats"] += verdict == "succeeded" and bool(quantum["caveats"])
            if verdict == "failed":
                failed.append((label, quantum_id))
        if quanta:
            tasks[label] = TaskOutcome(**counts)
    ends = ends_of(handle, {quantum_id for _, quantum_id in failed}) if handle is not None else {}
    return Outcome(
        tasks=tasks,
        failures=_failures(failed, ends, graph, butler, partition_of),
        datasets=_count_datasets(graph, butler, partition_of),
        cpu_s=resources.cpu_s,
        peak_memory_mb=resources.memory_bytes / _BYTES_PER_MB,
        wall_s=resources.wall_s,
        run_collection=request.key.run_collection,
    )


def _verdict(quantum: Mapping[str, Any], *, has_records: bool) -> str:
    """Return the name of the count that the quantum belongs to."""
    status = quantum["status"]
    if status is QuantumAttemptStatus.BLOCKED:
        return "blocked"
    caveats = quantum["caveats"] or QuantumSuccessCaveats.NO_CAVEATS
    found_nothing = not has_records and QuantumSuccessCaveats.ADJUST_QUANTUM_RAISED in caveats
    return "failed" if status in _FAILED or found_nothing else "succeeded"


def _failures(
    failed: list[tuple[str, uuid.UUID]],
    ends: Mapping[uuid.UUID, JobEnd],
    graph: ProvenanceQuantumGraph,
    butler: Butler,
    partition_of: _Partitions,
) -> tuple[QuantumFailure, ...]:
    nodes = graph.bipartite_xgraph.nodes
    quanta = [nodes[quantum_id] for _, quantum_id in failed]
    logs = [_ref(graph, nodes[quantum["log_id"]], quantum["log_id"]) for quantum in quanta]
    uris = {ref.id: str(uri.primaryURI) for ref, uri in butler.get_many_uris(logs, allow_missing=True).items()}
    return tuple(
        _failure(label, quantum, uris.get(log.id, ""), ends.get(quantum_id, JobEnd()), partition_of)
        for (label, quantum_id), quantum, log in zip(failed, quanta, logs, strict=True)
    )


def _failure(
    label: str, quantum: Mapping[str, Any], log: str, end: JobEnd, partition_of: _Partitions
) -> QuantumFailure:
    exception, message = _cause(quantum, log, end)
    return QuantumFailure(
        label,
        _plain(quantum["data_id"]),
        exception,
        message,
        log or end.log,
        _memory_mb(quantum) or end.memory_mb,
        partition_of(quantum["data_id"]),
        end.node,
    )


def _memory_mb(quantum: Mapping[str, Any]) -> float:
    used = [attempt.resource_usage.memory for attempt in quantum["attempts"] if attempt.resource_usage is not None]
    return max(used, default=0.0) / _BYTES_PER_MB


def _cause(quantum: Mapping[str, Any], log: str, end: JobEnd) -> tuple[str, str]:
    exception = quantum["exception"]
    if exception is not None:
        return exception.type_name, _first_line(exception.message)
    if quantum["status"] not in _FAILED:
        return NO_RECORDS, "the graph doesn't say where the inputs are: nothing was done; build it anew"
    if end.ending:
        return LOST, f"{end.ending}: its job was ended before it could say more"
    if log:
        return "", "it failed without saying why; see its log"
    return LOST, "neither log nor metadata: its process was killed, or never came to it"


def _ref(graph: ProvenanceQuantumGraph, info: Mapping[str, Any], dataset_id: uuid.UUID) -> DatasetRef:
    node = graph.pipeline_graph.dataset_types[info["dataset_type_name"]]
    return DatasetRef(node.dataset_type, info["data_id"], run=info["run"], id=dataset_id)


def _count_datasets(
    graph: ProvenanceQuantumGraph, butler: Butler, partition_of: _Partitions
) -> dict[tuple[str, str, str], DatasetCount]:
    quanta_and_datasets = graph.bipartite_xgraph
    nodes = quanta_and_datasets.nodes
    beside = _automatic_names(graph)
    expected: Counter[tuple[str, str, str]] = Counter()
    produced: defaultdict[tuple[str, str, str], list[DatasetRef]] = defaultdict(list)
    for name, datasets in graph.datasets_by_type.items():
        producer = graph.pipeline_graph.producer_of(name)
        if producer is None or name in beside:
            continue
        for data_id, dataset_id in datasets.items():
            if not quanta_and_datasets.in_degree(dataset_id):
                continue  # an earlier attempt has made it, and a rescue only reads it
            info = nodes[dataset_id]
            # A visit implies its band, but only what exists once a band is counted by band.
            band = str(data_id["band"]) if "band" in data_id.dimensions.required else ""
            key = (name, partition_of(data_id), band)
            expected[key] += 1
            if info["produced"]:
                produced[key].append(_ref(graph, info, dataset_id))
    sizes = _sizes(butler, [ref for refs in produced.values() for ref in refs])
    return {
        key: DatasetCount(len(produced[key]), sum(sizes.get(ref.id, 0) for ref in produced[key]), number)
        for key, number in expected.items()
    }


class _Partitions:
    """Tells a data ID's partition: its own value of the dimension, or the day_obs that visit or exposure imply."""

    def __init__(self, dimension: str | None, graph: ProvenanceQuantumGraph, butler: Butler) -> None:
        self._dimension = dimension
        self._implied: dict[tuple[str, int], str] = {}
        if dimension != "day_obs":
            return
        for element in ("visit", "exposure"):
            wanted: defaultdict[str, set[int]] = defaultdict(set)
            for datasets in graph.datasets_by_type.values():
                for data_id in datasets:
                    if element in data_id.dimensions.required:
                        wanted[str(data_id["instrument"])].add(int(data_id[element]))
            for instrument, ids in wanted.items():
                with butler.query() as query:
                    records = query.dimension_records(element).where(
                        f"{element} IN (ids)", instrument=instrument, bind={"ids": sorted(ids)}
                    )
                    self._implied |= {(element, record.id): str(record.day_obs) for record in records}

    def __call__(self, data_id: DataCoordinate) -> str:
        if self._dimension is None:
            return ""
        if self._dimension in data_id.dimensions.required:
            return str(data_id[self._dimension])
        for element in ("visit", "exposure"):
            if element in data_id.dimensions.required:
                return self._implied.get((element, int(data_id[element])), "")
        return ""


def _automatic_names(graph: ProvenanceQuantumGraph) -> set[str]:
    """Name the datasets that every task has beside its products."""
    templates = (
        automatic.METADATA_OUTPUT_TEMPLATE,
        automatic.LOG_OUTPUT_TEMPLATE,
        automatic.CONFIG_INIT_OUTPUT_TEMPLATE,
    )
    names = {template.format(label=label) for template in templates for label in graph.pipeline_graph.tasks}
    return names | {automatic.PACKAGES_INIT_OUTPUT_NAME}


def _sizes(butler: Butler, refs: list[DatasetRef]) -> dict[Any, int]:
    """Return bytes by dataset id, asking the files: what was executed apart from the Butler doesn't record them."""
    uris = butler.get_many_uris(refs, allow_missing=True)
    parts = [(ref.id, uri) for ref, found in uris.items() for uri in found.iter_all()]
    sizes: Counter[Any] = Counter()
    with ThreadPoolExecutor(_SIZE_THREADS) as threads:
        for (dataset_id, _), size in zip(parts, threads.map(_size, [uri for _, uri in parts]), strict=True):
            sizes[dataset_id] += size
    return sizes


def _size(uri: ResourcePath) -> int:
    try:
        return uri.size()
    except FileNotFoundError:
        return 0


def _plain(data_id: DataCoordinate) -> dict[str, int | str]:
    return {key: data_id.mapping[key] for key in sorted(data_id.dimensions.required)}


def _first_line(message: str) -> str:
    # A header's card may end in NULs, which PostgreSQL keeps in no text.
    return next(iter(message.strip().splitlines()), "").replace("\0", "\N{REPLACEMENT CHARACTER}")
