"""What a detector does to light."""

import numpy as np
import pytest

from drp_tasks.camera import BIAS_ADU, GAIN, READ_NOISE_ELECTRON
from simulator.detector import (
    DetectorTruth,
    add_cosmic_rays,
    bleed,
    camera_sensitivity,
    detector_truth,
    expose,
    read_out,
)
from simulator.survey import CI

PERFECT = DetectorTruth(np.zeros((200, 200)), np.full((200, 200), 0.5), np.ones((200, 200)))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_bleeding_conserves_charge_and_leaves_nothing_above_the_full_well():
    electrons = np.full((101, 3), 10.0)
    electrons[50, 1] = 1000.0
    bleed(electrons, full_well=100.0)
    assert electrons.sum() == 303 * 10.0 + 990.0
    assert electrons.max() == 100.0
    assert (electrons[:, [0, 2]] == 10.0).all()


def test_charge_bleeds_along_the_column_on_both_sides_of_its_source():
    electrons = np.zeros((101, 1))
    electrons[50] = 500.0
    bleed(electrons, full_well=100.0)
    assert list(np.flatnonzero(electrons[:, 0])) == [48, 49, 50, 51, 52]


def test_two_sources_in_a_column_bleed_each_by_itself():
    electrons = np.zeros((101, 1))
    electrons[[20, 80]] = 300.0
    bleed(electrons, full_well=100.0)
    assert list(np.flatnonzero(electrons[:, 0])) == [19, 20, 21, 79, 80, 81]


def test_charge_that_reaches_both_edges_is_lost():
    electrons = np.zeros((5, 1))
    electrons[2] = 1000.0
    bleed(electrons, full_well=100.0)
    np.testing.assert_array_equal(electrons, 100.0)


def test_an_exposure_has_photon_noise_and_dark_current(rng):
    electrons = expose(np.full((200, 200), 400.0), 10.0, PERFECT, rng)
    assert electrons.mean() == pytest.approx(405.0, abs=0.5)
    assert electrons.var() == pytest.approx(405.0, rel=0.05)


def test_reading_out_adds_bias_noise_and_overscan(rng):
    adu = read_out(np.full((200, 200), 1600.0), PERFECT, rng)
    assert adu.shape == (200, 216)
    assert adu.dtype == np.uint16
    assert adu[:, :200].mean() == pytest.approx(1600 / GAIN + BIAS_ADU, abs=0.2)
    assert adu[:, 200:].std() * GAIN == pytest.approx(READ_NOISE_ELECTRON, rel=0.05)


def test_numbers_stop_at_sixteen_bits(rng):
    assert read_out(np.full((200, 200), 1e9), PERFECT, rng)[:, :200].min() == 65535


def test_cosmic_rays_are_few_bright_tracks(rng):
    electrons = np.zeros((1024, 1024))
    add_cosmic_rays(electrons, rng)
    hit = electrons > 0
    assert 50 < hit.sum() < 1000
    assert electrons[hit].min() >= 400


def test_detectors_differ_and_stay_as_they_are():
    first, second = detector_truth(CI, 0), detector_truth(CI, 1)
    assert not np.array_equal(first.sensitivity, second.sensitivity)
    detector_truth.cache_clear()
    np.testing.assert_array_equal(detector_truth(CI, 0).sensitivity, first.sensitivity)


def test_each_detector_has_a_bad_column_and_hot_pixels():
    truth = detector_truth(CI, 0)
    assert ((truth.sensitivity < 0.5).all(axis=0)).sum() == 1
    assert 0 < (truth.dark_electron_s > 1).sum() < 50


def test_the_cameras_sensitivity_is_that_of_a_typical_pixel():
    assert camera_sensitivity(CI) == pytest.approx(0.98, abs=0.02)
