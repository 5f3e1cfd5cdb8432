"""Moments: the same definition for stars and PSFs, in galsim's terms."""

import galsim
import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.moments import add_moments, half_maximum_width, psf_moments, stamp_moments, star_moments
from drp_tasks.psf import fit_psf
from tests.drp_tasks.star_fields import star_field


def gaussian(sigma: float, shear: float = 0.0) -> np.ndarray:
    stamp = galsim.ImageD(31, 31)
    galsim.Gaussian(sigma=sigma).shear(g1=shear, g2=0).drawImage(stamp, scale=1.0, method="no_pixel")
    return stamp.array


def test_a_gaussian_has_its_sigma_and_its_distortion():
    found = stamp_moments(np.array([gaussian(2.0), gaussian(2.0, shear=0.1)]))
    assert found.size == pytest.approx([2.0, 2.0], rel=1e-3)
    assert found.e1 == pytest.approx([0.0, 2 * 0.1 / (1 + 0.1**2)], abs=1e-3)
    assert found.e2 == pytest.approx([0.0, 0.0], abs=1e-3)


def test_what_has_no_moments_is_nan():
    assert np.isnan(stamp_moments(np.zeros((1, 31, 31))).size[0])


def test_the_width_at_half_maximum_is_that_of_the_profile():
    assert half_maximum_width(gaussian(2.0)) == pytest.approx(2.0 * 2.3548, rel=0.01)


def test_stars_and_their_psf_agree_where_they_are_measured_and_hold_nan_elsewhere():
    field = star_field(seed=30, flux_range=(1e5, 3e5))
    psf, used = fit_psf(field.image, field.variance, field.bad, field.x, field.y)
    stars = Table({"x": field.x, "y": field.y})
    add_moments(stars, field.image, psf, used)
    assert np.median(stars["starSize"][used] / stars["psfSize"][used]) == pytest.approx(1.0, abs=0.002)
    assert np.std(stars["starE1"][used] - stars["psfE1"][used]) < 0.02
    assert str(stars["starSize"].unit) == "pix"
    unmeasured = Table({"x": field.x, "y": field.y})
    add_moments(unmeasured, field.image, psf, np.zeros(len(field.x), bool))
    assert np.isnan(unmeasured["starE2"]).all()


def test_a_star_too_near_the_edge_is_nan_and_absolute_coordinates_only_move_the_frame():
    field = star_field(seed=31)
    found = star_moments(field.image, np.array([3.0, field.x[0] + 100]), np.array([9.0, field.y[0]]), start_xy=(100, 0))
    here = star_moments(field.image, field.x[:1], field.y[:1])
    assert np.isnan(found.size[0])
    assert found.size[1] == here.size[0]


def test_the_sub_pixel_phase_of_a_psf_is_no_shape():
    field = star_field(seed=32, noise=False)
    psf, _ = fit_psf(field.image, field.variance, field.bad, field.x, field.y)
    found = psf_moments(psf, np.array([100.0, 100.5]), np.array([100.0, 100.25]))
    assert found.size[1] == pytest.approx(found.size[0], rel=2e-3)
    assert found.e1[1] == pytest.approx(found.e1[0], abs=2e-3)
