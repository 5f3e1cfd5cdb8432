"""Objects measured: right fluxes with right errors, blends apart, each object once over the patches."""

import numpy as np
import pytest
from astropy.table import vstack

from drp_tasks.detect_objects import MergeObjectDetectionTask, first_object_id
from drp_tasks.measure_objects import MeasureObjectTask
from tests.drp_tasks.synthetic_coadds import SKYMAP, Scene, flux_at

BRIGHT = flux_at(100)


def measure(scene, patch=0, **saturated):
    bands = scene.bands(patch, **saturated)
    found = MergeObjectDetectionTask().run(bands, first_id=first_object_id(0, patch))
    return (
        MeasureObjectTask()
        .run(bands, found.peaks, found.footprints, skymap=SKYMAP.to_dict(), tract=0, patch=patch)
        .objects
    )


def nearest(table, x, y):
    single = table[table["nChild"] == 0]
    return single[np.argmin(np.hypot(single["x"].value - x, single["y"].value - y))]


@pytest.fixture(scope="module")
def grid_scene():
    rng = np.random.default_rng(6)
    places = [(22 + 28 * i, 22 + 28 * j) for i in range(5) for j in range(5)]
    stars = [(x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5), flux_at(25), flux_at(60)) for x, y in places]
    return Scene(stars), stars


def test_fluxes_and_their_errors_are_honest(grid_scene):
    scene, stars = grid_scene
    table = measure(scene)
    for band, column in (("g", 2), ("r", 3)):
        rows = [nearest(table, star[0], star[1]) for star in stars]
        pulls = [
            (row[f"{band}_psfFlux"] - star[column]) / row[f"{band}_psfFluxErr"]
            for row, star in zip(rows, stars, strict=True)
        ]
        assert abs(np.mean(pulls)) < 0.6
        assert 0.65 < np.std(pulls) < 1.4
        assert np.median([row[f"{band}_apFlux"] for row in rows]) == pytest.approx(stars[0][column], rel=0.1)
        assert np.median([row[f"{band}_kronFlux"] for row in rows]) == pytest.approx(stars[0][column], rel=0.1)
        assert not any(row[f"{band}_flag"] for row in rows)


def test_stars_are_points_and_positions_are_those_of_the_best_band(grid_scene):
    scene, stars = grid_scene
    table = measure(scene)
    rows = [nearest(table, star[0], star[1]) for star in stars]
    assert {row["refBand"] for row in rows} == {"r"}
    assert np.median([row["refExtendedness"] for row in rows]) == pytest.approx(0.0, abs=0.02)
    assert np.std([row["x"] - star[0] for row, star in zip(rows, stars, strict=True)]) < 0.06
    ra, dec = SKYMAP.wcs().all_pix2world(stars[0][0], stars[0][1], 0)
    assert rows[0]["ra"] == pytest.approx(float(ra), abs=0.05 / 3600)
    assert rows[0]["dec"] == pytest.approx(float(dec), abs=0.05 / 3600)


def test_a_galaxy_is_extended_and_its_kron_flux_is_whole():
    galaxies = Scene([(50.0, 60.0, 4 * BRIGHT, 4 * BRIGHT)], sigma=3.0)
    stars = Scene([(120.0, 60.0, BRIGHT, BRIGHT), (90.0, 120.0, BRIGHT, BRIGHT)], seed=2)
    for name, image in galaxies.images.items():
        stars.images[name] += image
    row = nearest(measure(stars), 50.0, 60.0)
    assert row["r_extendedness"] > 0.1
    assert row["r_kronFlux"] == pytest.approx(4 * BRIGHT, rel=0.06)


def test_two_blended_stars_each_get_their_flux():
    scene = Scene([(60.2, 60.1, BRIGHT, BRIGHT), (69.4, 61.3, BRIGHT / 3, BRIGHT / 3), (120.0, 100.0, BRIGHT, BRIGHT)])
    table = measure(scene)
    (parent,) = table[table["nChild"] > 0]
    assert not parent["detect_isPrimary"]
    assert np.isnan(parent["r_psfFlux"])
    for x, y, flux in ((60.2, 60.1, BRIGHT), (69.4, 61.3, BRIGHT / 3)):
        child = nearest(table, x, y)
        assert child["parentObjectId"] == parent["objectId"]
        assert child["r_psfFlux"] == pytest.approx(flux, rel=0.03, abs=4 * child["r_psfFluxErr"])
        assert child["detect_isPrimary"]


def test_an_object_on_the_border_of_two_patches_is_primary_once():
    edge = SKYMAP.patch_px
    stars = [(edge + dx, 25.0 + 14 * k, BRIGHT, BRIGHT) for k, dx in enumerate((-6.0, -1.2, -0.4, 0.3, 1.1, 7.0))]
    scene = Scene(stars)
    both = vstack([measure(scene, patch) for patch in (0, 1)])
    both = both[both["nChild"] == 0]
    primary = both[both["detect_isPrimary"]]
    assert len(both) == 2 * len(stars)
    assert len(primary) == len(stars)
    for x, y, *_ in stars:
        assert (np.hypot(primary["x"].value - x, primary["y"].value - y) < 1).sum() == 1
    assert len(set(both["objectId"])) == len(both)


def test_an_object_on_saturated_pixels_is_flagged():
    scene = Scene([(60.0, 60.0, BRIGHT, BRIGHT)])
    row = nearest(measure(scene, saturated=[(60.0, 60.0), (61.0, 60.0), (60.0, 61.0)]), 60.0, 60.0)
    assert row["r_flag"]
