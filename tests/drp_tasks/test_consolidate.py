"""Consolidation: all rows, in the order of the data IDs, with their units, for each pair of dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table, TableMergeError
from lsst.daf.butler import Butler, DatasetType, DimensionUniverse

from drp_tasks.consolidate import (
    ConsolidateForcedTableTask,
    ConsolidateTractTableTask,
    ConsolidateVisitTableTask,
    concatenate,
)


def table(detector: int, n: int) -> Table:
    return Table(
        {
            "detector": np.full(n, detector, np.int32),
            "band": np.full(n, "r"),
            "flux": np.arange(n) * u.nJy,
            "flag": np.zeros(n, bool),
        },
        meta={"detector": detector},
    )


def test_rows_follow_each_other_with_types_and_units():
    together = concatenate([table(3, 2), table(1, 3)])
    assert list(together["detector"]) == [3, 3, 1, 1, 1]
    assert together["flux"].unit == u.nJy
    assert together["flag"].dtype == bool
    assert together["detector"].dtype == np.int32
    assert together.meta == {}


def test_empty_tables_neither_add_rows_nor_change_types():
    nothing = Table({name: np.zeros(0) for name in ("detector", "band", "flux", "flag")})
    together = concatenate([nothing, table(3, 2)])
    assert len(together) == 2
    assert together["flag"].dtype == bool
    assert len(concatenate([nothing, nothing])) == 0


def test_the_inputs_are_left_alone():
    only = table(3, 2)
    concatenate([only])["flux"][0] = 99
    assert only["flux"][0] == 0
    assert only.meta == {"detector": 3}


def test_tables_with_other_columns_are_refused():
    other = table(1, 2)
    other.rename_column("flux", "psfFlux")
    with pytest.raises(TableMergeError):
        concatenate([table(3, 2), other])


def test_nothing_is_no_table():
    with pytest.raises(ValueError, match="no table"):
        concatenate([])


def test_a_table_survives_the_butler_with_units_strings_and_booleans(tmp_path):
    Butler.makeRepo(str(tmp_path / "repo"))
    with Butler.from_config(str(tmp_path / "repo"), run="tables") as butler:
        butler.registry.registerDatasetType(DatasetType("together", (), "ArrowAstropy", universe=butler.dimensions))
        butler.put(concatenate([table(3, 2), table(1, 3)]), "together")
        back = butler.get("together")
    assert back["flux"].unit == u.nJy
    assert back["flag"].dtype == bool
    assert list(back["band"]) == ["r"] * 5


@pytest.mark.parametrize(
    ("task_class", "over", "into"),
    [
        (ConsolidateVisitTableTask, {"instrument", "visit", "detector"}, {"instrument", "visit"}),
        (ConsolidateTractTableTask, {"skymap", "tract", "patch"}, {"skymap", "tract"}),
        (
            ConsolidateForcedTableTask,
            {"instrument", "visit", "detector", "skymap", "tract"},
            {"instrument", "skymap", "tract"},
        ),
    ],
)
def test_a_pipeline_chooses_the_dataset_types_of_each_task(task_class, over, into):
    config = task_class.ConfigClass()
    config.connections.inputTables = "source_detector"
    config.connections.outputTable = "source"
    connections = config.ConnectionsClass(config=config)
    universe = DimensionUniverse()
    assert connections.inputTables.name == "source_detector"
    assert connections.outputTable.name == "source"
    assert set(universe.conform(connections.inputTables.dimensions).required) == over
    assert set(universe.conform(connections.outputTable.dimensions).required) == into
    assert set(universe.conform(connections.dimensions).required) == into


@dataclass(frozen=True)
class DataId:
    required_values: tuple[object, ...]


@dataclass(frozen=True)
class Handle:
    dataId: DataId
    table: Table

    def get(self, parameters: dict[str, Sequence[str]] | None) -> Table:
        return self.table if parameters is None else self.table[list(parameters["columns"])]


class Context:
    def __init__(self, handles: list[Handle]) -> None:
        self.handles, self.output = handles, Table()

    def get(self, refs: None) -> dict[str, list[Handle]]:
        return {"inputTables": self.handles}

    def put(self, outputs, refs: None) -> None:
        self.output = outputs.outputTable


def test_detectors_come_in_order_whatever_the_order_of_the_graph():
    handles = [Handle(DataId(("SimCam", 5, detector)), table(detector, 2)) for detector in (4, 0, 3)]
    context = Context(handles)
    task = ConsolidateVisitTableTask(config=ConsolidateVisitTableTask.ConfigClass())
    task.runQuantum(context, None, None)
    assert list(context.output["detector"]) == [0, 0, 3, 3, 4, 4]
    assert (task.metadata["n_tables"], task.metadata["n_rows"]) == (3, 6)


def test_only_the_columns_asked_for_are_kept():
    context = Context([Handle(DataId(("SimCam", 5, 1)), table(1, 2))])
    config = ConsolidateVisitTableTask.ConfigClass(columns=["flux", "detector"])
    ConsolidateVisitTableTask(config=config).runQuantum(context, None, None)
    assert context.output.colnames == ["flux", "detector"]
