"""Schedules, sizes and random streams follow from the configuration alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from simulator.survey import ACCEPTANCE, CI, DEMO, PRESETS, Stream


def test_the_demo_is_108_raws_in_two_day_obs_of_six_visits():
    assert DEMO.raw_count == 108
    assert Counter(visit.day_obs for visit in DEMO.visits) == {20261101: 6, 20261102: 6}
    assert Counter(visit.band for visit in DEMO.visits) == {"g": 4, "r": 4, "i": 4}


def test_the_acceptance_survey_is_large_and_in_six_bands():
    assert ACCEPTANCE.detector_px == 1024
    assert len(ACCEPTANCE.visits) >= 30
    assert {visit.band for visit in ACCEPTANCE.visits} == set("ugrizy")


def test_the_smallest_survey_is_four_detectors_and_one_patch():
    assert [detector.full_name for detector in CI.detectors] == ["R22_S00", "R22_S01", "R22_S10", "R22_S11"]
    assert CI.skymap.patch_count == 1


def test_visit_ids_are_day_obs_and_sequence_number():
    assert DEMO.visits[0].id == 2026110100001
    assert DEMO.visits[-1].id == 2026110200006


def test_exposures_follow_each_other_without_overlap():
    for before, after in zip(DEMO.visits, DEMO.visits[1:], strict=False):
        assert after.mjd_begin > before.mjd_end


@pytest.mark.parametrize("survey", PRESETS.values(), ids=PRESETS)
def test_patches_tile_a_tract_that_holds_the_field(survey):
    assert survey.skymap.patch_px * survey.patches_per_side == survey.tract_px
    block = max(detector.focal_plane_centre(survey.detector_px)[0] for detector in survey.detectors) - min(
        detector.focal_plane_centre(survey.detector_px)[0] for detector in survey.detectors
    )
    assert block + survey.detector_px < survey.tract_px


def test_any_change_of_the_configuration_changes_the_digest():
    assert replace(CI).digest == CI.digest
    assert len({CI.digest, replace(CI, seed=1).digest, replace(CI, transients=21).digest}) == 3


def test_streams_do_not_depend_on_each_other_or_on_order():
    first = CI.generator(Stream.OBSERVATION, 5, 1).normal(size=4)
    CI.generator(Stream.OBSERVATION, 5, 2).normal(size=4)
    np.testing.assert_array_equal(CI.generator(Stream.OBSERVATION, 5, 1).normal(size=4), first)
    assert not np.array_equal(CI.generator(Stream.OBSERVATION, 5, 2).normal(size=4), first)
    assert not np.array_equal(CI.generator(Stream.CALIBRATION, 5, 1).normal(size=4), first)


def test_a_survey_without_visits_is_refused():
    with pytest.raises(ValueError, match="no visits"):
        replace(CI, days=0)
