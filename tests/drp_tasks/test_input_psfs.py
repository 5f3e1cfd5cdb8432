"""The mean of the visits' PSFs: follows which visits see a place, and comes back from its table as it was."""

import astropy.units as u
import numpy as np
import pytest

from drp_tasks.images import masked_image
from drp_tasks.input_psfs import GRID_PX, InputPsf, MeanPsf, fit_input_psf, inputs_to_table
from drp_tasks.photometry import psf_photometry
from drp_tasks.psf import PolynomialPsf

SHAPE = (200, 240)
START = (1000, 600)
SIGMAS = (1.6, 2.2)
WEIGHTS = (0.6, 0.4)
EDGE_X = 1120


def gaussian(sigma, x0=12.0, y0=12.0, shape=(25, 25)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


def gaussian_psf(sigma):
    return PolynomialPsf(gaussian(sigma)[None], 0, (1100.0, 700.0), 240.0, 9)


@pytest.fixture
def mean():
    everywhere = np.ones((-(-SHAPE[0] // GRID_PX), -(-SHAPE[1] // GRID_PX)), bool)
    left = everywhere.copy()
    left[:, (EDGE_X - START[0]) // GRID_PX :] = False
    return MeanPsf.of(
        [
            InputPsf(visit, weight, gaussian_psf(sigma), coverage, START)
            for visit, weight, sigma, coverage in zip((7, 8), WEIGHTS, SIGMAS, (left, everywhere), strict=True)
        ]
    )


def test_where_all_visits_see_the_sky_the_psf_is_their_weighted_mean(mean):
    expected = sum(w * gaussian(s) for w, s in zip(WEIGHTS, SIGMAS, strict=True))
    np.testing.assert_allclose(mean.image_at(1050.0, 700.0), expected / expected.sum(), atol=1e-4)


def test_where_a_visit_does_not_see_the_sky_the_psf_is_that_of_the_others(mean):
    np.testing.assert_allclose(mean.image_at(1180.0, 700.0), gaussian(SIGMAS[1]), atol=1e-4)


def test_where_no_visit_sees_the_sky_all_count(mean):
    blind = MeanPsf.of([InputPsf(i.visit, i.weight, i.psf, i.coverage & False, i.origin_xy) for i in mean.inputs])
    np.testing.assert_allclose(blind.image_at(1180.0, 700.0), mean.image_at(1050.0, 700.0))


def test_fluxes_do_not_jump_at_the_edge_of_a_visit(mean):
    places = [(1060.4, 700.2), (1180.3, 700.6)]
    image = np.zeros(SHAPE)
    for (x, y), weights in zip(places, (WEIGHTS, (0.0, 1.0)), strict=True):
        image += sum(
            1e4 * w * gaussian(s, x - START[0], y - START[1], SHAPE) for w, s in zip(weights, SIGMAS, strict=True)
        )
    x, y = np.array(places).T
    measured = psf_photometry(image, np.ones(SHAPE), np.zeros(SHAPE, bool), mean, x, y, start_xy=START)
    np.testing.assert_allclose(measured.flux, 1e4, rtol=2e-3)


def test_the_table_gives_back_the_same_psf(mean):
    again = MeanPsf.from_input_table(inputs_to_table(mean.inputs))
    x, y = np.array([1050.3, 1117.0, 1180.2]), np.array([610.0, 700.0, 790.7])
    for was, now in zip(mean.stamps_and_slopes_at(x, y), again.stamps_and_slopes_at(x, y), strict=True):
        np.testing.assert_array_equal(was, now)
    assert [one.visit for one in again.inputs] == [7, 8]


def warp_of(stars, sigma):
    image = np.random.default_rng(5).normal(0, 0.5, SHAPE)
    for x, y in stars:
        image += 2e4 * gaussian(sigma, x - START[0], y - START[1], SHAPE)
    no_data = np.zeros(SHAPE, bool)
    no_data[:, :20] = True
    return masked_image(
        image, np.full(SHAPE, 0.25), {"NO_DATA": no_data}, unit=u.nJy, start_xy=START, metadata={"visit": 55}
    )


def fit(stars, seen):
    x, y = np.array(stars).T
    return fit_input_psf(warp_of(seen, 1.8), 0.3, x, y, half=12, max_order=2, otherwise=gaussian_psf(SIGMAS[0]))


def test_a_visits_psf_is_fitted_to_its_own_warp():
    stars = [(1050.0 + 36 * i + 0.3 * j, 640.0 + 40 * j) for i in range(5) for j in range(3)]
    part = fit(stars, stars)
    assert part.visit == 55
    assert np.abs(part.psf.image_at(1100.0, 700.0) - gaussian(1.8)).max() < 0.02 * gaussian(1.8).max()
    assert list(part.covers(np.array([1005.0, 1100.0]), np.array([700.0, 700.0]))) == [False, True]


def test_a_visit_that_shows_too_few_stars_borrows_the_coadds_psf():
    stars = [(1100.0, 700.0), (1150.0, 650.0)]
    np.testing.assert_allclose(fit(stars, stars).psf.image_at(1100.0, 700.0), gaussian(SIGMAS[0]), atol=1e-4)
