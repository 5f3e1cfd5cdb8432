"""Objects found: on all bands together, as rarely by chance as promised, with their families."""

import lsst.pipe.base as pb
import numpy as np
import pytest

from drp_tasks.detect_objects import (
    NO_PARENT,
    MergeObjectDetectionTask,
    first_object_id,
    shapes,
)
from tests.drp_tasks.synthetic_coadds import BANDS, Scene, flux_at

BRIGHT = flux_at(60)


def detect(scene, patch=0, *, first_id=0, **saturated):
    return MergeObjectDetectionTask().run(scene.bands(patch, **saturated), first_id=first_id)


def children(peaks):
    return peaks[peaks["nChild"] == 0]


def test_a_star_too_faint_for_one_band_is_found_in_two():
    faint = flux_at(5.6)
    places = [(30.0 + 40 * i, 30.0 + 40 * j) for i in range(4) for j in range(4)]
    found = children(detect(Scene([(x, y, faint, faint) for x, y in places])).peaks)
    hits = sum(np.hypot(found["x"].value - x, found["y"].value - y).min() < 3 for x, y in places)
    assert hits >= 11
    assert len(found) <= hits + 1


def test_a_star_of_one_band_is_found_and_says_in_which():
    (row,) = children(detect(Scene([(80.0, 70.0, 0.0, flux_at(15))])).peaks)
    assert row["refBand"] == "r"
    assert row["nDetectedBands"] == 1
    assert row["r_significance"] == pytest.approx(15, abs=4)
    assert row["x"] == pytest.approx(80.0, abs=0.7)
    assert row["y"] == pytest.approx(70.0, abs=0.7)


def test_two_stars_of_one_footprint_are_children_of_a_parent():
    scene = Scene([(60.0, 60.0, BRIGHT, BRIGHT), (68.0, 61.0, BRIGHT, BRIGHT), (120.0, 100.0, BRIGHT, BRIGHT)])
    result = detect(scene, first_id=1000)
    peaks = result.peaks
    (parent,) = peaks[peaks["nChild"] > 0]
    assert parent["nChild"] == 2
    assert parent["parentObjectId"] == NO_PARENT
    blended = peaks[peaks["parentObjectId"] == parent["objectId"]]
    assert len(blended) == 2
    assert set(blended["footprint"]) == {parent["footprint"]}
    assert (children(peaks)["parentObjectId"] == NO_PARENT).sum() == 1
    assert list(peaks["objectId"]) == list(range(1000, 1004))
    box = result.footprints.bbox
    assert result.footprints.array[60 - box.start.y, 60 - box.start.x] == parent["footprint"]


def test_ids_of_all_patches_are_distinct():
    firsts = [first_object_id(tract, patch) for tract in (0, 1, 20000) for patch in (0, 1, 99)]
    assert len(set(firsts)) == len(firsts)
    assert max(firsts) < 2**63


def test_an_ellipse_is_measured_as_it_lies():
    y, x = np.mgrid[:60, :60]
    angle = 0.4
    along, across = (
        (x - 30) * np.cos(angle) + (y - 30) * np.sin(angle),
        (y - 30) * np.cos(angle) - (x - 30) * np.sin(angle),
    )
    blob = np.exp(-0.5 * (along**2 / 36 + across**2 / 9)).astype(np.float32)
    measured = shapes(blob, np.where(blob > 1e-4, 1, 0), 1)
    assert measured.semi_major[0] == pytest.approx(6, rel=0.02)
    assert measured.semi_minor[0] == pytest.approx(3, rel=0.02)
    assert measured.theta[0] == pytest.approx(angle, abs=0.01)


def test_an_empty_sky_is_no_work():
    with pytest.raises(pb.NoWorkFound):
        detect(Scene([]))
    with pytest.raises(pb.NoWorkFound):
        MergeObjectDetectionTask().run([], first_id=0)


def test_every_band_has_its_column():
    peaks = detect(Scene([(80.0, 70.0, BRIGHT, BRIGHT)])).peaks
    assert {f"{band}_significance" for band in BANDS} <= set(peaks.colnames)


def test_a_star_with_a_saturated_core_is_one_object():
    core = [(60 + i, 60 + j) for i in range(-4, 5) for j in range(-4, 5)]
    flux = flux_at(3000)
    (row,) = detect(Scene([(60.0, 60.0, flux, flux)]), saturated=core).peaks
    assert np.hypot(row["x"] - 60, row["y"] - 60) < 1
