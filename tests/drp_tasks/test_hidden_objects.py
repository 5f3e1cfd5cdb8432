"""Faint stars beside bright ones: found, and nothing else is."""

import numpy as np
import pytest

from drp_tasks.detect_objects import MergeObjectDetectionConfig, MergeObjectDetectionTask
from tests.drp_tasks.synthetic_coadds import Scene, flux_at

BRIGHT, FAINT = flux_at(700), flux_at(15)
STARS = [(45.0, 45.0), (45.3, 115.6), (115.2, 44.7), (114.8, 115.1)]
COMPANION = (45.0 + 7.4, 46.0)


def found_in(scene, **config):
    peaks = MergeObjectDetectionTask(config=MergeObjectDetectionConfig(**config)).run(scene.bands(0), first_id=0).peaks
    return peaks[peaks["nChild"] == 0]


def nearest(table, x, y):
    return np.hypot(table["x"].value - x, table["y"].value - y).min()


@pytest.fixture(scope="module")
def scene():
    bright = [(x, y, BRIGHT, BRIGHT) for x, y in STARS]
    return Scene([*bright, (*COMPANION, FAINT, FAINT)])


def test_a_faint_star_beside_a_bright_one_is_hidden_until_that_is_taken_off(scene):
    assert nearest(found_in(scene, brightSignificance=1e9), *COMPANION) > 3
    assert nearest(found_in(scene), *COMPANION) < 1


def test_what_is_hidden_is_the_bright_stars_sibling(scene):
    task = MergeObjectDetectionTask()
    peaks = task.run(scene.bands(0), first_id=0).peaks
    assert task.metadata["n_hidden"] == 1
    (parent,) = peaks[peaks["nChild"] > 0]
    siblings = peaks[peaks["parentObjectId"] == parent["objectId"]]
    assert nearest(siblings, *COMPANION) < 1
    assert nearest(siblings, *STARS[0]) < 1


def test_nothing_is_found_around_lonely_stars():
    table = found_in(Scene([(x, y, BRIGHT, BRIGHT) for x, y in STARS]))
    assert len(table) == len(STARS)


def test_bright_galaxies_are_left_alone():
    assert len(found_in(Scene([(x, y, BRIGHT, BRIGHT) for x, y in STARS], sigma=4.0))) == len(STARS)
