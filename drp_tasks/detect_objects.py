"""Objects found on the coadds of all bands together, split into parents and children.

Belongs here: the task, the shape of each footprint and who is whose child. Doesn't: the maps that are searched
(`drp_tasks.object_bands`), what bright objects hide (`drp_tasks.hidden_objects`), dividing a blend's light
(`drp_tasks.deblending`), fluxes (`drp_tasks.measure_objects`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import lsst.pex.config as pc
import lsst.pipe.base as pb
import numpy as np
from astropy.table import Table
from lsst.images import Image
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from drp_tasks.assemble_coadd import COADD_DIMENSIONS
from drp_tasks.detection import Detections, detect
from drp_tasks.hidden_objects import HiddenCriteria, Search, find_hidden, join_searches
from drp_tasks.images import single_plane, start_xy, wcs_of
from drp_tasks.object_bands import (
    PATCH_DIMENSIONS,
    Band,
    bridge,
    merge_maps,
    merged_threshold,
    pair_bands,
    significance_map,
)

NO_PARENT = -1
OBJECTS_PER_PATCH = 10_000_000
PATCHES_PER_TRACT = 10_000

_EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def first_object_id(tract: int, patch: int) -> int:
    """Return the identifier of a patch's first object; those of all patches are distinct and fit 63 bits."""
    return (tract * PATCHES_PER_TRACT + patch) * OBJECTS_PER_PATCH


@dataclass(frozen=True, eq=False)
class Shapes:
    """Ellipses of the footprints' significance, arrays (n,): semi-axes in pixels, angle in radians from the x axis."""

    semi_major: NDArray[np.float64]
    semi_minor: NDArray[np.float64]
    theta: NDArray[np.float64]


def shapes(merged: NDArray[np.float32], segmentation: NDArray[np.integer], n: int) -> Shapes:
    """Measure the second moments of a map in each of ``n`` segments (numbered from 1)."""
    row, column = np.nonzero(segmentation)
    segment = segmentation[row, column] - 1
    weight = merged[row, column].astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(segment, weight * values, n) / norm_

    norm_ = np.maximum(np.bincount(segment, weight, n), 1e-30)
    x = column - mean(column.astype(np.float64))[segment]
    y = row - mean(row.astype(np.float64))[segment]
    # A pixel isn't a point: its own second moment keeps footprints one pixel wide from vanishing.
    xx, yy, xy = mean(x**2) + 1 / 12, mean(y**2) + 1 / 12, mean(x * y)
    half_trace, split = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return Shapes(
        np.sqrt(half_trace + split), np.sqrt(np.maximum(half_trace - split, 1 / 12)), 0.5 * np.arctan2(2 * xy, xx - yy)
    )


@dataclass(frozen=True, eq=False)
class Families:
    """Who is whose child.

    Parameters
    ----------
    footprints
        Map (ny, nx) of connected footprints, numbered from 1; 0 outside.
    footprint
        Number of each detection's footprint (n,).
    n_children
        Detections in each footprint (number of footprints,).
    """

    footprints: NDArray[np.int32]
    footprint: NDArray[np.int64]
    n_children: NDArray[np.int64]


def find_families(found: Detections) -> Families:
    """Join the segments that touch each other into footprints."""
    footprints, count = label(found.segmentation > 0, structure=_EIGHT_NEIGHBOURS)
    membership = footprints[found.peak_y, found.peak_x].astype(np.int64)
    return Families(footprints.astype(np.int32), membership, np.bincount(membership, minlength=count + 1)[1:])


def summarise(merged: NDArray[np.float32], footprints: NDArray[np.int32], wanted: NDArray[np.integer]) -> Detections:
    """Describe some footprints, by their numbers, as if each were one detection."""
    boxes = find_objects(footprints)
    x, y = np.zeros(len(wanted)), np.zeros(len(wanted))
    peak_x, peak_y, area = (np.zeros(len(wanted), np.int64) for _ in range(3))
    for index, number in enumerate(wanted):
        box = boxes[number - 1]
        row, column = np.nonzero(footprints[box] == number)
        weight = merged[box][row, column].astype(np.float64)
        row, column, peak = row + box[0].start, column + box[1].start, weight.argmax()
        x[index], y[index] = np.average(column, weights=weight), np.average(row, weights=weight)
        peak_x[index], peak_y[index], area[index] = column[peak], row[peak], len(row)
    return Detections(x, y, peak_x, peak_y, merged[peak_y, peak_x], area, footprints)


class MergeObjectDetectionConnections(pb.PipelineTaskConnections, dimensions=PATCH_DIMENSIONS):  # type: ignore[call-arg]
    """Inputs and outputs of `MergeObjectDetectionTask`."""

    coadds = ct.Input(
        name="deep_coadd",
        doc="Coadds of all bands [nJy].",
        storageClass="MaskedImageV2",
        dimensions=COADD_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    psfs = ct.Input(
        name="deep_coadd_input_psf",
        doc="PSFs of their visits.",
        storageClass="ArrowAstropy",
        dimensions=COADD_DIMENSIONS,
        multiple=True,
        deferLoad=True,
    )
    peaks = ct.Output(
        name="object_peak",
        doc="Objects: parents (nChild > 0) and what is to be measured (nChild = 0), with positions and ellipses.",
        storageClass="ArrowAstropy",
        dimensions=PATCH_DIMENSIONS,
    )
    footprints = ct.Output(
        name="object_footprint",
        doc="Footprint of each pixel, as the column footprint of object_peak numbers them; 0 outside of all.",
        storageClass="ImageV2",
        dimensions=PATCH_DIMENSIONS,
    )


class MergeObjectDetectionConfig(
    pb.PipelineTaskConfig,  # type: ignore[call-arg]
    pipelineConnections=MergeObjectDetectionConnections,
):
    """Configuration of `MergeObjectDetectionTask`."""

    threshold = pc.Field[float](
        doc="Least significance, as that of a Gaussian deviate; the merged map's threshold follows from it.",
        default=5.0,
    )
    minArea = pc.Field[int](doc="Least number of pixels above the threshold.", default=3)
    kernelScale = pc.Field[float](
        doc="Width of the filter in units of the PSF's; narrower tells neighbours apart, wider goes deeper.",
        default=0.5,
    )
    deblendContrast = pc.Field[float](doc="Least part of a footprint's signal that makes a peak a child.", default=1e-4)
    brightSignificance = pc.Field[float](
        doc="Stars of at least this significance are taken off in search of what they hide.", default=30.0
    )
    modelFlaw = pc.Field[float](doc="Part of a bright star's model that counts as noise then.", default=0.1)
    hiddenReach = pc.Field[float](
        doc="Largest distance of what is hidden from the star that hides it [pix].", default=10.0
    )
    hiddenSeparation = pc.Field[float](doc="Least distance of what is hidden from what isn't [pix].", default=3.0)
    bandThreshold = pc.Field[float](doc="S/N at the peak that counts as a detection in a band.", default=5.0)

    @property
    def hidden(self) -> HiddenCriteria:
        """How hidden objects are looked for."""
        return HiddenCriteria(self.brightSignificance, self.modelFlaw, self.hiddenSeparation, self.hiddenReach)


class MergeObjectDetectionTask(pb.PipelineTask):
    """Find objects on the coadds of all bands together."""

    ConfigClass = MergeObjectDetectionConfig
    config: MergeObjectDetectionConfig
    _DefaultName = "mergeObjectDetection"

    def runQuantum(self, butlerQC: pb.QuantumContext, inputRefs: Any, outputRefs: Any) -> None:
        """Read the patch's coadds and PSFs, and write its objects."""
        coadds = {handle.dataId["band"]: handle.get() for handle in butlerQC.get(inputRefs.coadds)}
        psfs = {handle.dataId["band"]: handle.get() for handle in butlerQC.get(inputRefs.psfs)}
        data_id = butlerQC.quantum.dataId
        for band in sorted(coadds.keys() - psfs.keys()):
            self.log.warning("Band %s has a coadd but no PSF, and is left out.", band)
        first_id = first_object_id(data_id["tract"], data_id["patch"])
        butlerQC.put(self.run(pair_bands(coadds, psfs), first_id=first_id), outputRefs)

    def run(self, bands: Sequence[Band], *, first_id: int) -> pb.Struct:
        """Find objects.

        Parameters
        ----------
        bands
            The patch's coadds, equal in size.
        first_id
            Identifier of the first object.

        Returns
        -------
        struct
            ``peaks`` (objectId, parentObjectId, nChild, footprint, x, y in tract pixels, significance, area, ellipse,
            refBand, nDetectedBands, <band>_significance) and ``footprints``.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If there is no band, or nothing on the coadds.
        """
        if not bands:
            raise pb.NoWorkFound("no band of the patch has a coadd and a PSF")
        search = self._search(bands)
        if not len(search.found):
            raise pb.NoWorkFound("nothing on the coadds")
        found = search.found
        families = find_families(found)
        self.metadata["n_detections"] = len(found)
        self.metadata["n_blends"] = int((families.n_children > 1).sum())
        peaks = self._tabulate(bands, search, families, first_id)
        origin, wcs = start_xy(bands[0].coadd), wcs_of(bands[0].coadd)
        footprints: Image = single_plane(families.footprints, wcs=wcs, start_xy=origin)
        return pb.Struct(peaks=peaks, footprints=footprints)

    def _search(self, bands: Sequence[Band]) -> Search:
        """Search the merged map, then what remains of it without the bright stars."""
        maps = [significance_map(band, self.config.kernelScale) for band in bands]
        saturated = np.logical_or.reduce([band.saturated for band in bands])
        merged = bridge(merge_maps(maps), saturated)
        bad = np.logical_and.reduce([band.unusable for band in bands]) & ~saturated
        threshold, min_area = merged_threshold(len(bands), self.config.threshold), self.config.minArea
        found = detect(merged, bad, threshold, min_area, deblend_contrast=self.config.deblendContrast)
        first = Search(found, maps, merged)
        self.metadata["merged_threshold"] = threshold
        if not len(found):
            return first
        families = find_families(found)
        hidden = find_hidden(
            bands,
            first,
            families.footprint,
            families.footprints,
            criteria=self.config.hidden,
            kernel_scale=self.config.kernelScale,
            threshold=threshold,
            min_area=min_area,
        )
        self.metadata["n_hidden"] = len(hidden.found)
        return join_searches(first, hidden)

    def _tabulate(self, bands: Sequence[Band], search: Search, families: Families, first_id: int) -> Table:
        """Write parents first, then all detections, in order of the footprints."""
        found, maps, merged = search.found, search.maps, search.merged
        x0, y0 = start_xy(bands[0].coadd)
        blended = np.flatnonzero(families.n_children > 1) + 1
        parents = summarise(merged, families.footprints, blended)
        by_segment = shapes(merged, found.segmentation, len(found))
        by_footprint = shapes(merged, families.footprints, len(families.n_children))
        peak_x = np.concatenate([parents.peak_x, found.peak_x])
        peak_y = np.concatenate([parents.peak_y, found.peak_y])
        per_band = np.array([one[peak_y, peak_x] for one in maps])
        names = np.array([band.name for band in bands])
        n_parents, n = len(blended), len(found)
        parent_id = np.full(len(families.n_children) + 1, NO_PARENT, np.int64)
        parent_id[blended] = first_id + np.arange(n_parents)
        row = {
            "objectId": first_id + np.arange(n_parents + n, dtype=np.int64),
            "parentObjectId": np.concatenate([np.full(n_parents, NO_PARENT), parent_id[families.footprint]]),
            "nChild": np.concatenate([families.n_children[blended - 1], np.zeros(n, np.int64)]).astype(np.int32),
            "footprint": np.concatenate([blended, families.footprint]).astype(np.int32),
            "x": (np.concatenate([parents.x, found.x]) + x0) * u.pix,
            "y": (np.concatenate([parents.y, found.y]) + y0) * u.pix,
            "significance": merged[peak_y, peak_x],
            "area": np.concatenate([parents.area, found.area]).astype(np.int32),
            "refBand": names[per_band.argmax(axis=0)],
            "nDetectedBands": (per_band > self.config.bandThreshold).sum(axis=0).astype(np.int32),
        }
        for name in ("semi_major", "semi_minor", "theta"):
            column = np.concatenate([getattr(by_footprint, name)[blended - 1], getattr(by_segment, name)])
            row[_camel(name)] = column * (u.rad if name == "theta" else u.pix)
        for name, values in zip(names, per_band, strict=True):
            row[f"{name}_significance"] = values
        return Table(row)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
