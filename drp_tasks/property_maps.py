"""Maps of what a release has of each piece of sky: number of visits and depth, on sparse HEALPix pixels.

Belongs here: averaging coadds' properties over HEALPix pixels. Doesn't: storing maps
(`drp_tasks.healsparse_formatter`), the coadds themselves (`drp_tasks.assemble_coadd`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import healsparse
import hpgeom
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.wcs import WCS
from lsst.images import Image, MaskedImage
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray

from drp_tasks.assemble_coadd import COADD_DIMENSIONS, COADD_UNUSABLE
from drp_tasks.images import AB_NANOJANSKY, unusable
from drp_tasks.psf import PolynomialPsf
from drp_tasks.skymap import TangentSkyMap
from drp_tasks.warping import Box

MAP_DIMENSIONS = ("skymap", "band")

DEPTH_SIGMA = 5.0


@dataclass(frozen=True, eq=False)
class Samples:
    """Values at points of the sky, arrays (n,): positions in degrees, number of visits, variance of a point's flux."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    count: NDArray[np.float64]
    flux_variance: NDArray[np.float64]


def sample_patch(
    wcs: WCS, inner: Box, count: Image, coadd: MaskedImage, psf: PolynomialPsf | None, step_px: int
) -> Samples:
    """Sample a patch on a grid of its inner pixels, so that patches don't count their overlap twice.

    Parameters
    ----------
    wcs
        WCS of the tract.
    inner
        The patch's inner box in tract pixels.
    count, coadd
        Number of visits and the coadd [nJy], on the same pixels.
    psf
        The coadd's PSF; without it the depth is unknown.
    step_px
        Distance of the grid's points.

    Returns
    -------
    samples : `Samples`
        The variance of a point source's flux [nJy²] is that of a fit of the PSF with equal weights; NaN where unknown.
    """
    outer = Box.of(coadd.bbox)
    box = inner.intersection(outer)
    x = np.arange(box.x_start + step_px // 2, box.x_stop, step_px)
    y = np.arange(box.y_start + step_px // 2, box.y_stop, step_px)
    column, row = (grid.ravel() for grid in np.meshgrid(x - outer.x_start, y - outer.y_start))
    ra, dec = wcs.all_pix2world(column + outer.x_start, row + outer.y_start, 0)
    flux_variance = np.full(len(column), np.nan)
    if psf is not None:
        middle = psf.image_at((box.x_start + box.x_stop) / 2, (box.y_start + box.y_stop) / 2)
        known = ~unusable(coadd, COADD_UNUSABLE)[row, column]
        flux_variance[known] = coadd.variance.array[row, column][known] / np.sum(middle**2)
    return Samples(ra, dec, count.array[row, column].astype(np.float64), flux_variance)


def mean_map(
    pixel: NDArray[np.int64], value: NDArray[np.float64], nside_coverage: int, nside: int
) -> healsparse.HealSparseMap:
    """Average the finite values (n,) of each HEALPix pixel (n,) into a map; pixels without one stay unknown."""
    result = healsparse.HealSparseMap.make_empty(nside_coverage, nside, np.float32)
    known = np.isfinite(value)
    if known.any():
        pixels, index = np.unique(pixel[known], return_inverse=True)
        mean = np.bincount(index, value[known]) / np.bincount(index)
        result.update_values_pix(pixels, mean.astype(np.float32))
    return result


class MakePropertyMapsConnections(pb.PipelineTaskConnections, dimensions=MAP_DIMENSIONS):  # type: ignore[call-arg]
    """Inputs and outputs of `MakePropertyMapsTask`."""

    coadds = ct.Input(
        name="deep_coadd",
        doc="Coadds of all patches [nJy].",
        storageClass="MaskedImageV2",
        dimensions=COADD_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    nImages = ct.Input(
        name="deep_coadd_n_image",
        doc="Number of visits of each of their pixels.",
        storageClass="ImageV2",
        dimensions=COADD_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    psfs = ct.Input(
        name="deep_coadd_psf",
        doc="Their PSFs.",
        storageClass="ArrowAstropy",
        dimensions=COADD_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    skymap = ct.Input(
        name="skyMap", doc="Geometry of tracts and patches.", storageClass="StructuredDataDict", dimensions=("skymap",)
    )
    exposureCount = ct.Output(
        name="deep_coadd_exposure_count_map",
        doc="Mean number of visits.",
        storageClass="HealSparseMap",
        dimensions=MAP_DIMENSIONS,
    )
    depth = ct.Output(
        name="deep_coadd_depth_map",
        doc="AB magnitude of a point source at 5 sigma.",
        storageClass="HealSparseMap",
        dimensions=MAP_DIMENSIONS,
    )


class MakePropertyMapsConfig(pb.PipelineTaskConfig, pipelineConnections=MakePropertyMapsConnections):  # type: ignore[call-arg]
    """Configuration of `MakePropertyMapsTask`."""

    nside = pc.Field[int](doc="Resolution of the maps (HEALPix, nest); 32768 is 6.4 arcsec.", default=32768)
    nsideCoverage = pc.Field[int](doc="Resolution of their coverage.", default=128)
    step = pc.Field[int](doc="Distance of the samples [pix].", default=4)


class MakePropertyMapsTask(pb.PipelineTask):
    """Map the number of visits and the depth of all coadds of a band."""

    ConfigClass = MakePropertyMapsConfig
    config: MakePropertyMapsConfig
    _DefaultName = "makePropertyMaps"

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Sample patch after patch, so that one coadd at a time is in memory, and write the maps."""
        geometry = TangentSkyMap.from_dict(dict(butlerQC.get(inputRefs.skymap)))
        coadds, counts, psfs = (
            {(handle.dataId["tract"], handle.dataId["patch"]): handle for handle in butlerQC.get(refs)}
            for refs in (inputRefs.coadds, inputRefs.nImages, inputRefs.psfs)
        )
        samples = (
            sample_patch(
                geometry.wcs(tract),
                Box.of(geometry.inner_box(patch)),
                counts[tract, patch].get(),
                coadds[tract, patch].get(),
                PolynomialPsf.from_table(psfs[tract, patch].get()) if (tract, patch) in psfs else None,
                self.config.step,
            )
            for tract, patch in sorted(coadds.keys() & counts.keys())
        )
        butlerQC.put(self.run(samples), outputRefs)

    def run(self, samples: Iterable[Samples]) -> pb.Struct:
        """Average samples into maps.

        Parameters
        ----------
        samples
            Those of all patches.

        Returns
        -------
        struct
            ``exposureCount`` and ``depth``, `healsparse.HealSparseMap`.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no visit covers any of it.
        """
        parts = list(samples)
        columns: Mapping[str, NDArray[np.float64]] = {
            name: np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0)
            for name in ("ra", "dec", "count", "flux_variance")
        }
        covered = columns["count"] > 0
        if not covered.any():
            raise pb.NoWorkFound("no coadd has a pixel with a visit")
        pixel = hpgeom.angle_to_pixel(self.config.nside, columns["ra"][covered], columns["dec"][covered])
        sizes = (self.config.nsideCoverage, self.config.nside)
        variance = mean_map(pixel, columns["flux_variance"][covered], *sizes)
        depth = healsparse.HealSparseMap.make_empty_like(variance)
        pixels = variance.valid_pixels
        faintest = DEPTH_SIGMA * np.sqrt(variance.get_values_pix(pixels))
        depth.update_values_pix(pixels, (AB_NANOJANSKY - 2.5 * np.log10(faintest)).astype(np.float32))
        self.metadata["n_patches"] = len(parts)
        self.metadata["n_pixels"] = len(np.unique(pixel))
        return pb.Struct(exposureCount=mean_map(pixel, columns["count"][covered], *sizes), depth=depth)
