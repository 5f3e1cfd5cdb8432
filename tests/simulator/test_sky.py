"""The sky: stars on the locus, counts that grow, transients in one epoch."""

import numpy as np
import pytest

from simulator.sky import LOCUS_OFFSET_MAG, LOCUS_SLOPE, LOCUS_WIDTH_MAG, field_to_sky, make_sky, make_transients
from simulator.survey import ACCEPTANCE, DEMO


@pytest.fixture(scope="module")
def sky():
    return make_sky(DEMO)


def test_stars_lie_on_the_stellar_locus_with_its_width(sky):
    g, r, i = (sky.mag[band][sky.is_star] for band in "gri")
    distance = ((r - i) - LOCUS_SLOPE * (g - r) - LOCUS_OFFSET_MAG) / np.hypot(1, LOCUS_SLOPE)
    assert np.median(distance) == pytest.approx(0.0, abs=0.002)
    assert np.std(distance) == pytest.approx(LOCUS_WIDTH_MAG, rel=0.1)


def test_galaxies_do_not(sky):
    g, r, i = (sky.mag[band][~sky.is_star] for band in "gri")
    assert np.std((r - i) - LOCUS_SLOPE * (g - r)) > 5 * LOCUS_WIDTH_MAG


def test_densities_are_those_of_the_configuration(sky):
    area = np.ptp(sky.x_arcsec) * np.ptp(sky.y_arcsec) / 3600
    assert sky.is_star.sum() / area == pytest.approx(DEMO.stars_per_arcmin2, rel=0.02)
    assert (~sky.is_star).sum() / area == pytest.approx(DEMO.galaxies_per_arcmin2, rel=0.02)


def test_galaxies_are_the_more_the_fainter(sky):
    r = sky.mag["r"][~sky.is_star]
    assert (r > 24.5).sum() > 1.5 * ((r > 23.5) & (r < 24.5)).sum()


def test_only_galaxies_have_a_size(sky):
    assert (sky.half_light_radius_arcsec[sky.is_star] == 0).all()
    assert (sky.half_light_radius_arcsec[~sky.is_star] > 0).all()


def test_sky_coordinates_are_those_of_the_tract(sky):
    x, y = DEMO.skymap.wcs().world_to_pixel_values(sky.ra_deg, sky.dec_deg)
    centre = DEMO.tract_px / 2 - 0.5
    np.testing.assert_allclose((x - centre) * 0.2, sky.x_arcsec, atol=1e-6)
    np.testing.assert_allclose((y - centre) * 0.2, sky.y_arcsec, atol=1e-6)
    assert field_to_sky(DEMO, 0.0, 0.0) == pytest.approx(DEMO.field_centre_deg)


def test_red_stars_are_red_in_all_bands():
    mag = make_sky(ACCEPTANCE).mag
    star = make_sky(ACCEPTANCE).is_star
    red = mag["g"] - mag["r"] > 1.0
    for blue_band, red_band in ("ug", "iz", "zy"):
        colour = mag[blue_band] - mag[red_band]
        assert np.median(colour[star & red]) > np.median(colour[star & ~red])


def test_transients_shine_in_one_epoch_of_the_survey():
    transients = make_transients(DEMO)
    assert len(transients) == DEMO.transients
    assert set(transients.epoch) <= set(range(DEMO.epochs))
    assert np.abs(transients.x_arcsec).max() < DEMO.tract_px * 0.1
