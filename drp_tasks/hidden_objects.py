"""Objects that a bright star hides: found once the star's model is taken off.

Belongs here: which stars hide others, their models, the significance of what remains, joining both searches' finds.
Doesn't: the first search (`drp_tasks.detect_objects`), the models themselves (`drp_tasks.deblending`).

Within ten pixels of a star of S/N 500 a star of S/N 10 has no peak of its own. The model isn't perfect: a part of its
light counts as noise, lest its flaws be found as objects. Galaxies are left alone: round models leave too much of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects

from drp_tasks.deblending import Blend, child_profiles, fit_models
from drp_tasks.detection import Detections, detect
from drp_tasks.images import start_xy
from drp_tasks.object_bands import Band, merge_maps, significance_map
from drp_tasks.photometry import aperture_photometry, psf_photometry

_MARGIN_PX = 12
_CORE_PX = 5.0
_POINT_TOLERANCE = 0.1

type Map = NDArray[np.float32]


@dataclass(frozen=True)
class HiddenCriteria:
    """How hidden objects are looked for.

    Parameters
    ----------
    bright
        Stars of at least this significance are modelled and taken off.
    flaw
        Part of a model's light that counts as noise.
    separation_px
        Nearer to an object than this nothing is looked for.
    reach_px
        Nor farther from a bright star: its model ends with the PSF's image.
    """

    bright: float = 30.0
    flaw: float = 0.1
    separation_px: float = 3.0
    reach_px: float = 10.0


def find_points(band: Band, found: Detections, members: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell which of some detections (n,) are points: their light falls off as the PSF's does."""
    image, variance, bad, origin = (
        band.coadd.image.array,
        band.coadd.variance.array,
        band.unusable,
        start_xy(band.coadd),
    )
    x, y = found.x[members] + origin[0], found.y[members] + origin[1]
    point = psf_photometry(image, variance, bad, band.psf, x, y, start_xy=origin)
    core = aperture_photometry(image, variance, bad, point.x, point.y, _CORE_PX, start_xy=origin)
    stamps, middle = band.psf.images_at(x, y), np.full(1, float(band.psf.half))
    share = [sep.sum_circle(np.ascontiguousarray(stamp), middle, middle, _CORE_PX)[0][0] for stamp in stamps]
    return np.abs(core.flux / point.flux / np.array(share) - 1) < _POINT_TOLERANCE


def model_footprints(
    band: Band,
    found: Detections,
    footprint: NDArray[np.integer],
    footprints: NDArray[np.int32],
    wanted: NDArray[np.integer],
) -> Map:
    """Model the light of some footprints, with their surroundings.

    Parameters
    ----------
    band
        The coadd and its PSF.
    found
        Detections, in pixels of the array.
    footprint, footprints
        Number of each detection's footprint (n,) and the map (ny, nx) of them.
    wanted
        Numbers of the footprints to model.

    Returns
    -------
    model : `numpy.ndarray`
        The models' sum (ny, nx), zero elsewhere.
    """
    image, variance, bad = band.coadd.image.array, band.coadd.variance.array, band.unusable
    model = np.zeros_like(image)
    members = np.flatnonzero(np.isin(footprint, wanted))
    x0, y0 = start_xy(band.coadd)
    fit = psf_photometry(
        image, variance, bad, band.psf, found.x[members] + x0, found.y[members] + y0, start_xy=(x0, y0)
    )
    stamps = band.psf.stamps_at(fit.x, fit.y)
    column, row = np.rint(fit.x).astype(np.int64) - x0, np.rint(fit.y).astype(np.int64) - y0
    held = set(wanted.tolist())
    for number, edges in enumerate(find_objects(footprints), start=1):
        if edges is None or number not in held:
            continue
        children = np.flatnonzero(footprint[members] == number)
        rows, columns = (_grown(edge, size) for edge, size in zip(edges, image.shape, strict=True))
        box = rows, columns
        fitted = footprints[box] == number
        profiles = child_profiles(
            stamps[children], column[children] - columns.start, row[children] - rows.start, fitted.shape
        )
        model[box] += fit_models(Blend(image[box], variance[box], fitted, ~bad[box]), profiles).sum(axis=0)
    return model


@dataclass(frozen=True, eq=False)
class Search:
    """What was found, and the significance it was found with: one map a band and all bands', (ny, nx)."""

    found: Detections
    maps: Sequence[Map]
    merged: Map


def find_hidden(
    bands: Sequence[Band],
    first: Search,
    footprint: NDArray[np.integer],
    footprints: NDArray[np.int32],
    *,
    criteria: HiddenCriteria,
    kernel_scale: float,
    threshold: float,
    min_area: int,
) -> Search:
    """Look for objects on what remains of the coadds when bright stars are taken off.

    Parameters
    ----------
    bands
        The patch's coadds.
    first
        The search on the coadds themselves.
    footprint, footprints
        Number of each detection's footprint (n,) and the map (ny, nx) of them.
    criteria
        How to look.
    kernel_scale, threshold, min_area
        As in the first search.

    Returns
    -------
    search : `Search`
        Only what is new; the merged map is zero away from bright stars.
    """
    peak = first.found.peak_y, first.found.peak_x
    bright = np.flatnonzero(first.found.significance >= criteria.bright)
    deepest = int(np.argmax([one[peak].sum() for one in first.maps]))
    stars = bright[find_points(bands[deepest], first.found, bright)] if len(bright) else bright
    wanted = np.unique(footprint[stars])
    models = [model_footprints(band, first.found, footprint, footprints, wanted) for band in bands]
    remaining: list[Map] = []
    for band, model, whole in zip(bands, models, first.maps, strict=True):
        rest = significance_map(band, kernel_scale, without=model)
        remaining.append((rest / np.sqrt(1 + np.square(criteria.flaw * (whole - rest)))).astype(np.float32))
    merged = merge_maps(remaining)
    place = (_distance(merged.shape, *peak) > criteria.separation_px) & (
        _distance(merged.shape, peak[0][stars], peak[1][stars]) < criteria.reach_px
    )
    merged = np.where(place, merged, np.float32(0))
    bad = np.logical_and.reduce([band.unusable for band in bands])
    return Search(detect(merged, bad, threshold, min_area, deblend_contrast=1.0), remaining, merged)


def join_searches(first: Search, second: Search) -> Search:
    """Put the finds of both searches into one; the second's segments cut pieces out of the first's."""
    one, two = first.found, second.found
    new = two.segmentation > 0
    found = Detections(
        np.concatenate([one.x, two.x]),
        np.concatenate([one.y, two.y]),
        np.concatenate([one.peak_x, two.peak_x]),
        np.concatenate([one.peak_y, two.peak_y]),
        np.concatenate([one.significance, two.significance]),
        np.concatenate([one.area, two.area]),
        np.where(new, two.segmentation + len(one), one.segmentation),
    )
    maps = [np.where(new, rest, whole) for whole, rest in zip(first.maps, second.maps, strict=True)]
    return Search(found, maps, np.where(new, second.merged, first.merged))


def _grown(edge: slice, size: int) -> slice:
    return slice(max(edge.start - _MARGIN_PX, 0), min(edge.stop + _MARGIN_PX, size))


def _distance(shape: tuple[int, ...], row: NDArray[np.integer], column: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return each pixel's distance from the nearest of some pixels, infinite if there are none."""
    free = np.ones(shape, bool)
    free[row, column] = False
    return np.asarray(distance_transform_edt(free)) if len(row) else np.full(shape, np.inf)
