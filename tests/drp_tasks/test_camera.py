"""The camera's constants hold together."""

from drp_tasks.camera import (
    BANDS,
    DETECTORS,
    DETECTORS_BY_NAME,
    FILTERS,
    NOMINAL_ZERO_POINTS,
    PHYSICAL_FILTERS,
    focal_plane_width_px,
)


def test_detector_ids_count_along_rows_of_the_raft():
    assert [detector.id for detector in DETECTORS] == list(range(9))
    assert DETECTORS_BY_NAME["R22_S01"].id == 1
    assert DETECTORS_BY_NAME["R22_S20"].id == 6


def test_the_middle_detector_sits_at_the_centre_of_the_camera():
    assert DETECTORS_BY_NAME["R22_S11"].focal_plane_centre(512) == (0, 0)


def test_neighbouring_detectors_are_a_gap_apart():
    left, right = DETECTORS_BY_NAME["R22_S00"], DETECTORS_BY_NAME["R22_S01"]
    assert right.focal_plane_centre(512)[0] - left.focal_plane_centre(512)[0] == 512 + 20
    assert right.focal_plane_centre(512)[1] == left.focal_plane_centre(512)[1]


def test_the_focal_plane_holds_three_detectors_and_two_gaps():
    assert focal_plane_width_px(512) == 1576


def test_filters_and_bands_are_one_to_one():
    assert tuple("ugrizy") == BANDS
    assert {PHYSICAL_FILTERS[band]: band for band in BANDS} == dict(FILTERS)
    assert set(NOMINAL_ZERO_POINTS) == set(BANDS)
