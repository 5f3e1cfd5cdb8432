"""Warps of a visit: recalibrated, cut from several detectors, and blurred to a common seeing."""

import astropy.units as u
import lsst.pipe.base as pb
import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from drp_tasks.images import masked_image, plane, unusable, wcs_to_text
from drp_tasks.make_warp import (
    Calibration,
    MakeDirectWarpTask,
    MakePsfMatchedWarpConfig,
    MakePsfMatchedWarpTask,
    PatchGrid,
    match_seeing,
    overlap,
)
from drp_tasks.warping import Box

SIDE = 96
SIGMA = 1.8
FLUX = 5000.0
GRID_BOX = Box(1000, 2000, 1150, 2100)


def tangent_wcs(crpix):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.1, -28.1]
    wcs.wcs.crpix = crpix
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    wcs.wcs.set()
    return wcs


GRID = PatchGrid(tangent_wcs([1076.0, 2051.0]), GRID_BOX)
LEFT = tangent_wcs([80.4, 45.2])
RIGHT = tangent_wcs([-20.6, 45.2])


class StoredImage:
    """Stands in for a Butler's handle, and notes what was read."""

    def __init__(self, image):
        self.image = image
        self.boxes = []

    def get(self, *, parameters=None):
        self.boxes.append(None if parameters is None else parameters["bbox"])
        return self.image if parameters is None else self.image[parameters["bbox"]]


def detector_image(stars, *, bad=()):
    y, x = np.mgrid[:SIDE, :SIDE]
    array = np.zeros((SIDE, SIDE))
    for x0, y0 in stars:
        array += FLUX / (2 * np.pi * SIGMA**2) * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / SIGMA**2)
    flagged = np.zeros(array.shape, bool)
    for row, column in bad:
        flagged[row, column] = True
    return masked_image(array, np.full(array.shape, 4.0), {"CR": flagged}, unit=u.nJy)


def summary(zero_points, wcss, fwhm=0.85):
    rows = []
    for detector, (zero_point, wcs) in enumerate(zip(zero_points, wcss, strict=True)):
        edge = SIDE - 0.5
        ra, dec = wcs.all_pix2world([-0.5, edge, edge, -0.5], [-0.5, -0.5, edge, edge], 0)
        rows.append(
            {"visit": 77, "detector": detector, "band": "r", "zeroPoint": zero_point, "wcs": wcs_to_text(wcs)}
            | {"psfFwhm": fwhm}
            | {f"raCorner{i}": ra[i] for i in range(4)}
            | {f"decCorner{i}": dec[i] for i in range(4)}
        )
    return Table(rows)


@pytest.fixture
def images():
    return {0: StoredImage(detector_image([(60.0, 40.0)])), 1: StoredImage(detector_image([(30.0, 50.0)]))}


def make_warp(images, refined, preliminary=None, grid=GRID):
    preliminary = summary([31.0, 31.0], [LEFT, RIGHT]) if preliminary is None else preliminary
    return MakeDirectWarpTask().run(images, preliminary, refined, grid).direct_warp


def flux_around(warp, wcs, x, y):
    column, row = GRID.wcs.all_world2pix(*wcs.all_pix2world(x, y, 0), 0)
    rows, columns = np.mgrid[GRID_BOX.y_start : GRID_BOX.y_stop, GRID_BOX.x_start : GRID_BOX.x_stop]
    return float(warp.image.array[np.hypot(columns - column, rows - row) < 9].sum())


def test_detectors_land_where_their_refined_wcs_says(images):
    warp = make_warp(images, summary([31.0, 31.0], [LEFT, RIGHT]))
    assert flux_around(warp, LEFT, 60.0, 40.0) == pytest.approx(FLUX, rel=2e-3)
    assert flux_around(warp, RIGHT, 30.0, 50.0) == pytest.approx(FLUX, rel=2e-3)
    assert warp.bbox.start.x == GRID_BOX.x_start
    assert warp.bbox.start.y == GRID_BOX.y_start
    assert warp.metadata["visit"] == 77
    assert warp.metadata["psfFwhm"] == pytest.approx(0.85)


def test_the_refined_zero_point_rescales_fluxes_and_their_variance(images):
    same = make_warp(images, summary([31.0, 31.0], [LEFT, RIGHT]))
    fainter = make_warp(images, summary([31.1, 31.0], [LEFT, RIGHT]))
    factor = 10 ** (-0.04)
    assert flux_around(fainter, LEFT, 60.0, 40.0) == pytest.approx(FLUX * factor, rel=2e-3)
    assert flux_around(fainter, RIGHT, 30.0, 50.0) == pytest.approx(FLUX, rel=2e-3)
    filled = same.variance.array > 0
    ratio = fainter.variance.array[filled] / same.variance.array[filled]
    assert ratio.min() == pytest.approx(factor**2, rel=1e-4)


def test_the_gap_between_detectors_has_no_data(images):
    warp = make_warp(images, summary([31.0, 31.0], [LEFT, RIGHT]))
    gap = round(GRID.wcs.wcs.crpix[0] - LEFT.wcs.crpix[0] + SIDE) - GRID_BOX.x_start
    assert plane(warp, "NO_DATA")[:, gap].all()
    assert unusable(warp)[:, gap].all()


def test_mask_planes_are_carried(images):
    images[0] = StoredImage(detector_image([(60.0, 40.0)], bad=[(40, 61)]))
    warp = make_warp(images, summary([31.0, 31.0], [LEFT, RIGHT]))
    assert plane(warp, "CR").sum() == 4


def test_a_detector_without_a_refined_zero_point_is_left_out(images):
    warp = make_warp(images, summary([np.nan, 31.0], [LEFT, RIGHT]))
    assert flux_around(warp, LEFT, 60.0, 40.0) == 0
    assert images[0].boxes == []


def test_a_detector_that_the_patch_does_not_need_is_not_read(images):
    narrow = PatchGrid(GRID.wcs, Box(GRID_BOX.x_start, GRID_BOX.y_start, GRID_BOX.x_start + 30, GRID_BOX.y_stop))
    refined = summary([31.0, 31.0], [LEFT, RIGHT])
    warp = make_warp(images, refined, grid=narrow)
    assert images[1].boxes == []
    whole = make_warp({0: StoredImage(images[0].image)}, refined)
    np.testing.assert_allclose(warp.image.array, whole.image.array[:, :30], atol=1e-2)


def test_only_the_rows_of_a_detector_that_the_patch_needs_are_read(images):
    flat = PatchGrid(GRID.wcs, Box(GRID_BOX.x_start, GRID_BOX.y_start, GRID_BOX.x_stop, GRID_BOX.y_start + 30))
    refined = summary([31.0, 31.0], [LEFT, RIGHT])
    warp = make_warp(images, refined, grid=flat)
    (box,) = images[0].boxes
    assert box.shape.y < 50
    assert box.shape.x == SIDE
    whole = make_warp({detector: StoredImage(images[detector].image) for detector in (0, 1)}, refined)
    np.testing.assert_allclose(warp.image.array, whole.image.array[:30], atol=1e-2)


def test_a_patch_that_no_usable_detector_covers_is_no_work(images):
    with pytest.raises(pb.NoWorkFound):
        make_warp(images, summary([np.nan, np.nan], [LEFT, RIGHT]))


@pytest.mark.parametrize("edge", [0.0, 0.5], ids=["centres of corner pixels", "corners of corner pixels"])
def test_a_detectors_box_follows_from_its_corners(edge):
    row = summary([31.0], [LEFT])[0]
    for i, (x, y) in enumerate([(-edge, -edge), (SIDE - 1 + edge, -edge), (SIDE - 1 + edge,) * 2]):
        row[f"raCorner{i}"], row[f"decCorner{i}"] = LEFT.all_pix2world(x, y, 0)
    calibration = Calibration.from_rows(row, row)
    assert calibration.detector_box == Box(0, 0, SIDE, SIDE)


def test_a_detector_beside_the_patch_has_no_overlap():
    far = Calibration(tangent_wcs([900.0, 45.0]), Box(0, 0, SIDE, SIDE), 1.0, 0.8)
    assert overlap(far, GRID) is None


def test_matching_brings_two_seeings_to_the_same_star():
    def star(sigma):
        y, x = np.mgrid[-20:21, -20:21]
        return (np.exp(-0.5 * (x**2 + y**2) / sigma**2) / (2 * np.pi * sigma**2)).astype(np.float32)

    good, ones = np.zeros((41, 41), bool), np.ones((41, 41), np.float32)
    target = 3.0
    sharp, blurred = (match_seeing(star(s), ones, good, np.sqrt(target**2 - s**2))[0] for s in (1.5, 2.2))
    np.testing.assert_allclose(sharp, blurred, atol=0.01 * sharp.max())


def test_the_variance_after_matching_is_that_of_the_pixels():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 3, (200, 200)).astype(np.float32)
    bad = rng.uniform(size=noise.shape) < 0.1
    array, variance, still_bad = match_seeing(noise, np.full_like(noise, 9.0), bad, 2.0)
    inner = np.s_[10:-10, 10:-10]
    assert not still_bad[inner].any()
    assert np.std(array[inner] / np.sqrt(variance[inner])) == pytest.approx(1.0, abs=0.08)


def test_a_visit_of_worse_seeing_than_the_target_has_no_matched_warp(images):
    warp = make_warp(images, summary([31.0, 31.0], [LEFT, RIGHT], fwhm=1.2))
    config = MakePsfMatchedWarpConfig(targetFwhm=1.21)
    with pytest.raises(pb.NoWorkFound, match="can't be matched"):
        MakePsfMatchedWarpTask(config=config).run(warp)


def test_the_matched_warp_keeps_flux_and_says_its_seeing(images):
    warp = make_warp(images, summary([31.0, 31.0], [LEFT, RIGHT]))
    matched = MakePsfMatchedWarpTask().run(warp).psf_matched_warp
    assert matched.metadata["matchedFwhm"] == pytest.approx(1.4)
    assert matched.image.array.max() < 0.6 * warp.image.array.max()
    assert matched.image.array.sum() == pytest.approx(warp.image.array.sum(), rel=0.01)
