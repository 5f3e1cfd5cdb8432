"""The visit summary with the results of the global calibration in it.

Belongs here: choosing among solutions, and putting zero points and WCSs into a visit's summary.
Doesn't: the fits (`drp_tasks.global_photometry`, `drp_tasks.global_astrometry`), or sources and pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Row, Table
from lsst.pipe.base import connectionTypes as ct

from drp_tasks.images import wcs_from_text


def update_summary(summary: Table, photometry: Table, astrometry: Sequence[Table]) -> Table:
    """Replace preliminary zero points and WCSs of a visit's summary by those of the global fits.

    Parameters
    ----------
    summary
        Preliminary summary of a visit, a row a detector.
    photometry
        Zero points of the survey: visit, detector, zeroPoint, zeroPointErr, nStars.
    astrometry
        WCSs, a table a tract: visit, detector, wcs, nStars, residualMas. Where several tracts solve for a detector, the
        one with the most stars is taken.

    Returns
    -------
    summary
        A copy in which zeroPoint, zeroPointErr, nPhotometryStars, and meanVariance [nJy²] of pixels at the new zero
        point, wcs, astrometryResidual, nAstrometryStars, and the detector's centre and corners are new. Column
        ``recalibrated`` tells where both fits had a solution; a row that lacks one keeps what it had.
    """
    out = summary.copy()
    zero_points = {_key(row): row for row in photometry}
    solutions: dict[tuple[int, int], Row] = {}
    for tract in astrometry:
        for row in tract:
            if _key(row) not in solutions or row["nStars"] > solutions[_key(row)]["nStars"]:
                solutions[_key(row)] = row
    texts = [str(text) for text in summary["wcs"]]
    for k, row in enumerate(out):
        if (photometric := zero_points.get(_key(row))) is not None:
            gain = 10 ** (-0.4 * (float(photometric["zeroPoint"]) - float(row["zeroPoint"])))
            out["meanVariance"][k] *= gain**2
            out["zeroPoint"][k] = photometric["zeroPoint"]
            out["zeroPointErr"][k] = photometric["zeroPointErr"]
            out["nPhotometryStars"][k] = photometric["nStars"]
        if (astrometric := solutions.get(_key(row))) is not None:
            _move(out, k, texts[k], str(astrometric["wcs"]))
            texts[k] = str(astrometric["wcs"])
            out["astrometryResidual"][k] = astrometric["residualMas"]
            out["nAstrometryStars"][k] = astrometric["nStars"]
    out["wcs"] = np.array(texts, str)
    out["recalibrated"] = [_key(row) in zero_points and _key(row) in solutions for row in out]
    return out


def _key(row: Row) -> tuple[int, int]:
    return int(row["visit"]), int(row["detector"])


def _move(summary: Table, k: int, old_text: str, new_text: str) -> None:
    """Move a detector's centre and corners from where the old WCS had them to where the new one has them."""
    old, new = wcs_from_text(old_text), wcs_from_text(new_text)
    for suffix in ("", "Corner0", "Corner1", "Corner2", "Corner3"):
        x, y = old.all_world2pix(summary[f"ra{suffix}"][k], summary[f"dec{suffix}"][k], 0)
        ra, dec = new.all_pix2world(x, y, 0)
        summary[f"ra{suffix}"][k], summary[f"dec{suffix}"][k] = float(ra), float(dec)


class UpdateVisitSummaryConnections(pb.PipelineTaskConnections, dimensions=("instrument", "visit")):  # type: ignore[call-arg]
    """Data sets of `UpdateVisitSummaryTask`."""

    summary = ct.Input(
        doc="Preliminary summary of the visit.",
        name="preliminary_visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    photometry = ct.Input(
        doc="Zero points of the whole survey.",
        name="fgcmPhotoCalibCatalog",
        storageClass="ArrowAstropy",
        dimensions=("instrument",),
    )
    astrometry = ct.Input(
        doc="WCSs of the tracts that the visit overlaps.",
        name="gbdesAstrometricFitSkyWcsCatalog",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
        multiple=True,
        deferLoad=True,
    )
    updated = ct.Output(
        doc="Summary with new zero points and WCSs; recalibrated tells which rows have both.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )


class UpdateVisitSummaryConfig(pb.PipelineTaskConfig, pipelineConnections=UpdateVisitSummaryConnections):  # type: ignore[call-arg]
    """What is demanded of a recalibrated visit."""

    minRecalibratedFraction = pc.RangeField[float](
        doc="Warn if fewer of a visit's detectors are recalibrated.", default=0.5, min=0.0, max=1.0
    )


class UpdateVisitSummaryTask(pb.PipelineTask):
    """Put the global calibration into a visit's summary."""

    ConfigClass = UpdateVisitSummaryConfig
    _DefaultName = "updateVisitSummary"
    config: UpdateVisitSummaryConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the visit's summary and the fits, and write the updated summary."""
        inputs = butlerQC.get(inputRefs)
        tracts = sorted(inputs.pop("astrometry"), key=lambda handle: handle.dataId["tract"])
        butlerQC.put(self.run(**inputs, astrometry=[handle.get() for handle in tracts]), outputRefs)

    def run(self, summary: Table, photometry: Table, astrometry: Sequence[Table]) -> pb.Struct:
        """Update, see `update_summary`; the struct's ``updated`` is the new summary."""
        updated = update_summary(summary, photometry, astrometry)
        recalibrated = np.asarray(updated["recalibrated"], bool)
        if recalibrated.mean() < self.config.minRecalibratedFraction:
            self.log.warning("Only %d of %d detectors have a global solution.", recalibrated.sum(), len(updated))
        change_mmag = 1000 * np.abs(np.asarray(updated["zeroPoint"]) - np.asarray(summary["zeroPoint"]))
        self.metadata["n_detectors"] = len(updated)
        self.metadata["n_recalibrated"] = int(recalibrated.sum())
        self.metadata["largest_zero_point_change_mmag"] = float(np.nanmax(change_mmag))
        return pb.Struct(updated=updated)
