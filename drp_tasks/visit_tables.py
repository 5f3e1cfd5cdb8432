"""Tables of the whole survey: a row for each detector of each visit, and a row for each visit.

Belongs here: how visit summaries become the two tables that people look at first.
Doesn't: the summaries' own columns (`drp_tasks.visit_summary`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import astropy.units as u
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Column, Table
from lsst.daf.butler import DeferredDatasetHandle
from lsst.pipe.base import connectionTypes as ct

from drp_tasks.consolidate import concatenate
from drp_tasks.images import AB_NANOJANSKY
from drp_tasks.matching import sky_position, unit_vectors

DEPTH_SIGMA = 5.0

CONSTANT_IN_VISIT = ("band", "physical_filter", "day_obs", "mjdMid", "expTime")
MEDIAN_OVER_DETECTORS = (
    "zeroPoint",
    "psfSigma",
    "psfFwhm",
    "psfE1",
    "psfE2",
    "skyBackground",
    "skyNoise",
    "effTime",
    "astrometryResidual",
    "magLim",
)
SUM_OVER_DETECTORS = ("nSources", "nPsfStars", "nAstrometryStars", "nPhotometryStars")


def gather_detectors(summaries: Sequence[Table]) -> Table:
    """Return all rows of visit summaries by (visit, detector), without the WCS text, with the depth.

    The depth ``magLim`` is the AB magnitude of a point source with a signal to noise of 5.
    """
    table = concatenate(summaries)
    if "wcs" in table.colnames:
        table.remove_column("wcs")
    equivalent_area = 4 * np.pi * np.asarray(table["psfSigma"], np.float64) ** 2
    noise = np.sqrt(np.asarray(table["meanVariance"], np.float64) * equivalent_area)
    table["magLim"] = (AB_NANOJANSKY - 2.5 * np.log10(DEPTH_SIGMA * noise)).astype(np.float32) * u.mag
    table.sort(["visit", "detector"])
    return table


def gather_visits(summaries: Sequence[Table]) -> Table:
    """Return one row for each visit: medians and sums over its detectors, how many they are, and where it points.

    Detectors whose value isn't finite are left out of a median. ``zeroPointScatter`` is the standard deviation over
    the detectors.
    """
    detectors = gather_detectors(summaries)
    visits, first, row_visit = np.unique(np.asarray(detectors["visit"]), return_index=True, return_inverse=True)
    groups = [np.flatnonzero(row_visit == index) for index in range(len(visits))]
    table = Table({"visit": visits})
    for name in CONSTANT_IN_VISIT:
        table[name] = detectors[name][first]
    table["nDetectors"] = np.array([len(rows) for rows in groups], np.int32)
    for name in MEDIAN_OVER_DETECTORS:
        table[name] = _over(detectors[name], groups, np.median)
        table[name].unit = detectors[name].unit
    table["zeroPointScatter"] = _over(detectors["zeroPoint"], groups, np.std)
    table["zeroPointScatter"].unit = detectors["zeroPoint"].unit
    for name in SUM_OVER_DETECTORS:
        table[name] = np.array([np.sum(np.asarray(detectors[name])[rows]) for rows in groups], np.int32)
    table["ra"], table["dec"] = _mean_direction(detectors, groups)
    return table


def _over(column: Column, groups: Sequence[np.ndarray], reduce: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return a number for each group of rows, NaN where no value of the group is finite."""
    values = np.asarray(column, np.float64)
    finite = [values[rows][np.isfinite(values[rows])] for rows in groups]
    return np.array([reduce(group) if len(group) else np.nan for group in finite]).astype(column.dtype)


def _mean_direction(detectors: Table, groups: Sequence[np.ndarray]) -> tuple[u.Quantity, u.Quantity]:
    """Return the direction [deg] of the mean of the detectors' centres, for each visit."""
    centres = unit_vectors(detectors["ra"], detectors["dec"])
    ra, dec = sky_position(np.array([np.nanmean(centres[rows], axis=0) for rows in groups]))
    return ra * u.deg, dec * u.deg


class VisitSummariesConnections(
    pb.PipelineTaskConnections,
    dimensions=("instrument",),  # type: ignore[call-arg]
):
    """Summaries of all visits in, one table out."""

    visitSummaries = ct.Input(
        name="preliminary_visit_summary",
        doc="A row for each detector of a visit.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    outputTable = ct.Output(
        name="preliminary_visit_table",
        doc="The survey's table.",
        storageClass="ArrowAstropy",
        dimensions=("instrument",),
    )


class VisitSummariesConfig(pb.PipelineTaskConfig, pipelineConnections=VisitSummariesConnections):  # type: ignore[call-arg]
    """Nothing to configure but the dataset types."""


class MakeVisitDetectorTableTask(pb.PipelineTask):
    """Make the table of all detectors of all visits."""

    ConfigClass = VisitSummariesConfig
    _DefaultName = "makeVisitDetectorTable"

    def run(self, visitSummaries: Sequence[DeferredDatasetHandle]) -> pb.Struct:
        """Return ``outputTable``: see `gather_detectors`."""
        table = gather_detectors([handle.get() for handle in visitSummaries])
        self.metadata["n_rows"] = len(table)
        return pb.Struct(outputTable=table)


class MakeVisitTableTask(pb.PipelineTask):
    """Make the table of all visits."""

    ConfigClass = VisitSummariesConfig
    _DefaultName = "makeVisitTable"

    def run(self, visitSummaries: Sequence[DeferredDatasetHandle]) -> pb.Struct:
        """Return ``outputTable``: see `gather_visits`."""
        table = gather_visits([handle.get() for handle in visitSummaries])
        self.metadata["n_visits"] = len(table)
        return pb.Struct(outputTable=table)
