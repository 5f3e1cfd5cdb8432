"""The PSF of a coadd, fitted to the stars that the isolated-star catalogue names: on the coadd and on its inputs.

Belongs here: choosing among those stars the ones that this coadd shows well. Doesn't: the models and their fits
(`drp_tasks.psf`, `drp_tasks.input_psfs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
import sep
from astropy.table import Table, vstack
from lsst.images import MaskedImage
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray

from drp_tasks.assemble_coadd import COADD_DIMENSIONS, COADD_UNUSABLE
from drp_tasks.images import start_xy, unusable, wcs_of
from drp_tasks.input_psfs import fit_input_psf, inputs_to_table
from drp_tasks.make_warp import WARP_DIMENSIONS, ImageHandle
from drp_tasks.photometry import aperture_photometry
from drp_tasks.psf import TooFewStarsError, fit_psf

_APERTURE_PX = 9.0
_HALF_LIGHT_PER_SIGMA = 1.1774


class CoaddPsfError(pb.AlgorithmError):
    """A coadd shows too few stars for a PSF."""

    def __init__(self, n_candidates: int, n_stars: int) -> None:
        super().__init__(f"{n_stars} of {n_candidates} isolated stars on the coadd are good enough, too few for a PSF")
        self._facts = {"n_candidates": n_candidates, "n_stars": n_stars}

    @property
    def metadata(self) -> dict[str, int]:
        """Numbers for the task's metadata."""
        return self._facts


def on_stellar_locus(
    half_light_radius: NDArray[np.floating], bright: NDArray[np.bool_], tolerance: float
) -> NDArray[np.bool_]:
    """Choose what is as wide as most stars are (n,): within a fraction of the median of the bright ones."""
    measured = bright & np.isfinite(half_light_radius)
    if not measured.any():
        return measured
    typical = np.median(half_light_radius[measured])
    return measured & (np.abs(half_light_radius - typical) < tolerance * typical)


def windowed_positions(
    image: NDArray[np.float32],
    bad: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    half_light_radius: float,
    start_xy: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the coadd itself has its stars: absolute positions (n,) from Gaussian-windowed centroids."""
    sigma = np.full(len(x), half_light_radius / _HALF_LIGHT_PER_SIGMA)
    column, row, _ = sep.winpos(np.ascontiguousarray(image), x - start_xy[0], y - start_xy[1], sigma, mask=bad)
    return column + start_xy[0], row + start_xy[1]


class FitCoaddPsfConnections(pb.PipelineTaskConnections, dimensions=COADD_DIMENSIONS):  # type: ignore[call-arg]
    """Inputs and outputs of `FitCoaddPsfTask`."""

    coadd = ct.Input(
        name="deep_coadd", doc="The coadd [nJy].", storageClass="MaskedImageV2", dimensions=COADD_DIMENSIONS
    )
    stars = ct.Input(
        name="isolated_star_association",
        doc="Isolated stars of the tract.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "skymap", "tract"),
        multiple=True,
    )
    directWarps = ct.Input(
        name="direct_warp",
        doc="The visits that went into the coadd.",
        storageClass="MaskedImageV2",
        dimensions=WARP_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    inputSummary = ct.Input(
        name="deep_coadd_input_summary",
        doc="The visits' weights.",
        storageClass="ArrowAstropy",
        dimensions=COADD_DIMENSIONS,
    )
    inputPsfs = ct.Output(
        name="deep_coadd_input_psf",
        doc="PSFs, weights and coverage of the coadd's visits: what the PSF is where not all of them see the sky.",
        storageClass="ArrowAstropy",
        dimensions=COADD_DIMENSIONS,
    )
    psf = ct.Output(
        name="deep_coadd_psf",
        doc="PSF of the coadd as a whole, a polynomial in tract pixels.",
        storageClass="ArrowAstropy",
        dimensions=COADD_DIMENSIONS,
    )


class FitCoaddPsfConfig(pb.PipelineTaskConfig, pipelineConnections=FitCoaddPsfConnections):  # type: ignore[call-arg]
    """Configuration of `FitCoaddPsfTask`."""

    minSignalToNoise = pc.Field[float](doc="Least S/N of a star in an aperture.", default=60.0)
    sizeTolerance = pc.Field[float](doc="Largest deviation from the stars' usual half-light radius.", default=0.1)
    half = pc.Field[int](doc="Reach of the PSF's image from its middle [pix].", default=12)
    maxOrder = pc.Field[int](doc="Highest order of the polynomial.", default=2)


class FitCoaddPsfTask(pb.PipelineTask):
    """Fit a coadd's PSF to the isolated stars on it."""

    ConfigClass = FitCoaddPsfConfig
    config: FitCoaddPsfConfig
    _DefaultName = "fitCoaddPsf"

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the coadd and the tract's stars, and write the PSF; too few stars is annotated as a partial result."""
        coadd, stars = butlerQC.get(inputRefs.coadd), butlerQC.get(inputRefs.stars)
        summary = butlerQC.get(inputRefs.inputSummary)
        warps = {handle.dataId["visit"]: handle for handle in butlerQC.get(inputRefs.directWarps)}
        try:
            outputs = self.run(coadd, stars, warps, summary)
        except pb.AlgorithmError as error:
            raise pb.AnnotatedPartialOutputsError.annotate(error, self, log=self.log) from error
        butlerQC.put(outputs, outputRefs)

    def run(
        self, coadd: MaskedImage, stars: list[Table], warps: Mapping[int, ImageHandle[MaskedImage]], summary: Table
    ) -> pb.Struct:
        """Fit the PSF.

        Parameters
        ----------
        coadd
            The coadd.
        stars
            Tables of isolated stars, with ra and dec in degrees.
        warps
            Handles of the direct warps by visit.
        summary
            The coadd's inputs: visit and weight.

        Raises
        ------
        CoaddPsfError
            If too few stars are bright, whole and as wide as stars are.
        """
        table = vstack(stars, metadata_conflicts="silent")
        x, y = wcs_of(coadd).all_world2pix(np.asarray(table["ra"], float), np.asarray(table["dec"], float), 0)
        origin = start_xy(coadd)
        image, variance, bad = coadd.image.array, coadd.variance.array, unusable(coadd, COADD_UNUSABLE)
        inside = (np.rint(x - origin[0]) >= 0) & (np.rint(x - origin[0]) < image.shape[1])
        inside &= (np.rint(y - origin[1]) >= 0) & (np.rint(y - origin[1]) < image.shape[0])
        x, y = x[inside], y[inside]
        aperture = aperture_photometry(image, variance, bad, x, y, _APERTURE_PX, start_xy=origin)
        bright = aperture.flux > self.config.minSignalToNoise * aperture.flux_err
        chosen = on_stellar_locus(aperture.half_light_radius, bright, self.config.sizeTolerance)
        n_candidates, radius = len(x), aperture.half_light_radius[chosen]
        x, y = windowed_positions(
            image, bad, x[chosen], y[chosen], float(np.median(radius)) if len(radius) else 1.0, origin
        )
        try:
            psf, used = fit_psf(
                image, variance, bad, x, y, start_xy=origin, half=self.config.half, max_order=self.config.maxOrder
            )
        except TooFewStarsError as error:
            raise CoaddPsfError(n_candidates, error.n_stars) from error
        self.metadata["n_candidates"] = n_candidates
        self.metadata["n_stars"] = int(used.sum())
        self.metadata["order"] = psf.order
        inputs = [
            fit_input_psf(
                warps[int(row["visit"])].get(),
                float(row["weight"]),
                x[used],
                y[used],
                half=self.config.half,
                max_order=self.config.maxOrder,
                otherwise=psf,
            )
            for row in summary
        ]
        self.metadata["n_visits"] = len(inputs)
        return pb.Struct(psf=psf.to_table(), inputPsfs=inputs_to_table(inputs))
