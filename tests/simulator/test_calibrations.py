"""Calibrations recover what the detectors truly are."""

from dataclasses import replace

import numpy as np
import pytest

from drp_tasks.camera import GAIN
from simulator.calibrations import DetectorCalibrations, calibrate_detector, normalise_flats
from simulator.detector import camera_sensitivity, detector_truth
from simulator.survey import CI

SURVEY = replace(CI, name="calibrated", detector_px=256, detector_ids=(0, 4), bands=("g",))


@pytest.fixture(scope="module")
def calibrations():
    return {detector.id: calibrate_detector(SURVEY, detector.id) for detector in SURVEY.detectors}


@pytest.fixture(scope="module")
def flats(calibrations):
    return normalise_flats(calibrations)


def test_the_bias_is_the_detectors_pattern(calibrations):
    difference = calibrations[0].bias_adu - detector_truth(SURVEY, 0).bias_adu
    assert np.mean(difference) == pytest.approx(0.0, abs=0.3)
    assert np.std(difference) < 4.0


def test_the_dark_is_the_detectors_current_in_adu_a_second(calibrations):
    truth = detector_truth(SURVEY, 0)
    cold = truth.dark_electron_s < 1
    assert calibrations[0].dark_adu_s[cold].mean() * GAIN == pytest.approx(0.03, abs=0.01)
    assert calibrations[0].dark_adu_s[~cold] * GAIN == pytest.approx(truth.dark_electron_s[~cold], rel=0.05)


def test_flats_are_the_sensitivity_relative_to_the_camera(flats):
    for detector in SURVEY.detectors:
        ratio = flats[detector.id]["g_6"] * camera_sensitivity(SURVEY) / detector_truth(SURVEY, detector.id).sensitivity
        assert np.median(ratio) == pytest.approx(1.0, abs=1e-3)
        assert np.std(ratio) < 0.01


def test_one_scale_holds_for_all_detectors(flats):
    assert np.median([np.median(flats[number]["g_6"]) for number in flats]) == pytest.approx(1.0, abs=1e-6)
    assert np.median(flats[0]["g_6"]) < np.median(flats[4]["g_6"])


def test_defects_are_the_bad_column_and_the_hot_pixels(calibrations, flats):
    truth = detector_truth(SURVEY, 0)
    expected = (truth.sensitivity < 0.5) | (truth.dark_electron_s > 1)
    defects = calibrations[0].defects(flats[0])
    assert defects.dtype == np.uint8
    np.testing.assert_array_equal(defects.astype(bool), expected)


def test_calibrations_survive_a_file(calibrations, tmp_path):
    calibrations[0].save(tmp_path / "0.npz")
    read = DetectorCalibrations.load(tmp_path / "0.npz")
    np.testing.assert_array_equal(read.flat_adu["g_6"], calibrations[0].flat_adu["g_6"])
    np.testing.assert_array_equal(read.bias_adu, calibrations[0].bias_adu)
    np.testing.assert_array_equal(read.dark_adu_s, calibrations[0].dark_adu_s)
