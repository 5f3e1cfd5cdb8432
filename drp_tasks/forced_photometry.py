"""ForcedSources: the flux of every object of a tract on one detector-visit, detected there or not.

Belongs here: PSF fluxes at given positions on a visit image and its difference.
Doesn't: fluxes on coadds (`drp_tasks.measure_objects`), or finding anything.
"""

from __future__ import annotations

from typing import Any

import lsst.images as li
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy.wcs import WCS
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray

from drp_tasks.images import unusable, wcs_of
from drp_tasks.photometry import PsfPhotometry, psf_photometry
from drp_tasks.psf import PolynomialPsf
from drp_tasks.reprocess_visit_image import detector_row


def positions_on_detector(
    ra: NDArray[np.floating], dec: NDArray[np.floating], wcs: WCS, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.floating], NDArray[np.floating]]:
    """Find which positions fall on a detector, and where.

    Parameters
    ----------
    ra, dec
        Positions in degrees, (n,).
    wcs
        WCS of the detector.
    shape
        Its rows and columns.

    Returns
    -------
    rows, x, y : `numpy.ndarray`
        Indices of the positions on the detector, and their pixel coordinates.
    """
    ny, nx = shape
    centre_ra, centre_dec = wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
    corner_ra, corner_dec = wcs.all_pix2world(-0.5, -0.5, 0)
    reach = 1.2 * np.hypot(_turn(corner_ra - centre_ra) * np.cos(np.radians(centre_dec)), corner_dec - centre_dec)
    offset = np.hypot(_turn(np.asarray(ra, float) - centre_ra) * np.cos(np.radians(centre_dec)), dec - centre_dec)
    near = np.flatnonzero(offset < reach)
    if not len(near):
        return near, np.zeros(0), np.zeros(0)
    x, y = wcs.all_world2pix(np.asarray(ra, float)[near], np.asarray(dec, float)[near], 0, quiet=True)
    inside = (x >= -0.5) & (y >= -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    return near[inside], x[inside], y[inside]


def _turn(degrees: NDArray[np.floating]) -> NDArray[np.floating]:
    """Bring an angle to -180 … 180 degrees."""
    return (np.asarray(degrees) + 180.0) % 360.0 - 180.0


class ForcedPhotometryConnections(  # type: ignore[call-arg]
    pb.PipelineTaskConnections, dimensions=("instrument", "visit", "detector", "skymap", "tract")
):
    """Data sets of `ForcedPhotometryTask`."""

    visitImage = ct.Input(
        doc="Calibrated image.",
        name="visit_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    visitPsf = ct.Input(
        doc="PSF of the calibrated image.",
        name="visit_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    difference = ct.Input(
        doc="Difference image; without it there are no difference fluxes.",
        name="difference_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
        minimum=0,
    )
    differencePsf = ct.Input(
        doc="PSF of the difference.",
        name="difference_psf",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        minimum=0,
    )
    visitSummary = ct.Input(
        doc="When and in which band the visit was.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    objects = ct.Input(
        doc="Objects of the tract.",
        name="object",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract"),
        deferLoad=True,
    )
    forcedSources = ct.Output(
        doc="One row a primary object on the detector.",
        name="object_forced_source_detector",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector", "skymap", "tract"),
    )


class ForcedPhotometryConfig(pb.PipelineTaskConfig, pipelineConnections=ForcedPhotometryConnections):  # type: ignore[call-arg]
    """What flags a flux."""

    minUsable = pc.Field[float](
        doc="A flux with less of the PSF's weight on usable pixels of the direct image is flagged.", default=0.8
    )


class ForcedPhotometryTask(pb.PipelineTask):
    """Measure all primary objects of a tract on one detector-visit."""

    ConfigClass = ForcedPhotometryConfig
    _DefaultName = "forcedPhotObject"
    config: ForcedPhotometryConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the needed columns of the objects, and measure one detector-visit."""
        inputs = butlerQC.get(inputRefs)
        columns = ["objectId", "ra", "dec", "detect_isPrimary"]
        inputs["objects"] = inputs["objects"].get(parameters={"columns": columns})
        data_id = butlerQC.quantum.dataId
        butlerQC.put(self.run(**inputs, visit=data_id["visit"], detector=data_id["detector"]), outputRefs)

    def run(
        self,
        visitImage: li.MaskedImage,
        visitPsf: Table,
        visitSummary: Table,
        objects: Table,
        *,
        visit: int,
        detector: int,
        difference: li.MaskedImage | None = None,
        differencePsf: Table | None = None,
    ) -> pb.Struct:
        """Measure.

        Parameters
        ----------
        visitImage, visitPsf
            The direct image (nJy) and its PSF as a table.
        visitSummary
            The visit's summary; band and time are read from it.
        objects
            Objects of the tract: objectId, ra, dec [deg], detect_isPrimary.
        visit, detector
            Ids, for the table.
        difference, differencePsf
            The difference (nJy) and its PSF, if there is one.

        Returns
        -------
        struct
            ``forcedSources``; fluxes are NaN, and flagged, where too few pixels are usable.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no object lies on the detector.
        """
        objects = objects[np.asarray(objects["detect_isPrimary"], bool)]
        rows, x, y = positions_on_detector(
            np.asarray(objects["ra"], float),
            np.asarray(objects["dec"], float),
            wcs_of(visitImage),
            visitImage.image.array.shape,
        )
        if not len(rows):
            raise pb.NoWorkFound("no object of the tract lies on the detector")
        direct = _fluxes(visitImage, visitPsf, x, y)
        if difference is not None and differencePsf is not None:
            changed = _fluxes(difference, differencePsf, x, y)
            difference_flux, difference_error = changed.flux, changed.flux_err
        else:
            difference_flux = difference_error = np.full(len(rows), np.nan)
        flag = ~np.isfinite(direct.flux) | (direct.usable < self.config.minUsable)
        this = detector_row(visitSummary, detector)
        self.metadata["n_forced_sources"] = len(rows)
        self.metadata["n_flagged"] = int(flag.sum())
        return pb.Struct(
            forcedSources=Table(
                {
                    "objectId": np.asarray(objects["objectId"], np.int64)[rows],
                    "visit": np.full(len(rows), visit, np.int64),
                    "detector": np.full(len(rows), detector, np.int32),
                    "band": np.full(len(rows), str(this["band"])),
                    "mjdMid": np.full(len(rows), float(this["mjdMid"])) * u.day,
                    "x": x * u.pix,
                    "y": y * u.pix,
                    "psfFlux": direct.flux * u.nJy,
                    "psfFluxErr": direct.flux_err * u.nJy,
                    "psfDiffFlux": difference_flux * u.nJy,
                    "psfDiffFluxErr": difference_error * u.nJy,
                    "flag": flag,
                }
            )
        )


def _fluxes(image: li.MaskedImage, psf: Table, x: NDArray[np.floating], y: NDArray[np.floating]) -> PsfPhotometry:
    return psf_photometry(
        image.image.array,
        image.variance.array,
        unusable(image),
        PolynomialPsf.from_table(psf),
        x,
        y,
        recenter=False,
    )
