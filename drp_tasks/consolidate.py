"""Tables of many small quanta gathered into one: the rows of a visit's detectors, of a tract's patches.

Belongs here: concatenation, and one task for each pair of dimensions that the pipeline gathers over.
Doesn't: anything that changes a row (`drp_tasks.visit_tables`, `drp_tasks.update_visit_summary`).

A pipeline gives the dataset types by ``connections.inputTables`` and ``connections.outputTable``.
"""

from __future__ import annotations

from collections.abc import Sequence

import lsst.pex.config as pc
import lsst.pipe.base as pb
from astropy.table import Table, vstack
from lsst.daf.butler import DeferredDatasetHandle
from lsst.pipe.base import connectionTypes as ct


def concatenate(tables: Sequence[Table]) -> Table:
    """Return the rows of all tables in the order given, with the columns, units and descriptions of the first.

    Tables without rows are left out if any other has some: their columns may lack the types of real values.

    Raises
    ------
    ValueError
        If there is no table.
    astropy.table.TableMergeError
        If tables have different columns.
    """
    if not tables:
        raise ValueError("no table to concatenate")
    full = [table for table in tables if len(table)] or list(tables[:1])
    together = vstack(full, join_type="exact", metadata_conflicts="silent") if len(full) > 1 else full[0].copy()
    together.meta.clear()
    return together


class ConsolidateConfig(pc.Config):
    """What the tasks of this module share: which columns to keep."""

    columns = pc.ListField[str](doc="Columns to keep, in this order; all if empty.", default=[])


class ConsolidateTableTask(pb.PipelineTask):
    """Gather tables into one; subclasses say over which dimensions."""

    def runQuantum(
        self,
        butlerQC: pb.QuantumContext,
        inputRefs: pb.InputQuantizedConnection,
        outputRefs: pb.OutputQuantizedConnection,
    ) -> None:
        """Read in the order of the data IDs, so that the same inputs always give the same file."""
        handles = butlerQC.get(inputRefs)["inputTables"]
        handles = sorted(handles, key=lambda handle: handle.dataId.required_values)
        butlerQC.put(self.run(handles), outputRefs)

    def run(self, inputTables: Sequence[DeferredDatasetHandle]) -> pb.Struct:
        """Return ``outputTable`` with the rows of all ``inputTables``."""
        parameters = {"columns": list(self.config.columns)} if self.config.columns else None
        table = concatenate([handle.get(parameters=parameters) for handle in inputTables])
        self.metadata["n_tables"] = len(inputTables)
        self.metadata["n_rows"] = len(table)
        return pb.Struct(outputTable=table)


class ConsolidateVisitTableConnections(pb.PipelineTaskConnections, dimensions=("instrument", "visit")):  # type: ignore[call-arg]
    """Tables of a visit's detectors in, one of the visit out."""

    inputTables = ct.Input(
        name="single_visit_star_detector",
        doc="Tables of detectors, all with the same columns.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
    )
    outputTable = ct.Output(
        name="single_visit_star",
        doc="All their rows.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )


class ConsolidateVisitTableConfig(  # type: ignore[call-arg]
    ConsolidateConfig, pb.PipelineTaskConfig, pipelineConnections=ConsolidateVisitTableConnections
):
    """Gather a visit's detectors."""


class ConsolidateVisitTableTask(ConsolidateTableTask):
    """Gather the tables of a visit's detectors."""

    ConfigClass = ConsolidateVisitTableConfig
    _DefaultName = "consolidateVisitTable"


class ConsolidateTractTableConnections(pb.PipelineTaskConnections, dimensions=("skymap", "tract")):  # type: ignore[call-arg]
    """Tables of a tract's patches in, one of the tract out."""

    inputTables = ct.Input(
        name="object_patch",
        doc="Tables of patches, all with the same columns.",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch"),
        multiple=True,
        deferLoad=True,
    )
    outputTable = ct.Output(
        name="object",
        doc="All their rows.",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract"),
    )


class ConsolidateTractTableConfig(  # type: ignore[call-arg]
    ConsolidateConfig, pb.PipelineTaskConfig, pipelineConnections=ConsolidateTractTableConnections
):
    """Gather a tract's patches."""


class ConsolidateTractTableTask(ConsolidateTableTask):
    """Gather the tables of a tract's patches."""

    ConfigClass = ConsolidateTractTableConfig
    _DefaultName = "consolidateTractTable"


class ConsolidateForcedTableConnections(pb.PipelineTaskConnections, dimensions=("instrument", "skymap", "tract")):  # type: ignore[call-arg]
    """Tables of the detectors that touch a tract in, one of the tract out."""

    inputTables = ct.Input(
        name="object_forced_source_detector",
        doc="Tables of the parts of detectors that lie in the tract, all with the same columns.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector", "skymap", "tract"),
        multiple=True,
        deferLoad=True,
    )
    outputTable = ct.Output(
        name="object_forced_source",
        doc="All their rows.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
    )


class ConsolidateForcedTableConfig(  # type: ignore[call-arg]
    ConsolidateConfig, pb.PipelineTaskConfig, pipelineConnections=ConsolidateForcedTableConnections
):
    """Gather the detectors that touch a tract."""


class ConsolidateForcedTableTask(ConsolidateTableTask):
    """Gather the tables of all detectors of all visits in a tract."""

    ConfigClass = ConsolidateForcedTableConfig
    _DefaultName = "consolidateForcedTable"
