"""Warps: what one visit sees of one patch, on the patch's pixels.

Belongs here: the direct warp (recalibrated, otherwise untouched) and the warp that is blurred to a seeing common to all
visits, on which artifacts show. Doesn't: the resampling itself (`drp_tasks.warping`), or what is made of many warps
(`drp_tasks.assemble_coadd`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import astropy.units as u
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Row, Table
from astropy.wcs import WCS
from lsst.images import Image, MaskedImage
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from drp_tasks.camera import PIXEL_SCALE_ARCSEC
from drp_tasks.detection import FWHM_PER_SIGMA
from drp_tasks.images import UNUSABLE, masked_image, plane, start_xy, unusable, wcs_from_text
from drp_tasks.skymap import TangentSkyMap
from drp_tasks.warping import Box, footprint_box, map_pixels, touched, warp_mapped

CARRIED_PLANES = ("BAD", "SAT", "CR", "EDGE", "INTRP")
"""Planes of a detector's image that its warp keeps."""

WARP_DIMENSIONS = ("instrument", "visit", "skymap", "tract", "patch")

_KERNEL_MARGIN_PX = 8
_MIN_SHARE = 0.5


class ImageHandle[Part](Protocol):
    """What reads an image when it is wanted: a Butler's deferred handle, or a stand-in."""

    def get(self, *, parameters: dict[str, Any] | None = None) -> Part:
        """Read the image, or the box of it that the parameter ``bbox`` gives."""


def read_part[Part: (MaskedImage, Image)](handle: ImageHandle[Part], part: Box, whole: Box) -> Part:
    """Read a part of an image by whole rows, and cut its columns afterwards.

    A file's rows are one piece; cut in columns they're read one by one, which takes twice as long as the whole image.

    Parameters
    ----------
    handle
        What reads the image.
    part, whole
        The pixels that are wanted and those that the image has.
    """
    rows = Box(whole.x_start, part.y_start, whole.x_stop, part.y_stop)
    return handle.get(parameters={"bbox": rows.bbox})[part.bbox]


@dataclass(frozen=True)
class Calibration:
    """What recalibration found for one detector of a visit."""

    wcs: WCS
    detector_box: Box
    flux_scale: float
    fwhm_arcsec: float

    @classmethod
    def from_rows(cls, refined: Row, preliminary: Row) -> Calibration | None:
        """Compare a detector's rows of the refined and the preliminary summary; None without a zero point."""
        shift = float(refined["zeroPoint"]) - float(preliminary["zeroPoint"])
        if not np.isfinite(shift) or not str(refined["wcs"]):
            return None
        wcs = wcs_from_text(str(refined["wcs"]))
        ra = [float(refined[f"raCorner{corner}"]) for corner in range(4)]
        dec = [float(refined[f"decCorner{corner}"]) for corner in range(4)]
        x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
        # A quarter of a pixel forgives the WCS the corners were computed with, and whether they're pixels' centres.
        first, last = np.ceil(np.array([x.min(), y.min()]) - 0.25), np.floor(np.array([x.max(), y.max()]) + 0.25)
        box = Box(int(first[0]), int(first[1]), int(last[0]) + 1, int(last[1]) + 1)
        return cls(wcs, box, 10 ** (-0.4 * shift), float(refined["psfFwhm"]))


@dataclass(frozen=True)
class PatchGrid:
    """The pixels of a patch: a WCS in tract coordinates and the box."""

    wcs: WCS
    box: Box

    @classmethod
    def of(cls, skymap: Mapping[str, Any], tract: int, patch: int) -> PatchGrid:
        """Look a patch up in the dataset ``skyMap``."""
        geometry = TangentSkyMap.from_dict(dict(skymap))
        return cls(geometry.wcs(tract), Box.of(geometry.outer_box(patch)))


def overlap(calibration: Calibration, grid: PatchGrid) -> tuple[Box, Box] | None:
    """Find what a detector and a patch have in common.

    Returns
    -------
    in_patch, in_detector : `Box`
        Tract pixels that the detector reaches, and detector pixels that these need; None where there are none.
    """
    detector = calibration.detector_box
    start = (detector.x_start, detector.y_start)
    in_patch = footprint_box(calibration.wcs, detector.shape, grid.wcs, start_xy=start).intersection(grid.box)
    if 0 in in_patch.shape:
        return None
    start = (in_patch.x_start, in_patch.y_start)
    needed = footprint_box(grid.wcs, in_patch.shape, calibration.wcs, _KERNEL_MARGIN_PX, start)
    return in_patch, needed.intersection(detector)


class PatchCanvas:
    """A patch's pixels, filled detector by detector."""

    def __init__(self, grid: PatchGrid) -> None:
        shape = grid.box.shape
        self._grid = grid
        self._array = np.zeros(shape, np.float32)
        self._variance = np.zeros(shape, np.float32)
        self._planes = {name: np.zeros(shape, bool) for name in CARRIED_PLANES}
        self._empty = np.ones(shape, bool)

    @property
    def coverage(self) -> float:
        """Part of the patch's pixels that have data."""
        return float(1 - self._empty.mean())

    def add(self, image: MaskedImage, calibration: Calibration, box: Box) -> None:
        """Warp one detector's image, or the part of it that is at hand, onto a box of the patch."""
        pixel_map = map_pixels(calibration.wcs, self._grid.wcs, box, start_xy(image))
        scale = np.float32(calibration.flux_scale)
        bad = unusable(image)
        warped = warp_mapped(image.image.array * scale, image.variance.array * scale**2, bad, pixel_map)
        here = box.slices_within(self._grid.box)
        filled = warped.variance > 0
        self._array[here][filled] = warped.array[filled]
        self._variance[here][filled] = warped.variance[filled]
        self._empty[here][filled] = False
        for name, carried in self._planes.items():
            carried[here][filled] = touched(plane(image, name), pixel_map)[filled]

    def finish(self, metadata: Mapping[str, str | int | float | bool | None]) -> MaskedImage:
        """Return the warp."""
        return masked_image(
            self._array,
            self._variance,
            {**self._planes, "NO_DATA": self._empty},
            unit=u.nJy,
            wcs=self._grid.wcs,
            start_xy=(self._grid.box.x_start, self._grid.box.y_start),
            metadata=metadata,
        )


def match_seeing(
    array: NDArray[np.float32], variance: NDArray[np.float32], bad: NDArray[np.bool_], sigma_px: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Blur an image with a Gaussian, bad pixels left out and the rest renormalised.

    Parameters
    ----------
    array, variance, bad
        Pixels, their variance, where they are unusable; (ny, nx).
    sigma_px
        Width of the Gaussian.

    Returns
    -------
    array, variance, bad
        The blurred image, its variance (the noise of neighbouring pixels is correlated), and where too little was left.
    """
    good = ~bad
    share = gaussian_filter(good.astype(np.float32), sigma_px, mode="constant")
    safe = np.maximum(share, np.float32(1e-3))
    blurred = gaussian_filter(np.where(good, array, 0).astype(np.float32), sigma_px, mode="constant") / safe
    # The square of a Gaussian is a narrower Gaussian, times the kernel's sum of squares.
    reach = int(4 * sigma_px + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    power = np.float32(((line / line.sum()) ** 2).sum() ** 2)
    noise = gaussian_filter(np.where(good, variance, 0).astype(np.float32), sigma_px / np.sqrt(2), mode="constant")
    enough = share > _MIN_SHARE
    return np.where(enough, blurred, 0), np.where(enough, noise * power / safe**2, 0), ~enough


class MakeDirectWarpConnections(pb.PipelineTaskConnections, dimensions=WARP_DIMENSIONS):  # type: ignore[call-arg]
    """Inputs and outputs of `MakeDirectWarpTask`."""

    images = ct.Input(
        name="preliminary_visit_image",
        doc="Calibrated images [nJy] of the visit's detectors that overlap the patch.",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
    )
    preliminary_summary = ct.Input(
        name="preliminary_visit_summary",
        doc="Zero points by which the images were scaled.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    visit_summary = ct.Input(
        name="visit_summary",
        doc="Refined WCSs and zero points.",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    skymap = ct.Input(
        name="skyMap", doc="Geometry of tracts and patches.", storageClass="StructuredDataDict", dimensions=("skymap",)
    )
    direct_warp = ct.Output(
        name="direct_warp",
        doc="The visit on the patch's pixels, recalibrated [nJy].",
        storageClass="MaskedImageV2",
        dimensions=WARP_DIMENSIONS,
    )


class MakeDirectWarpConfig(pb.PipelineTaskConfig, pipelineConnections=MakeDirectWarpConnections):  # type: ignore[call-arg]
    """Configuration of `MakeDirectWarpTask`."""

    maxFwhm = pc.Field[float](doc="Detectors of worse seeing are left out [arcsec].", default=1.6)
    minCoverage = pc.Field[float](doc="A warp that covers less of the patch isn't made.", default=0.001)
    cutOutBelow = pc.Field[float](
        doc="If the patch needs less than this part of a detector, only that part is read.", default=0.6
    )


class MakeDirectWarpTask(pb.PipelineTask):
    """Warp all detectors of a visit that overlap a patch, with the refined WCS and zero point."""

    ConfigClass = MakeDirectWarpConfig
    config: MakeDirectWarpConfig
    _DefaultName = "makeDirectWarp"

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the tables, leave the images to be read one at a time, and write the warp."""
        data_id = butlerQC.quantum.dataId
        grid = PatchGrid.of(butlerQC.get(inputRefs.skymap), data_id["tract"], data_id["patch"])
        images = {handle.dataId["detector"]: handle for handle in butlerQC.get(inputRefs.images)}
        preliminary, refined = butlerQC.get(inputRefs.preliminary_summary), butlerQC.get(inputRefs.visit_summary)
        butlerQC.put(self.run(images, preliminary, refined, grid), outputRefs)

    def run(
        self,
        images: Mapping[int, ImageHandle[MaskedImage]],
        preliminary_summary: Table,
        visit_summary: Table,
        grid: PatchGrid,
    ) -> pb.Struct:
        """Make the direct warp of one visit on one patch.

        Parameters
        ----------
        images
            Handles of the detectors' images by detector id.
        preliminary_summary, visit_summary
            The visit's summaries before and after recalibration, one row a detector.
        grid
            The patch.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no calibrated detector of good seeing has a pixel in the patch.
        """
        refined = {int(row["detector"]): row for row in visit_summary}
        preliminary = {int(row["detector"]): row for row in preliminary_summary}
        canvas = PatchCanvas(grid)
        widths = []
        for detector in sorted(images.keys() & refined.keys() & preliminary.keys()):
            calibration = Calibration.from_rows(refined[detector], preliminary[detector])
            if calibration is None or not calibration.fwhm_arcsec <= self.config.maxFwhm:
                continue
            boxes = overlap(calibration, grid)
            if boxes is None:
                continue
            in_patch, in_detector = boxes
            cut_out = np.prod(in_detector.shape) < self.config.cutOutBelow * np.prod(calibration.detector_box.shape)
            handle = images[detector]
            image = read_part(handle, in_detector, calibration.detector_box) if cut_out else handle.get()
            canvas.add(image, calibration, in_patch)
            widths.append(calibration.fwhm_arcsec)
        self.metadata["n_detectors"] = len(widths)
        self.metadata["coverage"] = canvas.coverage
        if canvas.coverage < self.config.minCoverage:
            raise pb.NoWorkFound(f"{len(widths)} usable detectors cover {canvas.coverage:.2%} of the patch")
        facts: dict[str, str | int | float | bool | None] = {
            "visit": int(visit_summary["visit"][0]),
            "band": str(visit_summary["band"][0]),
            "psfFwhm": float(np.mean(widths)),
            "nDetectors": len(widths),
        }
        return pb.Struct(direct_warp=canvas.finish(facts))


class MakePsfMatchedWarpConnections(pb.PipelineTaskConnections, dimensions=WARP_DIMENSIONS):  # type: ignore[call-arg]
    """Inputs and outputs of `MakePsfMatchedWarpTask`."""

    direct_warp = ct.Input(
        name="direct_warp",
        doc="The visit on the patch's pixels.",
        storageClass="MaskedImageV2",
        dimensions=WARP_DIMENSIONS,
    )
    psf_matched_warp = ct.Output(
        name="psf_matched_warp",
        doc="The same pixels, blurred to the target seeing; the projection is the direct warp's.",
        storageClass="MaskedImageV2",
        dimensions=WARP_DIMENSIONS,
    )


class MakePsfMatchedWarpConfig(pb.PipelineTaskConfig, pipelineConnections=MakePsfMatchedWarpConnections):  # type: ignore[call-arg]
    """Configuration of `MakePsfMatchedWarpTask`."""

    targetFwhm = pc.Field[float](
        doc="Seeing that all warps are blurred to; visits of worse seeing have no matched warp [arcsec].", default=1.4
    )
    minKernelSigma = pc.Field[float](
        doc="Narrowest Gaussian that still blurs honestly on this grid [pix].", default=0.6
    )


class MakePsfMatchedWarpTask(pb.PipelineTask):
    """Blur a direct warp to the target seeing, so that stars look alike in all visits and artifacts don't."""

    ConfigClass = MakePsfMatchedWarpConfig
    config: MakePsfMatchedWarpConfig
    _DefaultName = "makePsfMatchedWarp"

    def run(self, direct_warp: MaskedImage) -> pb.Struct:
        """Make the PSF-matched warp.

        Parameters
        ----------
        direct_warp
            The direct warp; its metadata tells its seeing.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If the visit's seeing is worse than the target.
        """
        fwhm = float(direct_warp.metadata["psfFwhm"])
        sigma_px = np.sqrt(max(self.config.targetFwhm**2 - fwhm**2, 0.0)) / FWHM_PER_SIGMA / PIXEL_SCALE_ARCSEC
        self.metadata["kernel_sigma_px"] = float(sigma_px)
        if sigma_px < self.config.minKernelSigma:
            raise pb.NoWorkFound(f"seeing {fwhm:.2f} arcsec can't be matched to {self.config.targetFwhm:.2f}")
        array, variance, bad = match_seeing(
            direct_warp.image.array, direct_warp.variance.array, unusable(direct_warp, UNUSABLE), float(sigma_px)
        )
        matched = masked_image(
            array,
            variance,
            {"NO_DATA": bad},
            unit=u.nJy,
            start_xy=start_xy(direct_warp),
            metadata={**direct_warp.metadata, "matchedFwhm": self.config.targetFwhm},
        )
        return pb.Struct(psf_matched_warp=matched)
