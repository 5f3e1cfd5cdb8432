"""The final image of one detector-visit, with the survey's calibration, and the sources on it.

Belongs here: bringing the preliminary image onto the final flux scale and WCS, and measuring its sources once more.
Doesn't: background, cosmic rays and PSF, which are the preliminary image's (`drp_tasks.calibrate_image`).
"""

from __future__ import annotations

from typing import Any

import lsst.images as li
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy import units as u
from astropy.table import Row, Table
from astropy.wcs import WCS
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from drp_tasks.detection import detect, signal_to_noise
from drp_tasks.identifiers import source_ids
from drp_tasks.images import MASK_PLANES, masked_image, plane, unusable, wcs_from_text
from drp_tasks.psf import PolynomialPsf
from drp_tasks.source_measurement import APERTURE_PX, extendedness, measure_sources

SAME_SOURCE_PX = 1.5
"""A source this near to a preliminary PSF star is that star."""


def detector_row(summary: Table, detector: int) -> Row:
    """Return a detector's row of a visit's summary.

    Raises
    ------
    lsst.pipe.base.UpstreamFailureNoWorkFound
        If the summary has no such detector, or it has no zero point or no WCS.
    """
    rows = np.flatnonzero(np.asarray(summary["detector"]) == detector)
    if not len(rows):
        raise pb.UpstreamFailureNoWorkFound(f"the visit's summary has no detector {detector}")
    row = summary[rows[0]]
    if not np.isfinite(float(row["zeroPoint"])) or not str(row["wcs"]).strip():
        raise pb.UpstreamFailureNoWorkFound(f"detector {detector} has no calibration in the visit's summary")
    return row


def recalibrate(image: li.MaskedImage, flux_scale: float, wcs: WCS, zero_point: float) -> li.MaskedImage:
    """Scale an image's fluxes and give it another WCS.

    Parameters
    ----------
    image
        Image in nJy by the preliminary zero point.
    flux_scale
        Final over preliminary nJy.
    wcs
        The final WCS.
    zero_point
        The final zero point (AB magnitude of one electron), kept in the image's metadata.
    """
    scale = np.float32(flux_scale)
    return masked_image(
        image.image.array * scale,
        image.variance.array * scale**2,
        {name: plane(image, name) for name in MASK_PLANES.names},
        unit=u.nJy,
        wcs=wcs,
        metadata={**image.metadata, "zeroPoint": zero_point},
    )


class ReprocessVisitImageConnections(  # type: ignore[call-arg]
    pb.PipelineTaskConnections, dimensions=("instrument", "visit", "detector")
):
    """Data sets of `ReprocessVisitImageTask`."""

    image = ct.Input(
        doc="Image with the single visit's own calibration.",
        name="preliminary_visit_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    psf = ct.Input(
        doc="PSF of the image.",
        name="preliminary_visit_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    preliminarySummary = ct.Input(
        doc="The zero point by which the image was scaled.",
        name="preliminary_visit_summary_detector",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    stars = ct.Input(
        doc="Sources of the single visit, of which those the PSF was fitted to say what a point looks like.",
        name="single_visit_star_detector",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    visitSummary = ct.Input(
        doc="Final zero points and WCSs.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    visitImage = ct.Output(
        doc="Image with the final zero point and WCS.",
        name="visit_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    visitPsf = ct.Output(
        doc="PSF of the image.",
        name="visit_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    sources = ct.Output(
        doc="Sources of the image.",
        name="source_detector",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )


class ReprocessVisitImageConfig(  # type: ignore[call-arg]
    pb.PipelineTaskConfig, pipelineConnections=ReprocessVisitImageConnections
):
    """Detection and apertures."""

    threshold = pc.Field[float](doc="Least S/N of a footprint's pixels on the PSF-filtered map.", default=5.0)
    minArea = pc.Field[int](doc="Least number of pixels of a footprint.", default=3)
    apertureRadius = pc.Field[float](doc="Radius of the aperture of apFlux [pixels].", default=APERTURE_PX)


class ReprocessVisitImageTask(pb.PipelineTask):
    """Apply the final calibration to a visit's detector, and measure its sources."""

    ConfigClass = ReprocessVisitImageConfig
    _DefaultName = "reprocessVisitImage"
    config: ReprocessVisitImageConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Reprocess one detector-visit."""
        inputs = butlerQC.get(inputRefs)
        data_id = butlerQC.quantum.dataId
        butlerQC.put(self.run(**inputs, visit=data_id["visit"], detector=data_id["detector"]), outputRefs)

    def run(
        self,
        image: li.MaskedImage,
        psf: Table,
        preliminarySummary: Table,
        stars: Table,
        visitSummary: Table,
        *,
        visit: int,
        detector: int,
    ) -> pb.Struct:
        """Recalibrate and measure.

        Parameters
        ----------
        image, psf
            The preliminary image and its PSF as a table.
        preliminarySummary, visitSummary
            Summaries before and after recalibration.
        stars
            The single visit's sources: x, y [pix], calibPsfUsed.
        visit, detector
            Ids.

        Returns
        -------
        struct
            ``visitImage`` (nJy), ``visitPsf`` and ``sources`` (tables).

        Raises
        ------
        lsst.pipe.base.UpstreamFailureNoWorkFound
            If the detector has no final calibration.
        """
        final, preliminary = detector_row(visitSummary, detector), detector_row(preliminarySummary, detector)
        wcs = wcs_from_text(str(final["wcs"]))
        zero_point = float(final["zeroPoint"])
        shift = zero_point - float(preliminary["zeroPoint"])
        visit_image = recalibrate(image, 10 ** (-0.4 * shift), wcs, zero_point)
        point_stars = np.asarray(stars["calibPsfUsed"], bool)
        sources = self._measure(
            visit_image,
            PolynomialPsf.from_table(psf),
            np.column_stack([np.asarray(stars[axis], float)[point_stars] for axis in ("x", "y")]),
        )
        n = len(sources)
        ra, dec = wcs.all_pix2world(np.asarray(sources["x"]), np.asarray(sources["y"]), 0)
        sources.add_columns(
            [
                source_ids(visit, detector, n),
                np.full(n, visit, np.int64),
                np.full(n, detector, np.int32),
                np.full(n, str(final["band"])),
                ra * u.deg,
                dec * u.deg,
            ],
            indexes=[0] * 6,
            names=["sourceId", "visit", "detector", "band", "ra", "dec"],
        )
        self.metadata["n_sources"] = n
        self.metadata["zero_point_shift_mmag"] = 1e3 * shift
        return pb.Struct(visitImage=visit_image, visitPsf=psf, sources=sources)

    def _measure(self, image: li.MaskedImage, psf: PolynomialPsf, stars_xy: NDArray[np.floating]) -> Table:
        """Detect and measure; the rows aren't numbered yet."""
        array, variance, bad = image.image.array, image.variance.array, unusable(image)
        ny, nx = array.shape
        sn = signal_to_noise(array, variance, bad, psf.image_at((nx - 1) / 2, (ny - 1) / 2))
        found = detect(sn, bad, self.config.threshold, self.config.minArea)
        sources = measure_sources(
            array, variance, bad, psf, found.x, found.y, unit=u.nJy, aperture_px=self.config.apertureRadius
        )
        known = np.zeros(len(sources), bool)
        if len(stars_xy) and len(sources):
            distance, nearest = cKDTree(np.column_stack([sources["x"], sources["y"]])).query(stars_xy)
            known[nearest[distance < SAME_SOURCE_PX]] = True
        sources["extendedness"] = extendedness(np.asarray(sources["psfFlux"]), np.asarray(sources["apFlux"]), known)
        return sources
