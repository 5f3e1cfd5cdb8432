"""The PSF: it recovers sizes, shapes and their change over the image, whatever lies beside its stars."""

import galsim
import numpy as np
import pytest

from drp_tasks.moments import stamp_moments
from drp_tasks.psf import PolynomialPsf, TooFewStarsError, fit_psf
from tests.drp_tasks.star_fields import SKY, StarField, draw_stars, psf_at, star_field

SIZE = 320


@pytest.fixture(scope="module")
def field() -> StarField:
    return star_field(seed=3)


@pytest.fixture(scope="module")
def psf(field) -> PolynomialPsf:
    return fit_psf(field.image, field.variance, field.bad, field.x, field.y)[0]


def true_image(x: float, y: float, side: int = 25) -> np.ndarray:
    stamp = galsim.ImageD(side, side)
    psf_at(x, y, SIZE).drawImage(stamp, scale=1.0, method="no_pixel")
    return stamp.array


@pytest.mark.parametrize(("x", "y"), [(160, 160), (30, 290), (290, 40)])
def test_size_and_shape_are_those_of_the_sky_anywhere(x, y):
    bright = star_field(seed=6, flux_range=(1e5, 1e6))
    psf, _ = fit_psf(bright.image, bright.variance, bright.bad, bright.x, bright.y)
    found = stamp_moments(psf.image_at(x, y)[None])
    truth = stamp_moments(true_image(x, y)[None])
    assert found.size[0] == pytest.approx(truth.size[0], rel=0.005)
    assert found.e1[0] == pytest.approx(truth.e1[0], abs=0.006)
    assert found.e2[0] == pytest.approx(truth.e2[0], abs=0.006)


def test_the_part_of_the_light_inside_a_radius_is_right_to_half_a_percent(psf):
    offsets = np.arange(-12, 13)
    disc = np.hypot(offsets[:, None], offsets) < 6
    truth = true_image(160, 160)
    assert psf.image_at(160, 160)[disc].sum() == pytest.approx(truth[disc].sum() / truth.sum(), abs=0.005)


def test_faint_neighbours_do_not_tilt_the_fluxes(field):
    rng = np.random.default_rng(8)
    angle = rng.uniform(0, 2 * np.pi, len(field.x))
    # Neighbours on one side of the image only, below what a detection of single pixels sees.
    flux = np.where(field.x > SIZE / 2, 4e3, 0)
    beside = draw_stars(field.x + 13 * np.cos(angle), field.y + 13 * np.sin(angle), flux, SIZE).astype(np.float32)
    crowded, _ = fit_psf(field.image + beside, field.variance, field.bad, field.x, field.y)
    peaks = np.array([crowded.image_at(x, 160).max() / true_image(x, 160).max() for x in (60, 260)])
    assert peaks[1] / peaks[0] == pytest.approx(1.0, abs=0.015)


def test_a_star_with_a_bad_column_through_its_wings_still_counts(field, psf):
    bad = field.bad.copy()
    spoiled = field.image.copy()
    for x in field.x:
        bad[:, round(x) + 6] = True
        spoiled[:, round(x) + 6] = 1e5
    repaired, used = fit_psf(spoiled, field.variance, bad, field.x, field.y)
    assert used.sum() > 25
    assert np.abs(repaired.image_at(160, 160) - psf.image_at(160, 160)).max() < 0.02 * psf.image_at(160, 160).max()


def test_what_is_no_star_is_rejected(field):
    image = field.image.copy()
    galaxy = galsim.Exponential(half_light_radius=4.0) * 2e5
    stamp = galsim.ImageD(61, 61)
    galaxy.drawImage(stamp, scale=1.0, method="no_pixel")
    image[100:161, 100:161] += stamp.array.astype(np.float32)
    _, used = fit_psf(image, field.variance, field.bad, np.r_[field.x, 130.0], np.r_[field.y, 130.0])
    assert not used[-1]
    assert used[:-1].sum() > 25


def test_stamps_are_the_psf_at_a_sub_pixel_phase():
    psf, _ = fit_psf(*noiseless())
    stamp = galsim.ImageD(25, 25)
    psf_at(150.3, 170.4, SIZE).drawImage(stamp, scale=1.0, offset=(0.3, 0.4), method="no_pixel")
    found = psf.stamps_at(np.array([150.3]), np.array([170.4]))[0]
    assert np.abs(found - stamp.array / stamp.array.sum()).max() < 0.004 * stamp.array.max()


def test_slopes_are_the_derivatives_of_stamps_by_the_position(psf):
    x, y, step = np.array([150.3]), np.array([170.4]), 1e-4
    _, by_x, by_y = psf.stamps_and_slopes_at(x, y)
    for slope, move in ((by_x, (step, 0.0)), (by_y, (0.0, step))):
        after, before = (psf.stamps_at(x + sign * move[0], y + sign * move[1]) for sign in (1, -1))
        assert np.allclose(slope, (after - before) / (2 * step), atol=2e-5)


def test_absolute_coordinates_only_move_the_frame(field, psf):
    moved, _ = fit_psf(field.image, field.variance, field.bad, field.x + 1000, field.y - 50, start_xy=(1000, -50))
    assert np.allclose(moved.image_at(1100, 20), psf.image_at(100, 70), atol=1e-12)


@pytest.mark.parametrize(("n_stars", "order"), [(5, 0), (12, 1), (36, 2)])
def test_few_stars_give_a_low_order(field, n_stars, order):
    psf, used = fit_psf(field.image, field.variance, field.bad, field.x[:n_stars], field.y[:n_stars])
    assert psf.order == order
    assert psf.n_stars == used.sum()


def test_too_few_stars_give_no_psf(field):
    with pytest.raises(TooFewStarsError, match="3 usable stars") as caught:
        fit_psf(field.image, field.variance, field.bad, field.x[:3], field.y[:3])
    assert caught.value.n_stars == 3


def test_no_stars_give_no_psf(field):
    with pytest.raises(TooFewStarsError):
        fit_psf(field.image, field.variance, field.bad, field.x[:0], field.y[:0])


def test_a_psf_is_the_same_after_its_table(psf):
    back = PolynomialPsf.from_table(psf.to_table())
    assert np.allclose(back.image_at(20, 30), psf.image_at(20, 30), rtol=1e-12)
    assert (back.order, back.n_stars, back.centre_xy, back.scale) == (psf.order, psf.n_stars, psf.centre_xy, psf.scale)


def noiseless() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    field = star_field(seed=4, noise=False, flux_range=(1e5, 3e5))
    return field.image, np.full_like(field.variance, SKY), field.bad, field.x, field.y
