"""Coadds: many warps of a patch in one band made into one image, without what only one visit saw.

Belongs here: finding artifacts on PSF-matched warps, the weighted mean of the direct ones, the choice of visits.
Doesn't: warping (`drp_tasks.make_warp`), its PSF (`drp_tasks.coadd_psf`), detection (`drp_tasks.detect_objects`).

Artifacts are looked for on PSF-matched warps, because among direct warps a visit of good seeing stands out at every
star's core: clipping those costs tens of millimagnitudes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import astropy.units as u
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Table
from lsst.images import MaskedImage
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, maximum_filter

from drp_tasks.cleaning import fit_background
from drp_tasks.images import masked_image, plane, single_plane, start_xy, unusable, wcs_of
from drp_tasks.make_warp import WARP_DIMENSIONS, ImageHandle
from drp_tasks.warping import fill_bad

COADD_DIMENSIONS = ("skymap", "tract", "patch", "band")

COADD_UNUSABLE = ("NO_DATA", "SAT")
"""Planes of a coadd whose pixels no measurement may use; where an input was clipped the others remain."""

_LOCAL_MAXIMUM_PX = 5
_SMOOTHING_PX = 2.0
_HALO_PX = 4


@dataclass(frozen=True, eq=False)
class WarpStack:
    """Warps of one patch on top of each other.

    Parameters
    ----------
    array, variance
        Pixels and their variance, float32 (n, ny, nx).
    usable
        Where a warp's pixel may be used (n, ny, nx).
    """

    array: NDArray[np.float32]
    variance: NDArray[np.float32]
    usable: NDArray[np.bool_]

    @classmethod
    def of(cls, warps: list[MaskedImage]) -> Self:
        """Stack images of equal size."""
        return cls(
            np.stack([warp.image.array for warp in warps]),
            np.stack([warp.variance.array for warp in warps]),
            ~np.stack([unusable(warp) for warp in warps]),
        )


@dataclass(frozen=True)
class ArtifactCriteria:
    """What makes a pixel of one visit an artifact.

    Parameters
    ----------
    n_sigma
        Least difference from the visits' median, in standard deviations.
    fraction
        Least difference as a part of the brightest median nearby: what the matching of PSFs leaves at stars.
    max_epochs
        If more than this part of the visits (and more than one) differ at a pixel, the sky varies: nothing is clipped.
    grow_px
        By how much artifacts are grown.
    """

    n_sigma: float = 6.0
    fraction: float = 0.2
    max_epochs: float = 0.34
    grow_px: int = 3


def lower_median(stack: WarpStack) -> NDArray[np.float32]:
    """Return the median of the usable pixels (ny, nx), the lower of two middle ones; zero where there is none.

    The lower one, so that of two visits the one with an artifact is not believed: artifacts add light.
    """
    count = stack.usable.sum(axis=0)
    ordered = np.where(stack.usable, stack.array, np.float32(np.inf))
    ordered.sort(axis=0)
    middle = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[None], axis=0)[0]
    return np.where(count > 0, middle, np.float32(0))


def find_artifacts(matched: WarpStack, criteria: ArtifactCriteria) -> NDArray[np.bool_]:
    """Find what one visit has and the others have not.

    Parameters
    ----------
    matched
        PSF-matched warps.
    criteria
        What makes an artifact.

    Returns
    -------
    artifact : `numpy.ndarray`
        True at artifacts, grown (n, ny, nx). Where fewer than two visits are usable there is nothing to compare.
    """
    count = matched.usable.sum(axis=0)
    median = lower_median(matched)
    tolerance = np.float32(criteria.fraction) * maximum_filter(np.abs(median), _LOCAL_MAXIMUM_PX)
    inverse = np.zeros(median.shape, np.float32)
    for variance, usable in zip(matched.variance, matched.usable, strict=True):
        inverse += np.where(usable & (variance > 0), 1 / np.where(variance > 0, variance, 1), 0)
    median_variance = np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1), 0)
    comparable = count >= 2
    artifact = np.zeros(matched.array.shape, bool)
    deviating = np.zeros(median.shape, np.int16)
    for found, array, variance, usable in zip(artifact, matched.array, matched.variance, matched.usable, strict=True):
        limit = np.float32(criteria.n_sigma) * np.sqrt(variance + median_variance) + tolerance
        deviation = np.where(usable & comparable, np.abs(array - median), 0)
        found[:] = deviation > limit
        # Counted at half the limit, lest at the fringe of something real the visits seem to disagree.
        deviating += deviation > limit / 2
    artifact &= deviating <= np.maximum(1, criteria.max_epochs * count)
    for found in artifact:
        if criteria.grow_px and found.any():
            found[:] = binary_dilation(found, iterations=criteria.grow_px)
    return artifact


@dataclass(frozen=True, eq=False)
class Mean:
    """A weighted mean of warps: pixels, variance and number of visits, each (ny, nx)."""

    array: NDArray[np.float32]
    variance: NDArray[np.float32]
    count: NDArray[np.int16]


def noise_weights(stack: WarpStack) -> NDArray[np.float64]:
    """Return one weight a warp (n,), the inverse of its median variance, so that the PSF is the same over the patch."""
    return np.array(
        [
            1 / float(np.median(variance[usable])) if usable.any() else 0.0
            for variance, usable in zip(stack.variance, stack.usable, strict=True)
        ]
    )


def weighted_mean(stack: WarpStack, weights: NDArray[np.float64]) -> Mean:
    """Average the usable pixels of warps with one weight (n,) a warp; zero where there is none."""
    total, square, norm = (np.zeros(stack.array.shape[1:], np.float32) for _ in range(3))
    scaled = (weights / max(float(weights.max(initial=0)), 1e-30)).astype(np.float32)
    for array, variance, usable, weight in zip(stack.array, stack.variance, stack.usable, scaled, strict=True):
        here = usable * weight
        norm += here
        total += here * array
        square += here**2 * variance
    safe = np.where(norm > 0, norm, np.float32(1))
    return Mean(np.divide(total, safe), np.divide(square, safe**2), stack.usable.sum(axis=0, dtype=np.int16))


def best_seeing(fwhm: NDArray[np.float64], fraction: float, at_least: int) -> NDArray[np.bool_]:
    """Choose the best part of the visits by seeing (n,), but no fewer than asked for, if there are so many."""
    wanted = min(len(fwhm), max(int(np.ceil(fraction * len(fwhm))), at_least))
    chosen = np.zeros(len(fwhm), bool)
    chosen[np.argsort(fwhm, kind="stable")[:wanted]] = True
    return chosen


def lit(
    array: NDArray[np.float32], variance: NDArray[np.float32], bad: NDArray[np.bool_], n_sigma: float
) -> NDArray[np.bool_]:
    """Find where objects shine (ny, nx): smoothed pixels above their noise, and around; no background is there."""
    noise = np.sqrt(np.where(bad, 1, variance))
    smooth = gaussian_filter(np.where(bad, 0, array / noise).astype(np.float32), _SMOOTHING_PX)
    # White noise keeps 1 / sqrt(4 pi sigma²) of its scatter.
    return binary_dilation(smooth * np.sqrt(4 * np.pi) * _SMOOTHING_PX > n_sigma, iterations=_HALO_PX)


class AssembleCoaddConnections(
    pb.PipelineTaskConnections,  # type: ignore[call-arg]
    dimensions=COADD_DIMENSIONS,
    defaultTemplates={"coaddName": "deep"},
):
    """Inputs and outputs of `AssembleCoaddTask`; the template ``coaddName`` is ``deep`` or ``template``."""

    directWarps = ct.Input(
        name="direct_warp",
        doc="The visits on the patch's pixels.",
        storageClass="MaskedImageV2",
        dimensions=WARP_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    psfMatchedWarps = ct.Input(
        name="psf_matched_warp",
        doc="The same in a common seeing.",
        storageClass="MaskedImageV2",
        dimensions=WARP_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    coadd = ct.Output(
        name="{coaddName}_coadd",
        doc="Weighted mean of the direct warps without artifacts [nJy].",
        storageClass="MaskedImageV2",
        dimensions=COADD_DIMENSIONS,
    )
    nImage = ct.Output(
        name="{coaddName}_coadd_n_image",
        doc="How many visits contribute to each pixel.",
        storageClass="ImageV2",
        dimensions=COADD_DIMENSIONS,
    )
    inputSummary = ct.Output(
        name="{coaddName}_coadd_input_summary",
        doc="The visits that went in: weight, seeing, noise, coverage and what was clipped.",
        storageClass="ArrowAstropy",
        dimensions=COADD_DIMENSIONS,
    )


class AssembleCoaddConfig(pb.PipelineTaskConfig, pipelineConnections=AssembleCoaddConnections):  # type: ignore[call-arg]
    """Configuration of `AssembleCoaddTask`."""

    clipSigma = pc.Field[float](doc="Least deviation of an artifact in standard deviations.", default=6.0)
    clipFraction = pc.Field[float](doc="Least deviation as a part of the brightest median nearby.", default=0.2)
    clipMaxEpochs = pc.Field[float](
        doc="If more than this part of the visits deviate at a pixel, none is clipped.", default=0.34
    )
    clipGrow = pc.Field[int](doc="Growth of artifacts [pix].", default=3)
    bestSeeingFraction = pc.Field[float](doc="Part of the visits, the best by seeing, that is averaged.", default=1.0)
    minInputs = pc.Field[int](doc="Fewest visits that are averaged, where there are so many.", default=1)
    minCoverage = pc.Field[int](doc="Pixels that fewer visits cover have no data.", default=1)
    backgroundMesh = pc.Field[int](doc="Size of the residual background's meshes [pix]; 0 for none.", default=128)

    backgroundMaskSigma = pc.Field[float](
        doc="What is brighter than this many standard deviations is no background.", default=3.0
    )

    @property
    def criteria(self) -> ArtifactCriteria:
        """What makes an artifact."""
        return ArtifactCriteria(self.clipSigma, self.clipFraction, self.clipMaxEpochs, self.clipGrow)


class AssembleCoaddTask(pb.PipelineTask):
    """Average the direct warps of a patch and band, leaving out what the PSF-matched warps show to be artifacts."""

    ConfigClass = AssembleCoaddConfig
    config: AssembleCoaddConfig
    _DefaultName = "assembleCoadd"

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Pair the warps of each visit, and write the coadd."""
        direct = {handle.dataId["visit"]: handle for handle in butlerQC.get(inputRefs.directWarps)}
        matched = {handle.dataId["visit"]: handle for handle in butlerQC.get(inputRefs.psfMatchedWarps)}
        butlerQC.put(self.run(direct, matched), outputRefs)

    def run(
        self, direct: Mapping[int, ImageHandle[MaskedImage]], matched: Mapping[int, ImageHandle[MaskedImage]]
    ) -> pb.Struct:
        """Make the coadd of one patch and band.

        Parameters
        ----------
        direct, matched
            Handles of the direct and the PSF-matched warps by visit; a visit without its matched warp is left out.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no visit has both.
        """
        visits = sorted(direct.keys() & matched.keys())
        if not visits:
            raise pb.NoWorkFound("no visit of the band has both warps of the patch")
        artifact = find_artifacts(WarpStack.of([matched[visit].get() for visit in visits]), self.config.criteria)
        warps = [direct[visit].get() for visit in visits]
        fwhm = np.array([float(warp.metadata["psfFwhm"]) for warp in warps])
        chosen = best_seeing(fwhm, self.config.bestSeeingFraction, self.config.minInputs)
        visits, warps = list(np.array(visits)[chosen]), [warp for warp, take in zip(warps, chosen, strict=True) if take]
        stack = WarpStack.of(warps)
        clipped = artifact[chosen] & stack.usable
        weights = noise_weights(stack)
        mean = weighted_mean(WarpStack(stack.array, stack.variance, stack.usable & ~clipped), weights)
        summary = Table(
            {
                "visit": np.array(visits, np.int64),
                "band": [str(warp.metadata["band"]) for warp in warps],
                "weight": weights / weights.sum(),
                "psfFwhm": fwhm[chosen] * u.arcsec,
                "meanVariance": np.where(weights > 0, 1 / np.where(weights > 0, weights, 1), np.nan) * u.nJy**2,
                "coverage": stack.usable.mean(axis=(1, 2)),
                "nClippedPixels": clipped.sum(axis=(1, 2)),
            }
        )
        coadd = self._finish(mean, warps, clipped.any(axis=0))
        self.metadata["n_visits"] = len(visits)
        self.metadata["n_clipped_pixels"] = int(clipped.sum())
        self.metadata["median_depth"] = float(np.median(mean.count))
        return pb.Struct(
            coadd=coadd,
            nImage=single_plane(mean.count, unit=None, wcs=wcs_of(coadd), start_xy=start_xy(coadd)),
            inputSummary=summary,
        )

    def _finish(self, mean: Mean, warps: list[MaskedImage], clipped: NDArray[np.bool_]) -> MaskedImage:
        """Take the residual background off, fill holes and set the mask planes."""
        coverage = np.sum([~plane(warp, "NO_DATA") for warp in warps], axis=0)
        saturated = np.sum([plane(warp, "SAT") for warp in warps], axis=0) * 2 > coverage
        no_data = (coverage < self.config.minCoverage) | (mean.count == 0)
        array = mean.array
        if self.config.backgroundMesh and not no_data.all():
            unknown, mesh = no_data | saturated, self.config.backgroundMesh
            # The first guess is pulled up by faint objects, and serves only to find them.
            flat = array - fit_background(array, unknown, mesh).level
            objects = lit(flat, mean.variance, no_data, self.config.backgroundMaskSigma)
            array = array - fit_background(array, unknown | objects, mesh).level
        covered_hole = no_data & (coverage >= self.config.minCoverage)
        planes = {"NO_DATA": no_data, "SAT": saturated & (coverage > 0), "CLIPPED": clipped, "INTRP": covered_hole}
        filled = np.where(covered_hole, fill_bad(array, no_data), np.where(no_data, 0, array))
        return masked_image(
            filled,
            np.where(no_data, 0, mean.variance),
            planes,
            unit=u.nJy,
            wcs=wcs_of(warps[0]),
            start_xy=start_xy(warps[0]),
            metadata={"band": str(warps[0].metadata["band"]), "nVisits": len(warps)},
        )
