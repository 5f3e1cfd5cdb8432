"""Photometry: fluxes without bias, honest errors, positions to milli-pixels, zero points that outliers don't move."""

from dataclasses import replace

import numpy as np
import pytest

from drp_tasks.photometry import aperture_photometry, fit_zero_point, psf_photometry
from drp_tasks.psf import PolynomialPsf, fit_psf
from tests.drp_tasks.star_fields import StarField, star_field


@pytest.fixture(scope="module")
def psf() -> PolynomialPsf:
    """As good as a PSF gets: from bright stars without noise."""
    field = star_field(seed=10, noise=False, flux_range=(1e5, 3e5))
    return fit_psf(field.image, field.variance, field.bad, field.x, field.y)[0]


@pytest.fixture(scope="module")
def light_in_stamp() -> float:
    """Part of a star's light that falls on a PSF's stamp: the scale of PSF fluxes."""
    field = star_field(seed=10, noise=False, flux_range=(1e5, 3e5))
    boxes = [field.image[round(y) - 12 : round(y) + 13, round(x) - 12 : round(x) + 13] for x, y in positions(field)]
    return float(np.median([box.sum() for box in boxes] / field.flux))


def positions(field: StarField) -> list[tuple[float, float]]:
    return list(zip(field.x, field.y, strict=True))


def test_bright_fluxes_are_right_to_a_milli_magnitude(psf, light_in_stamp):
    field = star_field(seed=12, noise=False, flux_range=(3e4, 3e5))
    found = psf_photometry(field.image, field.variance, field.bad, psf, field.x + 0.3, field.y - 0.2)
    ratio = found.flux / field.flux / light_in_stamp
    assert np.median(ratio) == pytest.approx(1.0, abs=1e-3)
    assert ratio.std() < 1e-3


def test_the_brightness_of_a_star_does_not_bias_its_flux_even_with_a_wrong_psf(psf):
    field = star_field(seed=13, noise=False, flux_range=(1e3, 1e6))
    wrong = replace(psf, coefficients=psf.coefficients * (1 + 0.2 * (psf.coefficients > 0.01)))
    found = psf_photometry(field.image, field.variance, field.bad, wrong, field.x, field.y)
    ratio = found.flux / field.flux
    bright = field.flux > np.median(field.flux)
    assert np.median(ratio[bright]) == pytest.approx(np.median(ratio[~bright]), rel=2e-3)


def test_pulls_of_faint_stars_have_zero_mean_and_unit_width(psf, light_in_stamp):
    pulls = []
    for seed in (20, 21, 22):
        field = star_field(seed=seed, n_side=7, flux_range=(1e3, 5e3))
        found = psf_photometry(field.image, field.variance, field.bad, psf, field.x, field.y, recenter=False)
        pulls.append((found.flux / light_in_stamp - field.flux) / found.flux_err)
    pull = np.concatenate(pulls)
    assert pull.mean() == pytest.approx(0.0, abs=3 / np.sqrt(len(pull)))
    assert pull.std() == pytest.approx(1.0, abs=0.2)


def test_positions_are_found_from_half_a_pixel_away_with_honest_errors(psf):
    field = star_field(seed=14, flux_range=(2e4, 3e5))
    found = psf_photometry(field.image, field.variance, field.bad, psf, field.x + 0.4, field.y - 0.5)
    pull = np.concatenate([(found.x - field.x) / found.x_err, (found.y - field.y) / found.y_err])
    assert abs(pull.mean()) < 0.5
    assert 0.7 < pull.std() < 1.4


def test_bad_pixels_change_the_error_and_not_the_flux(psf):
    field = star_field(seed=15, noise=False, flux_range=(1e5, 3e5))
    spoiled, bad = field.image.copy(), field.bad.copy()
    for x, y in positions(field):
        spoiled[round(y), round(x) + 2] = 6e4
        bad[round(y), round(x) + 2] = True
    whole = psf_photometry(field.image, field.variance, field.bad, psf, field.x, field.y)
    part = psf_photometry(spoiled, field.variance, bad, psf, field.x, field.y)
    assert np.allclose(part.flux, whole.flux, rtol=2e-3)
    assert (part.flux_err > whole.flux_err).all()
    assert ((part.usable > 0.8) & (part.usable < 1)).all()


def test_a_source_without_enough_good_pixels_is_not_measured(psf):
    field = star_field(seed=16)
    bad = field.bad.copy()
    bad[:, : round(field.x[0]) + 1] = True
    found = psf_photometry(field.image, field.variance, bad, psf, field.x[:1], field.y[:1])
    assert np.isnan(found.flux[0])
    assert found.usable[0] < 0.5


def test_places_off_the_image_or_nowhere_give_nan(psf):
    field = star_field(seed=16)
    x, y = np.array([-40.0, np.nan, field.x[3]]), np.array([50.0, 50.0, field.y[3]])
    found = psf_photometry(field.image, field.variance, field.bad, psf, x, y)
    assert np.isnan(found.flux[:2]).all()
    assert np.isfinite(found.flux[2])


def test_no_places_give_no_fluxes(psf):
    field = star_field(seed=16)
    found = psf_photometry(field.image, field.variance, field.bad, psf, np.zeros(0), np.zeros(0))
    assert found.flux.shape == (0,)


def test_a_fit_that_walks_away_keeps_its_place(psf):
    empty = np.random.default_rng(0).normal(0, 28, (320, 320)).astype(np.float32)
    x, y = np.full(50, 100.0), np.linspace(40, 280, 50)
    found = psf_photometry(empty, np.full_like(empty, 784), np.zeros(empty.shape, bool), psf, x, y)
    assert (np.hypot(found.x - x, found.y - y) < 2.5).all()
    assert np.isfinite(found.flux).all()


def test_absolute_coordinates_only_move_the_frame(psf):
    field = star_field(seed=17)
    moved_psf = PolynomialPsf(
        psf.coefficients, psf.order, (psf.centre_xy[0] + 500, psf.centre_xy[1] - 30), psf.scale, 9
    )
    here = psf_photometry(field.image, field.variance, field.bad, psf, field.x, field.y)
    there = psf_photometry(
        field.image, field.variance, field.bad, moved_psf, field.x + 500, field.y - 30, start_xy=(500, -30)
    )
    assert np.allclose(there.flux, here.flux, rtol=1e-9)
    assert np.allclose(there.x, here.x + 500)
    disc = aperture_photometry(
        field.image, field.variance, field.bad, field.x + 500, field.y - 30, 9.0, start_xy=(500, -30)
    )
    assert np.allclose(
        disc.flux, aperture_photometry(field.image, field.variance, field.bad, field.x, field.y, 9.0).flux
    )


def test_an_aperture_holds_the_light_inside_it_and_half_of_that_inside_half_light_radius():
    field = star_field(seed=18, noise=False, flux_range=(1e5, 3e5))
    found = aperture_photometry(field.image, field.variance, field.bad, field.x, field.y, 9.0)
    # 1 - (1 + (r / alpha)²)^(1 - beta) of a Moffat profile of beta 3.2 and a width of 4 pixels.
    assert np.median(found.flux / field.flux) == pytest.approx(0.981, abs=0.003)
    assert np.median(found.half_light_radius) == pytest.approx(2.4, abs=0.1)


def test_an_aperture_nowhere_gives_nan():
    field = star_field(seed=18)
    assert np.isnan(aperture_photometry(field.image, field.variance, field.bad, [np.nan], [3.0], 9.0).flux).all()


class TestZeroPoint:
    def test_it_is_the_magnitude_of_one_unit_of_flux(self):
        flux = np.array([1e3, 1e4, 1e5])
        found = fit_zero_point(flux, 0.001 * flux, 31.0 - 2.5 * np.log10(flux), np.full(3, 0.01))
        assert found.value == pytest.approx(31.0)
        assert found.used.all()

    def test_outliers_and_negative_fluxes_have_no_part(self):
        rng = np.random.default_rng(0)
        flux = 10 ** rng.uniform(4, 5, 30)
        magnitude = 31.0 - 2.5 * np.log10(flux) + rng.normal(0, 0.01, 30)
        magnitude[:4] += 0.5
        flux[4] = -flux[4]
        magnitude[5] = np.nan
        found = fit_zero_point(flux, 0.002 * np.abs(flux), magnitude, np.full(30, 0.01))
        assert found.value == pytest.approx(31.0, abs=0.008)
        assert not found.used[:6].any()
        assert found.error == pytest.approx(0.0115 / np.sqrt(24), rel=0.15)

    def test_without_any_star_there_is_none(self):
        with pytest.raises(ValueError, match="no star"):
            fit_zero_point(np.array([-1.0]), np.array([1.0]), np.array([20.0]), np.array([0.01]))
