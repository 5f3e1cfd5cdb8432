"""Quanta into jobs: as few processes as keep all cores busy, with no job waiting for more than it needs.

Belongs here: the function that BPS's ``clusterAlgorithm`` names, and the pure planning behind it.
Doesn't: the commands or resources of jobs, which BPS derives from the clusters.

A process costs seconds and a quantum milliseconds, so a step is cut into stages: as many tasks, from the pipeline's
beginning, as leave enough unconnected parts of the graph (detector-visits, visits, patches, bands …) to feed every
core. The parts of a stage are dealt into one job a core; what joins them (a catalogue of the whole tract) is the next
stage. Jobs of one stage never wait for each other, so that the jobs make a graph without cycles, whatever the pipeline.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lsst.ctrl.bps import BpsConfig, ClusteredQuantumGraph, QuantaCluster
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph

MAX_QUANTA = 1000
"""Quanta a job at most: their identifiers are one argument, which the kernel limits to 128 KiB (some 3,500 of them)."""


@dataclass(frozen=True, slots=True)
class Cluster[Q: Hashable]:
    """The quanta of one job."""

    label: str
    quanta: tuple[Q, ...]


def plan_clusters[Q: Hashable](
    quanta: Mapping[str, Sequence[Q]], edges: Iterable[tuple[Q, Q]], *, count: int, max_quanta: int = MAX_QUANTA
) -> list[Cluster[Q]]:
    """Plan the jobs of a graph.

    Parameters
    ----------
    quanta
        Quanta by task, the tasks in an order in which none comes before one that it needs.
    edges
        Pairs of quanta of which the second needs the first.
    count
        Jobs that can run at the same time.
    max_quanta
        Quanta a job at most, unless fewer cannot be separated.
    """
    before: defaultdict[Q, list[Q]] = defaultdict(list)
    for parent, child in edges:
        before[child].append(parent)
    tasks = [task for task, members in quanta.items() if members]
    clusters: list[Cluster[Q]] = []
    while tasks:
        length = _stage_length([quanta[task] for task in tasks], before, count, max_quanta)
        stage, tasks = tasks[:length], tasks[length:]
        label = stage[0] if length == 1 else f"{stage[0]}-{stage[-1]}"
        parts = _Parts(before)
        for task in stage:
            parts.add(quanta[task])
        clusters += [Cluster(label, members) for members in _deal(parts.members(), count, max_quanta)]
    return clusters


class _Parts[Q: Hashable]:
    """Unconnected parts of a growing set of quanta (union-find)."""

    def __init__(self, before: Mapping[Q, Sequence[Q]]) -> None:
        self._before = before
        self._root: dict[Q, Q] = {}
        self._size: Counter[Q] = Counter()

    @property
    def number(self) -> int:
        return len(self._size)

    @property
    def largest(self) -> int:
        return max(self._size.values())

    def add(self, quanta: Sequence[Q]) -> None:
        for quantum in quanta:
            self._root[quantum] = quantum
            self._size[quantum] = 1
            for parent in self._before.get(quantum, ()):
                if parent in self._root:
                    self._join(parent, quantum)

    def members(self) -> list[list[Q]]:
        found: defaultdict[Q, list[Q]] = defaultdict(list)
        for quantum in self._root:
            found[self._find(quantum)].append(quantum)
        return list(found.values())

    def _find(self, quantum: Q) -> Q:
        root = self._root
        while root[quantum] != quantum:
            root[quantum] = root[root[quantum]]
            quantum = root[quantum]
        return quantum

    def _join(self, one: Q, other: Q) -> None:
        a, b = self._find(one), self._find(other)
        if a == b:
            return
        if self._size[a] < self._size[b]:
            a, b = b, a
        self._root[b] = a
        self._size[a] += self._size.pop(b)


def _stage_length[Q: Hashable](
    tasks: Sequence[Sequence[Q]], before: Mapping[Q, Sequence[Q]], count: int, max_quanta: int
) -> int:
    """Choose how many tasks make the next stage: the most that leave ``count`` parts, else those that leave most."""
    parts = _Parts(before)
    best, most = 1, 0
    for length, members in enumerate(tasks, start=1):
        parts.add(members)
        if length > 1 and parts.largest > max_quanta:
            break
        if min(parts.number, count) >= most:
            best, most = length, min(parts.number, count)
    return best


def _deal[Q: Hashable](parts: Sequence[Sequence[Q]], count: int, max_quanta: int) -> list[tuple[Q, ...]]:
    """Deal parts into jobs of like size, the largest first, each to the job that has least."""
    total = sum(len(part) for part in parts)
    jobs = min(len(parts), max(count, -(-total // max_quanta)))
    hands: list[tuple[int, int, list[Q]]] = [(0, number, []) for number in range(jobs)]
    for part in sorted(parts, key=len, reverse=True):
        size, number, hand = heapq.heappop(hands)
        hand.extend(part)
        heapq.heappush(hands, (size + len(part), number, hand))
    return [tuple(hand) for _, _, hand in sorted(hands, key=lambda dealt: dealt[1])]


def balanced_clustering(config: BpsConfig, qgraph: PredictedQuantumGraph, name: str) -> ClusteredQuantumGraph:
    """Cluster a quantum graph for BPS: ``clusterAlgorithm: launchers.clustering.balanced_clustering``.

    Reads ``clusterCount`` (jobs at the same time; default ``localCores``, else this machine's cores) and
    ``clusterMaxQuanta`` from the configuration.
    """
    clustered = ClusteredQuantumGraph(name=name, qgraph=qgraph, qgraph_filename=config[".bps_defined.runQgraphFile"])
    graph = clustered.qxgraph
    tasks = {
        label: [quantum for _, quantum in sorted(members.items())] for label, members in qgraph.quanta_by_task.items()
    }
    plan = plan_clusters(
        tasks,
        graph.edges,
        count=_setting(config, "clusterCount") or _setting(config, "localCores") or os.cpu_count() or 1,
        max_quanta=_setting(config, "clusterMaxQuanta") or MAX_QUANTA,
    )
    cluster_of = {}
    numbers: Counter[str] = Counter()
    for planned in plan:
        numbers[planned.label] += 1
        cluster = QuantaCluster(f"{planned.label}_{numbers[planned.label]:03d}", planned.label)
        for quantum in planned.quanta:
            cluster.add_quantum(quantum, graph.nodes[quantum]["task_label"])
            cluster_of[quantum] = cluster.name
        clustered.add_cluster(cluster)
    for parent, child in graph.edges:
        if cluster_of[parent] != cluster_of[child]:
            clustered.add_dependency(cluster_of[parent], cluster_of[child])
    return clustered


def _setting(config: BpsConfig, key: str) -> int | None:
    _, site = config.search("computeSite", opt={"default": None})
    _, value = config.search(key, opt={"default": None, "curvals": {"curr_site": site} if site else {}})
    return None if value in {None, ""} else int(value)
