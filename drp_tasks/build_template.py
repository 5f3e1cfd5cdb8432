"""The template of one detector-visit: template coadds of its band, warped onto the detector's pixels.

Belongs here: which part of which patch is needed, and putting the warped parts together.
Doesn't: resampling itself (`drp_tasks.warping`), or matching the template's PSF (`drp_tasks.subtract_images`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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

from drp_tasks.assemble_coadd import COADD_UNUSABLE
from drp_tasks.images import masked_image, plane, start_xy, unusable, wcs_from_text, wcs_of
from drp_tasks.make_warp import read_part
from drp_tasks.reprocess_visit_image import detector_row
from drp_tasks.skymap import TangentSkyMap
from drp_tasks.warping import Box, footprint_box, map_pixels, touched, warp_mapped


@dataclass(frozen=True, eq=False)
class PatchPart:
    """A template coadd, or a cut-out of it, and how many visits each of its pixels is made of."""

    image: li.MaskedImage
    count: NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Template:
    """Patches of sky on a box of a detector's pixels, arrays of the box's shape.

    Parameters
    ----------
    array, variance
        Flux in nJy and its variance in nJy², zero where nothing covers the pixel.
    covered
        Where a patch gave a pixel that may be used.
    saturated
        Where no patch gave a pixel because the coadd is saturated there.
    count
        Number of visits that the pixel is made of, 0 where it isn't covered.
    """

    array: NDArray[np.float32]
    variance: NDArray[np.float32]
    covered: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    count: NDArray[np.uint16]


def assemble_template(patches: Iterable[PatchPart], wcs: WCS, box: Box) -> Template:
    """Warp patches onto a detector's pixels; where patches overlap, the first one with a usable pixel gives it.

    Parameters
    ----------
    patches
        Coadds, or cut-outs of them, each with its WCS.
    wcs
        WCS of the detector.
    box
        The detector's pixels that are wanted; they may lie beyond its edges.
    """
    array, variance = np.zeros(box.shape, np.float32), np.zeros(box.shape, np.float32)
    covered = np.zeros(box.shape, bool)
    saturated = np.zeros(box.shape, bool)
    count = np.zeros(box.shape, np.uint16)
    for part_of_patch in patches:
        patch = part_of_patch.image
        patch_wcs = wcs_of(patch)
        part = footprint_box(patch_wcs, patch.image.array.shape, wcs, start_xy=start_xy(patch)).intersection(box)
        if 0 in part.shape:
            continue
        pixel_map = map_pixels(patch_wcs, wcs, part, start_xy(patch))
        warped = warp_mapped(patch.image.array, patch.variance.array, unusable(patch, COADD_UNUSABLE), pixel_map)
        here = part.slices_within(box)
        new = ~warped.bad & ~covered[here]
        array[here][new], variance[here][new] = warped.array[new], warped.variance[new]
        covered[here] |= new
        rows, columns = (
            np.clip(np.rint(position), 0, size - 1).astype(np.int32)
            for position, size in zip((pixel_map.y, pixel_map.x), part_of_patch.count.shape, strict=True)
        )
        count[here][new] = part_of_patch.count[rows[new], columns[new]]
        saturated[here] |= touched(plane(patch, "SAT"), pixel_map)
    return Template(array, variance, covered, saturated & ~covered, count)


def needed_box(outer: Box, tract_wcs: WCS, wcs: WCS, box: Box) -> Box | None:
    """Find the part of a patch that a box of a detector needs, or `None` if they don't overlap.

    Parameters
    ----------
    outer
        The patch's outer box, in tract pixels.
    tract_wcs, wcs
        WCSs of the tract and of the detector.
    box
        The detector's pixels.
    """
    start = (box.x_start, box.y_start)
    overlap = footprint_box(wcs, box.shape, tract_wcs, margin=8, start_xy=start).intersection(outer)
    return None if 0 in overlap.shape else overlap


def encode_counts(count: NDArray[np.integer]) -> Table:
    """Write counts (ny, nx) as runs of equal ones, row after row: columns ``nVisits`` and ``nPixels``.

    There are few runs, so that a table of them takes a fraction of an image's time and place.
    """
    flat = count.ravel()
    first = np.flatnonzero(np.concatenate([np.ones(min(flat.size, 1), bool), flat[1:] != flat[:-1]]))
    return Table({"nVisits": flat[first], "nPixels": np.diff(first, append=flat.size).astype(np.int32)})


def decode_counts(runs: Table, shape: tuple[int, int]) -> NDArray[np.integer]:
    """Return the counts (ny, nx) that `encode_counts` wrote.

    Raises
    ------
    ValueError
        If the runs don't fill the shape.
    """
    return np.repeat(np.asarray(runs["nVisits"]), np.asarray(runs["nPixels"])).reshape(shape)


class BuildTemplateConnections(pb.PipelineTaskConnections, dimensions=("instrument", "visit", "detector")):  # type: ignore[call-arg]
    """Data sets of `BuildTemplateTask`: the coadds' band is the visit's, which the data ID implies."""

    visitImage = ct.Input(
        doc="Image of the detector; only its box is read.",
        name="visit_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
        deferLoad=True,
    )
    visitSummary = ct.Input(
        doc="WCS of every detector of the visit.",
        name="visit_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit"),
    )
    skyMap = ct.Input(
        doc="Geometry of tracts and patches.",
        name="skyMap",
        storageClass="StructuredDataDict",
        dimensions=("skymap",),
    )
    coadds = ct.Input(
        doc="Template coadds of the visit's band that overlap the detector.",
        name="template_coadd",
        storageClass="MaskedImageV2",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    nImages = ct.Input(
        doc="Number of visits that each pixel of the template coadds is made of.",
        name="template_coadd_n_image",
        storageClass="ImageV2",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    template = ct.Output(
        doc="Template on the detector's pixels and a border around them, not yet matched to the visit's PSF; the "
        "projection is the visit image's.",
        name="template_detector",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    visitCounts = ct.Output(
        doc="Number of visits that each pixel of the template is made of, in runs of equal numbers.",
        name="template_detector_visit_counts",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )


class BuildTemplateConfig(pb.PipelineTaskConfig, pipelineConnections=BuildTemplateConnections):  # type: ignore[call-arg]
    """How much of a detector needs a template."""

    border = pc.Field[int](
        doc="Pixels beyond the detector's edges, for the matching kernel to reach into; at least its half width.",
        default=16,
    )
    minCoverage = pc.Field[float](
        doc="Least part of the detector's pixels with a template for a difference to be worth it.", default=0.05
    )


class BuildTemplateTask(pb.PipelineTask):
    """Warp the template coadds that overlap a detector onto its pixels."""

    ConfigClass = BuildTemplateConfig
    _DefaultName = "buildTemplate"
    config: BuildTemplateConfig

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the needed parts of the patches only, and write the template."""
        summary = butlerQC.get(inputRefs.visitSummary)
        skymap = TangentSkyMap.from_dict(butlerQC.get(inputRefs.skyMap))
        detector = Box.of(butlerQC.get(inputRefs.visitImage).get(component="bbox"))
        wcs = wcs_from_text(str(detector_row(summary, butlerQC.quantum.dataId["detector"])["wcs"]))
        handles = sorted(
            butlerQC.get(inputRefs.coadds), key=lambda handle: (handle.dataId["tract"], handle.dataId["patch"])
        )
        box = self._with_border(detector)
        counts = {
            (handle.dataId["tract"], handle.dataId["patch"]): handle for handle in butlerQC.get(inputRefs.nImages)
        }
        parts = []
        for handle in handles:
            tract, patch = handle.dataId["tract"], handle.dataId["patch"]
            whole = Box.of(skymap.outer_box(patch))
            part = needed_box(whole, skymap.wcs(tract), wcs, box)
            if part is not None:
                count: li.Image = read_part(counts[tract, patch], part, whole)
                parts.append(PatchPart(read_part(handle, part, whole), count.array))
        butlerQC.put(self.run(parts, wcs=wcs, detector=detector), outputRefs)

    def run(self, patches: Sequence[PatchPart], *, wcs: WCS, detector: Box) -> pb.Struct:
        """Assemble.

        Parameters
        ----------
        patches
            Template coadds or cut-outs of them.
        wcs, detector
            The detector's WCS and its pixels.

        Returns
        -------
        struct
            ``template``, a masked image in nJy, NO_DATA where no patch gives a usable pixel; and
            ``visitCounts``, as `encode_counts` makes it.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If too little of the detector lies on template coadds.
        """
        box = self._with_border(detector)
        template = assemble_template(patches, wcs, box)
        coverage = float(template.covered[detector.slices_within(box)].mean())
        if coverage < self.config.minCoverage:
            raise pb.NoWorkFound(f"template coadds cover {coverage:.1%} of the detector")
        self.metadata["n_patches"] = len(patches)
        self.metadata["coverage"] = coverage
        start = (box.x_start, box.y_start)
        planes = {"SAT": template.saturated, "NO_DATA": ~template.covered}
        return pb.Struct(
            template=masked_image(template.array, template.variance, planes, unit=u.nJy, start_xy=start),
            visitCounts=encode_counts(template.count),
        )

    def _with_border(self, detector: Box) -> Box:
        border = self.config.border
        return Box(
            detector.x_start - border, detector.y_start - border, detector.x_stop + border, detector.y_stop + border
        )
