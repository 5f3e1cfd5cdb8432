"""Blends: no light is lost, and each child gets its own."""

import numpy as np
import pytest

from drp_tasks.deblending import Blend, child_profiles, deblend, divide, fit_models, place_stamp

SHAPE = (48, 60)
SIGMA = 1.9
NOISE = 1.0


def gaussian(x0, y0, flux, sigma=SIGMA, shape=SHAPE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2)


def psf_stamps(places):
    return np.stack([gaussian(12 + x - round(x), 12 + y - round(y), 1.0, shape=(25, 25)) for x, y in places])


def pixels_of(places):
    return np.array([round(x) for x, _ in places]), np.array([round(y) for _, y in places])


def blend_of(image, noise=NOISE):
    truth = image.copy()
    image = image + np.random.default_rng(8).normal(0, noise, SHAPE)
    return Blend(
        image.astype(np.float32),
        np.full(SHAPE, noise**2, np.float32),
        truth > 0.01 * noise,
        np.ones(SHAPE, bool),
    )


@pytest.mark.parametrize("separation", [5.0, 7.0, 10.0])
def test_two_overlapping_stars_get_their_own_flux(separation):
    places = [(24.3, 23.8), (24.3 + separation, 24.1)]
    fluxes = (3000.0, 1000.0)
    truth = [gaussian(x, y, flux) for (x, y), flux in zip(places, fluxes, strict=True)]
    blend = blend_of(sum(truth))
    shares = deblend(blend, psf_stamps(places), *pixels_of(places))
    for share, own, flux in zip(shares, truth, fluxes, strict=True):
        profile = own / own.sum()
        measured = (profile * share * blend.footprint).sum() / (profile**2).sum()
        assert measured == pytest.approx(flux, abs=0.02 * flux + 4 * NOISE / np.sqrt((profile**2).sum()))


def test_the_shares_add_up_to_the_image():
    places = [(22.0, 20.0), (28.0, 25.0), (35.5, 22.2)]
    blend = blend_of(sum(gaussian(x, y, 2000.0) for x, y in places))
    shares = deblend(blend, psf_stamps(places), *pixels_of(places))
    np.testing.assert_allclose(shares.sum(axis=0)[blend.footprint], blend.image[blend.footprint], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(shares[0][~blend.footprint], blend.image[~blend.footprint])


def test_a_galaxy_keeps_its_wings_beside_a_star():
    places = [(22.0, 24.0), (33.0, 24.0)]
    galaxy, star = gaussian(22.0, 24.0, 6000.0, sigma=3.5), gaussian(33.0, 24.0, 1500.0)
    blend = blend_of(galaxy + star)
    shares = deblend(blend, psf_stamps(places), *pixels_of(places))
    assert shares[0][blend.footprint].sum() == pytest.approx(6000.0, rel=0.05)
    assert shares[1][blend.footprint].sum() == pytest.approx(1500.0, rel=0.12)


def test_unusable_pixels_do_not_draw_the_models():
    places = [(22.0, 24.0), (32.0, 24.0)]
    image = gaussian(22.0, 24.0, 2000.0) + gaussian(32.0, 24.0, 2000.0)
    blend = blend_of(image)
    spoilt = blend.image.copy()
    spoilt[20:28, 20:24] += 500.0
    usable = np.ones(SHAPE, bool)
    usable[20:28, 20:24] = False
    profiles = child_profiles(psf_stamps(places), *pixels_of(places), SHAPE)
    clean = fit_models(blend, profiles)
    masked = fit_models(Blend(spoilt, blend.variance, blend.footprint, usable), profiles)
    np.testing.assert_allclose(masked[1].sum(), clean[1].sum(), rtol=0.03)


def test_pixels_beyond_every_model_are_shared_evenly():
    blend = Blend(*(np.full(SHAPE, v, np.float32) for v in (8.0, 1.0)), np.ones(SHAPE, bool), np.ones(SHAPE, bool))
    np.testing.assert_allclose(divide(blend, np.zeros((2, *SHAPE))), 4.0)


def test_a_stamp_is_cut_at_the_edge():
    stamp = np.arange(25.0).reshape(5, 5)
    assert place_stamp(stamp, 0, 0, (4, 4))[0, 0] == stamp[2, 2]
    assert place_stamp(stamp, 3, 1, (4, 4))[1, 3] == stamp[2, 2]
    assert not place_stamp(stamp, 40, 40, (4, 4)).any()
