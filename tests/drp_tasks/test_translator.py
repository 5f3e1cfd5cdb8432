"""SimCam's headers mean what LSSTCam's do."""

import astropy.units as u
import pytest
from astro_metadata_translator import ObservationInfo

from drp_tasks.camera import DETECTORS
from simulator.header import raw_header
from simulator.survey import CI


@pytest.fixture
def header():
    return raw_header(CI, CI.visits[0], detector_id=3)


@pytest.fixture
def info(header):
    return ObservationInfo(header, pedantic=True)


def test_every_property_is_translated_without_complaint(info):
    assert info.instrument == "SimCam"


def test_exposure_id_is_day_obs_followed_by_the_sequence_number(info):
    assert (info.observing_day, info.observation_counter) == (20261101, 1)
    assert info.exposure_id == info.visit_id == 2026110100001


def test_detector_is_found_by_raft_and_slot(info):
    assert info.detector_unique_name == "R22_S10"
    assert info.detector_num == 3
    assert info.detector_exposure_id == 2026110100001003


def test_day_obs_began_twelve_hours_before_its_midnight(info):
    elapsed = info.datetime_begin - info.observing_day_offset
    assert elapsed.isot.startswith("2026-11-01")


def test_an_object_exposure_is_science_and_sees_the_sky(info):
    assert info.observation_type == "science"
    assert info.can_see_sky
    assert info.has_simulated_content


def test_a_bias_is_no_science_and_sees_no_sky(header):
    header["IMGTYPE"] = "BIAS"
    info = ObservationInfo(header, pedantic=True)
    assert info.observation_type == "bias"
    assert not info.can_see_sky


def test_times_and_pointing_are_those_of_the_visit(info):
    visit = CI.visits[0]
    assert info.datetime_begin.tai.mjd == pytest.approx(visit.mjd_begin, abs=1e-8)
    assert (info.datetime_end - info.datetime_begin).to_value(u.s) == pytest.approx(30.0, abs=1e-3)
    assert info.dark_time.to_value(u.s) == 31.0
    assert info.tracking_radec.separation(info.tracking_radec.__class__(53.1 * u.deg, -28.1 * u.deg)) < 0.1 * u.deg
    assert info.altaz_begin.alt > 30 * u.deg


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.full_name)
def test_each_detector_translates_to_its_id(detector):
    assert ObservationInfo(raw_header(CI, CI.visits[0], detector.id), pedantic=True).detector_num == detector.id
