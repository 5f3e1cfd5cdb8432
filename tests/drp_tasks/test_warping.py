"""Resampling: flux, place and noise survive; bad pixels don't spread."""

import numpy as np
import pytest
from astropy.wcs import WCS

from drp_tasks.warping import Box, footprint_box, lanczos, map_pixels, touched, warp

SIZE = 160
SIGMA = 1.9


def tangent_wcs(*, rotation_deg=0.0, scale=0.2 / 3600, shift=(0.0, 0.0), distorted=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if distorted else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.1, -28.1]
    wcs.wcs.crpix = [SIZE / 2 + 0.5 + shift[0], SIZE / 2 + 0.5 + shift[1]]
    angle = np.radians(rotation_deg)
    wcs.wcs.cd = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if distorted:
        from astropy.wcs import Sip

        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2] = 2e-5, -1e-5, 1.5e-5
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def gaussians(positions, flux=1e4):
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.zeros((SIZE, SIZE))
    for x0, y0 in positions:
        image += flux / (2 * np.pi * SIGMA**2) * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / SIGMA**2)
    return image


WHOLE = (0, 0, SIZE, SIZE)
OUTPUT = tangent_wcs()
INPUTS = {
    "shifted": tangent_wcs(shift=(0.37, -0.81)),
    "rotated": tangent_wcs(rotation_deg=91.3, shift=(0.2, 0.4)),
    "distorted": tangent_wcs(rotation_deg=2.0, distorted=True),
    "of another scale": tangent_wcs(scale=0.2004 / 3600),
}


@pytest.mark.parametrize("wcs_in", INPUTS.values(), ids=INPUTS.keys())
def test_a_star_keeps_its_flux_and_its_place(wcs_in):
    positions = [(50.3, 60.7), (110.5, 45.2), (80.0, 115.9)]
    image = gaussians(positions)
    warped = warp(image, np.ones_like(image), np.zeros(image.shape, bool), wcs_in, OUTPUT, WHOLE)
    for x0, y0 in positions:
        true_x, true_y = (float(v) for v in OUTPUT.all_world2pix(*wcs_in.all_pix2world(x0, y0, 0), 0))
        y, x = np.mgrid[:SIZE, :SIZE]
        near = np.hypot(x - true_x, y - true_y) < 9
        flux = warped.array[near].sum()
        assert flux == pytest.approx(1e4, rel=2e-3)
        assert (x[near] * warped.array[near]).sum() / flux == pytest.approx(true_x, abs=0.02)
        assert (y[near] * warped.array[near]).sum() / flux == pytest.approx(true_y, abs=0.02)


def test_the_coarse_grid_is_as_good_as_the_wcs():
    wcs_in = INPUTS["distorted"]
    pixel_map = map_pixels(wcs_in, OUTPUT, WHOLE)
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    true_x, true_y = wcs_in.all_world2pix(*OUTPUT.all_pix2world(x.ravel(), y.ravel(), 0), 0)
    assert np.abs(pixel_map.x.ravel() - true_x).max() < 1e-3
    assert np.abs(pixel_map.y.ravel() - true_y).max() < 1e-3


def test_fluxes_measured_on_warped_white_noise_scatter_as_the_variance_says():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 7.0, (SIZE, SIZE))
    wcs_in = INPUTS["rotated"]
    warped = warp(noise, np.full(noise.shape, 49.0), np.zeros(noise.shape, bool), wcs_in, OUTPUT, WHOLE)
    y, x = np.mgrid[-8:9, -8:9]
    profile = np.exp(-0.5 * (x**2 + y**2) / SIGMA**2)
    pulls = []
    for row in range(20, SIZE - 20, 6):
        for column in range(20, SIZE - 20, 6):
            cut = np.s_[row - 8 : row + 9, column - 8 : column + 9]
            weight = profile / warped.variance[cut]
            pulls.append((weight * warped.array[cut]).sum() / np.sqrt((weight**2 * warped.variance[cut]).sum()))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1)


def test_a_bad_pixel_is_masked_and_its_value_reaches_nothing():
    image = np.full((SIZE, SIZE), 10.0)
    bad = np.zeros(image.shape, bool)
    bad[70, 80] = True
    image[70, 80] = 1e6
    warped = warp(image, np.ones_like(image), bad, INPUTS["shifted"], OUTPUT, WHOLE)
    assert 4 <= (warped.bad[60:80, 70:90]).sum() <= 9
    assert np.abs(warped.array[5:-5, 5:-5] - 10.0).max() < 0.01


def test_pixels_outside_of_the_input_are_bad_and_finite():
    image = np.ones((SIZE, SIZE))
    warped = warp(image, image, np.zeros(image.shape, bool), OUTPUT, OUTPUT, (-20, 0, SIZE, SIZE))
    assert warped.bad[:, :20].all()
    assert not warped.bad[5:-5, 25:-5].any()
    assert np.isfinite(warped.array).all()
    assert np.isfinite(warped.variance).all()


def test_a_cut_out_of_the_input_gives_the_same_pixels_as_the_whole():
    image = gaussians([(70.2, 64.4)])
    good = np.zeros(image.shape, bool)
    box = (60, 60, 80, 80)
    wcs_in = INPUTS["shifted"]
    whole = warp(image, image + 1, good, wcs_in, OUTPUT, box)
    cut = np.s_[50:100, 40:100]
    part = warp(image[cut], image[cut] + 1, good[cut], wcs_in, OUTPUT, box, start_xy=(40, 50))
    np.testing.assert_allclose(part.array, whole.array, rtol=1e-4, atol=1e-2)


def test_the_footprint_box_holds_every_pixel_that_the_warp_fills():
    wcs_in = INPUTS["rotated"]
    outer = Box(-60, -60, SIZE + 60, SIZE + 60)
    inside = lanczos(np.ones((SIZE, SIZE)), map_pixels(wcs_in, OUTPUT, outer))[1]
    rows, columns = np.nonzero(inside)
    box = footprint_box(wcs_in, (SIZE, SIZE), OUTPUT, margin=0)
    assert box.x_start - outer.x_start <= columns.min()
    assert columns.max() < box.x_stop - outer.x_start
    assert box.y_start - outer.y_start <= rows.min()
    assert rows.max() < box.y_stop - outer.y_start


def test_a_plane_is_carried_to_where_its_pixel_went():
    plane = np.zeros((SIZE, SIZE), bool)
    plane[100, 40] = True
    pixel_map = map_pixels(INPUTS["shifted"], OUTPUT, WHOLE)
    rows, columns = np.nonzero(touched(plane, pixel_map))
    true_x, true_y = OUTPUT.all_world2pix(*INPUTS["shifted"].all_pix2world(40, 100, 0), 0)
    assert len(rows) == 4
    assert np.mean(columns) == pytest.approx(float(true_x), abs=0.6)
    assert np.mean(rows) == pytest.approx(float(true_y), abs=0.6)
