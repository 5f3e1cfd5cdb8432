"""Astrometry: the pointing error is found, and the WCS recovered to milliarcseconds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drp_tasks.astrometry import (
    AstrometryError,
    Reference,
    find_shift,
    fit_tan_sip,
    pixel_scale_mas,
    solve_astrometry,
)
from tests.drp_tasks.star_fields import bent_wcs, header_guess

SIZE = 320
GRID = np.meshgrid(np.linspace(5, SIZE - 5, 7), np.linspace(5, SIZE - 5, 7))


def sky_of(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return bent_wcs(SIZE).all_pix2world(x, y, 0)


def reference(ra: np.ndarray, dec: np.ndarray, error_mas: float = 2.0) -> Reference:
    return Reference(ra, dec, np.full(len(ra), error_mas))


def offset_mas(wcs, truth) -> np.ndarray:
    ra, dec = wcs.all_pix2world(*GRID, 0)
    true_ra, true_dec = truth.all_pix2world(*GRID, 0)
    return np.hypot((ra - true_ra) * np.cos(np.radians(true_dec)), dec - true_dec) * 3.6e6


def stars(n: int, rng: np.random.Generator, error_px: float = 0.01):
    x, y = rng.uniform(5, SIZE - 5, (2, n))
    ra, dec = sky_of(x, y)
    return x + rng.normal(0, error_px, n), y + rng.normal(0, error_px, n), ra, dec


@settings(max_examples=15, deadline=None)
@given(dx=st.floats(-10, 10), dy=st.floats(-10, 10), seed=st.integers(0, 1000))
def test_a_pointing_error_of_ten_pixels_and_strangers_in_both_lists_do_no_harm(dx, dy, seed):
    rng = np.random.default_rng(seed)
    x, y, ra, dec = stars(30, rng)
    extra_x, extra_y = rng.uniform(0, SIZE, (2, 25))
    extra_ra, extra_dec = sky_of(*rng.uniform(-60, SIZE + 60, (2, 15)))
    found = solve_astrometry(
        np.r_[x, extra_x],
        np.r_[y, extra_y],
        np.full(55, 0.01),
        reference(np.r_[ra, extra_ra], np.r_[dec, extra_dec], 0.5),
        header_guess(bent_wcs(SIZE), (dx, dy)),
        shape=(SIZE, SIZE),
    )
    assert np.median(offset_mas(found.wcs, bent_wcs(SIZE))) < 3
    right = found.star < 30
    assert np.array_equal(found.star[right], found.reference[right])
    assert right.sum() >= 25


def test_the_distortion_is_recovered_everywhere():
    x, y, ra, dec = stars(60, np.random.default_rng(1), error_px=0.005)
    found = solve_astrometry(
        x, y, np.full(60, 0.005), reference(ra, dec), header_guess(bent_wcs(SIZE), (4.0, -3.0)), shape=(SIZE, SIZE)
    )
    assert offset_mas(found.wcs, bent_wcs(SIZE)).max() < 5
    assert found.residual_mas < 3


def test_noise_of_a_few_stars_is_not_taken_for_distortion():
    x, y, ra, dec = stars(8, np.random.default_rng(2), error_px=0.02)
    found = solve_astrometry(
        x, y, np.full(8, 0.02), reference(ra, dec), header_guess(bent_wcs(SIZE), (2.0, 5.0)), shape=(SIZE, SIZE)
    )
    assert offset_mas(found.wcs, bent_wcs(SIZE)).max() < 20


def test_a_blend_is_left_out():
    x, y, ra, dec = stars(30, np.random.default_rng(3))
    x[4] += 0.4
    found = solve_astrometry(
        x, y, np.full(30, 0.01), reference(ra, dec), header_guess(bent_wcs(SIZE), (1.0, 1.0)), shape=(SIZE, SIZE)
    )
    assert 4 not in found.star
    assert len(found.star) >= 26


@pytest.mark.parametrize("n", [0, 3, 5])
def test_too_few_stars_give_no_wcs(n):
    x, y, ra, dec = stars(n, np.random.default_rng(4))
    with pytest.raises(AstrometryError, match="6 needed") as caught:
        solve_astrometry(
            x, y, np.full(n, 0.01), reference(ra, dec), header_guess(bent_wcs(SIZE), (0, 0)), shape=(SIZE, SIZE)
        )
    assert caught.value.n_matched <= n


def test_a_catalogue_of_another_place_gives_no_wcs():
    x, y, ra, dec = stars(30, np.random.default_rng(5))
    with pytest.raises(AstrometryError):
        solve_astrometry(
            x,
            y,
            np.full(30, 0.01),
            reference(ra + 1, dec),
            header_guess(bent_wcs(SIZE), (0, 0)),
            shape=(SIZE, SIZE),
        )


def test_the_shift_is_the_peak_of_all_differences():
    rng = np.random.default_rng(6)
    x, y = rng.uniform(0, 500, (2, 40))
    found = find_shift((np.r_[x, 3.0], np.r_[y, 4.0]), (x - 7.3, y + 4.6), 20.0)
    assert found == pytest.approx((7.3, -4.6), abs=0.05)


def test_exact_positions_give_the_exact_wcs_across_the_origin_of_right_ascension():
    truth = bent_wcs(SIZE)
    truth.wcs.crval = [0.001, 62.0]
    truth.wcs.set()
    x, y = (axis.ravel() for axis in GRID)
    found = fit_tan_sip(x, y, *truth.all_pix2world(x, y, 0), weight=np.ones(len(x)), centre_xy=(159.5, 159.5))
    ra, dec = found.all_pix2world(x, y, 0)
    true_ra, true_dec = truth.all_pix2world(x, y, 0)
    assert np.abs((ra - true_ra + 180) % 360 - 180).max() < 1e-9
    assert np.abs(dec - true_dec).max() < 1e-9


def test_a_linear_fit_has_no_distortion():
    x, y = (axis.ravel() for axis in GRID)
    wcs = fit_tan_sip(x, y, *sky_of(x, y), weight=np.ones(len(x)), centre_xy=(159.5, 159.5), order=1)
    assert wcs.sip is None
    assert pixel_scale_mas(wcs) == pytest.approx(200, rel=1e-3)
