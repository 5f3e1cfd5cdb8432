"""The sources of a visit with positions and fluxes under the final calibration.

Belongs here: recomputing what depends on WCS and zero point, for any source table of a visit.
Doesn't: measuring anything on pixels.
"""

from __future__ import annotations

import lsst.pipe.base as pb
import numpy as np
from astropy.table import Table
from lsst.pipe.base import connectionTypes as ct

from drp_tasks.images import wcs_from_text

FLUX_COLUMNS = ("psfFlux", "psfFluxErr", "apFlux", "apFluxErr")
"""Columns in nJy that scale with the zero point."""


def recalibrate(sources: Table, before: Table, after: Table) -> Table:
    """Recompute the sky positions and fluxes of a visit's sources.

    Parameters
    ----------
    sources
        Sources with x, y [pix], their detector, and fluxes [nJy] at the zero points of ``before``.
    before, after
        Summaries of the visit, a row a detector, with zeroPoint [mag] and wcs.

    Returns
    -------
    sources
        A copy with new ra, dec [deg] and fluxes.

    Raises
    ------
    ValueError
        If a detector with sources isn't in both summaries.
    """
    out = sources.copy()
    detector = np.asarray(sources["detector"])
    rows_before = {int(row["detector"]): row for row in before}
    rows_after = {int(row["detector"]): row for row in after}
    for number in np.unique(detector):
        try:
            old, new = rows_before[int(number)], rows_after[int(number)]
        except KeyError as missing:
            raise ValueError(f"detector {missing} has sources, but no row in the visit's summary") from missing
        mine = detector == number
        wcs = wcs_from_text(str(new["wcs"]))
        out["ra"][mine], out["dec"][mine] = wcs.all_pix2world(
            np.asarray(sources["x"][mine]), np.asarray(sources["y"][mine]), 0
        )
        factor = 10 ** (-0.4 * (float(new["zeroPoint"]) - float(old["zeroPoint"])))
        for column in FLUX_COLUMNS:
            out[column][mine] = np.asarray(sources[column][mine]) * factor
    return out


class RecalibrateStarConnections(pb.PipelineTaskConnections, dimensions=("instrument", "visit")):  # type: ignore[call-arg]
    """Data sets of `RecalibrateStarTask`."""

    sources = ct.Input(
        doc="Sources under the preliminary calibration.",
        name="single_visit_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    before = ct.Input(
        doc="Summary with the calibration that the sources have.",
        name="preliminary_visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    after = ct.Input(
        doc="Summary with the final calibration.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    recalibrated = ct.Output(
        doc="Sources under the final calibration.",
        name="recalibrated_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )


class RecalibrateStarConfig(pb.PipelineTaskConfig, pipelineConnections=RecalibrateStarConnections):  # type: ignore[call-arg]
    """Nothing to choose."""


class RecalibrateStarTask(pb.PipelineTask):
    """Bring a visit's sources under the final calibration."""

    ConfigClass = RecalibrateStarConfig
    _DefaultName = "recalibrateSingleVisitStar"
    config: RecalibrateStarConfig

    def run(self, sources: Table, before: Table, after: Table) -> pb.Struct:
        """Recalibrate, see `recalibrate`; the struct's ``recalibrated`` is the new table."""
        self.metadata["n_sources"] = len(sources)
        return pb.Struct(recalibrated=recalibrate(sources, before, after))
