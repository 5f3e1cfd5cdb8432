"""Which quanta of a graph are left out: quarantined data IDs, and failures that are not to be tried again now.

Belongs here: the graph builder that leaves them out, through pipe_base's own extension point, and what can be left out
at all. Doesn't: deciding what is left out (`launchers.policies`), or building the rest (`launchers.graph`).

What is quarantined is treated as if it had never come: what depends on it goes on without it. What is left for later
takes all that depends on it along: that would otherwise be made from less than it should be.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lsst.daf.butler import DataCoordinate, DimensionUniverse
from lsst.pipe.base import PipelineGraph
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
from lsst.pipe.base.quantum_graph_skeleton import DatasetKey, QuantumGraphSkeleton

from resources.errors import Rejected

type DataId = Mapping[str, int | str]


def covers(part: DataId, data_id: DataId) -> bool:
    """Say whether all that ``part`` names is so in a data ID with what it implies, such as a visit's night."""
    return part.items() <= data_id.items()


def checked(part: DataId, universe: DimensionUniverse) -> dict[str, int | str]:
    """Give a part of a data ID as it has to be to leave anything out.

    Parameters
    ----------
    part
        As somebody has typed it.
    universe
        The repository's dimensions.

    Raises
    ------
    resources.errors.Rejected
        It is so of no data ID at all, or of all of them.
    """
    names = universe.dimensions.names
    for name in part:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise Rejected("no dimension", name, f"did you mean {near[0]}?" if near else "such as visit or detector")
    for name in part:
        if name not in universe.conform(part).required:
            raise Rejected("follows from the others", name, "leave it out")
    if set(part) <= universe.governor_dimensions.names:
        raise Rejected(
            "is the whole release",
            " ".join(f"{name}={value}" for name, value in part.items()),
            "name a part of it, such as visit=…",
        )
    values: dict[str, int | str] = {}
    for name, value in part.items():
        kind = universe.dimensions[name].primaryKey.getPythonType()
        if kind is int and not isinstance(value, int):
            raise Rejected("is a number", f"{name}={value}", "correct it")
        values[name] = str(value) if kind is str else value
    return values


class SelectingGraphBuilder(AllDimensionsQuantumGraphBuilder):
    """Builds a graph without what is left out.

    Parameters
    ----------
    quarantined
        Parts of data IDs.
    later
        Task labels and data IDs of quanta.
    """

    def __init__(
        self, *arguments: Any, quarantined: Collection[DataId], later: Collection[tuple[str, DataId]], **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self._quarantined = [dict(part) for part in quarantined]
        self._later = {(task, frozenset(data_id.items())) for task, data_id in later}

    def process_subgraph(self, subgraph: PipelineGraph) -> QuantumGraphSkeleton:
        """Build the structure, and take out of it what is left out; see the base class."""
        skeleton = super().process_subgraph(subgraph)
        if not skeleton.has_any_quanta:
            return skeleton
        if self._quarantined:
            self._remove_quarantined(subgraph, skeleton)
        if self._later:
            self._remove_later(subgraph, skeleton)
        return skeleton

    def _remove_quarantined(self, subgraph: PipelineGraph, skeleton: QuantumGraphSkeleton) -> None:
        for label in subgraph.tasks:
            for quantum in list(skeleton.get_quanta(label)):
                if self._is_quarantined(skeleton.get_data_id(quantum)):
                    skeleton.remove_quantum_node(quantum, remove_outputs=True)
        # What other steps have made of it is left out as well.
        skeleton.remove_dataset_nodes(
            [
                key
                for key in skeleton
                if isinstance(key, DatasetKey)
                and skeleton.get_producer_of(key) is None
                and self._is_quarantined(skeleton.get_data_id(key))
            ]
        )

    def _is_quarantined(self, data_id: DataCoordinate) -> bool:
        return any(covers(part, data_id.mapping) for part in self._quarantined)

    def _remove_later(self, subgraph: PipelineGraph, skeleton: QuantumGraphSkeleton) -> None:
        gone: set[DatasetKey] = set()
        removed = []
        # In the pipeline's order: whatever a quantum depends on has been looked at before it.
        for label, task in subgraph.tasks.items():
            for quantum in skeleton.get_quanta(label):
                data_id = DataCoordinate.from_required_values(task.dimensions, quantum.data_id_values)
                is_later = (label, frozenset(data_id.required.items())) in self._later
                if is_later or _any_in(skeleton.iter_inputs_of(quantum), gone):
                    removed.append(quantum)
                    gone.update(skeleton.iter_outputs_of(quantum))
        for quantum in removed:
            skeleton.remove_quantum_node(quantum, remove_outputs=True)


def _any_in(keys: Iterable[Any], chosen: set[DatasetKey]) -> bool:
    return any(key in chosen for key in keys)
