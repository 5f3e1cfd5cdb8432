"""A raw holds the light that the sky sends."""

from dataclasses import replace

import numpy as np
import pytest

from drp_tasks.camera import BIAS_ADU, GAIN
from simulator.observe import SKY_ELECTRON, objects, observe, sky_background
from simulator.optics import Optics
from simulator.sky import make_sky, make_transients
from simulator.survey import CI

LONELY = replace(CI, name="lonely", detector_px=256, stars_per_arcmin2=3.0, galaxies_per_arcmin2=0.0, transients=0)
NEAR_EDGE_PX = 40


def stars_inside(survey, visit, detector):
    sky = make_sky(survey)
    x, y = Optics(survey, visit, detector).to_detector(sky.x_arcsec, sky.y_arcsec)
    inside = (np.abs(x - survey.detector_px / 2) < survey.detector_px / 2 - NEAR_EDGE_PX) & (
        np.abs(y - survey.detector_px / 2) < survey.detector_px / 2 - NEAR_EDGE_PX
    )
    return sky, x, y, inside


def test_a_stars_electrons_follow_from_its_magnitude_and_the_zero_point():
    checked = 0
    for visit in LONELY.visits:
        for detector in LONELY.detectors:
            sky, x, y, inside = stars_inside(LONELY, visit, detector.id)
            light = objects(LONELY, visit, detector.id)
            for star in np.flatnonzero(inside):
                column, row = round(x[star]), round(y[star])
                others = np.hypot(x - x[star], y - y[star])
                if np.sort(others)[1] < NEAR_EDGE_PX:
                    continue
                stamp = light[row - NEAR_EDGE_PX : row + NEAR_EDGE_PX, column - NEAR_EDGE_PX : column + NEAR_EDGE_PX]
                expected = 10 ** (-0.4 * (sky.mag[visit.band][star] - Optics(LONELY, visit, detector.id).zero_point))
                assert stamp.sum() == pytest.approx(expected, rel=0.015)
                checked += 1
    assert checked > 5


def test_images_are_centred_where_the_optics_put_them():
    visit, detector = LONELY.visits[0], LONELY.detectors[0].id
    _, x, y, inside = stars_inside(LONELY, visit, detector)
    light = objects(LONELY, visit, detector)
    for star in np.flatnonzero(inside):
        column, row = round(x[star]), round(y[star])
        stamp = light[row - 6 : row + 7, column - 6 : column + 7]
        offset = np.arange(-6, 7)
        assert (stamp.sum(0) * offset).sum() / stamp.sum() == pytest.approx(x[star] - column, abs=0.1)
        assert (stamp.sum(1) * offset).sum() / stamp.sum() == pytest.approx(y[star] - row, abs=0.1)


def test_transients_shine_in_their_epoch_alone():
    alone = replace(LONELY, stars_per_arcmin2=0.0, transients=30)
    epochs = make_transients(alone).epoch
    for visit in alone.visits:
        light = sum(objects(alone, visit, detector.id).sum() for detector in alone.detectors)
        assert (light > 100) == (visit.epoch in epochs)


def test_the_sky_is_that_of_the_visit():
    visit = CI.visits[0]
    sky = sky_background(CI, visit)
    assert sky.mean() == pytest.approx(SKY_ELECTRON["g"] * visit.sky_factor, rel=1e-3)
    assert sky[0, -1] > sky[0, 0]


def test_a_raw_is_sky_bias_and_objects(tiny):
    visit = tiny.visits[0]
    adu = observe(tiny, visit, 0)
    assert adu.shape == (tiny.detector_px, tiny.detector_px + 16)
    sky_adu = sky_background(tiny, visit).mean() / GAIN
    assert np.median(adu[:, : tiny.detector_px]) == pytest.approx(BIAS_ADU + sky_adu, rel=0.05)
    assert np.median(adu[:, tiny.detector_px :]) == pytest.approx(BIAS_ADU, abs=3)


def test_the_same_raw_has_the_same_bits(tiny):
    np.testing.assert_array_equal(observe(tiny, tiny.visits[1], 1), observe(tiny, tiny.visits[1], 1))


def test_another_detector_or_visit_has_other_noise(tiny):
    first = observe(tiny, tiny.visits[0], 0)[:, tiny.detector_px :]
    assert not np.array_equal(first, observe(tiny, tiny.visits[0], 1)[:, tiny.detector_px :])
    assert not np.array_equal(first, observe(tiny, tiny.visits[1], 0)[:, tiny.detector_px :])
