"""The reference catalogue and the truth."""

import numpy as np
import pytest

from drp_tasks.camera import NOMINAL_ZERO_POINTS
from simulator.detector import camera_sensitivity
from simulator.sky import make_sky
from simulator.survey import CI
from simulator.tables import reference_catalogue, truth_objects, truth_transients, truth_visits


def test_reference_stars_are_true_ones_with_the_errors_they_claim():
    sky = make_sky(CI)
    for table in reference_catalogue(CI).values():
        true = np.asarray(table["id"])
        assert (sky.is_star[true] & (sky.mag["r"][true] < 21)).all()
        off_ra = (table["ra"] - sky.ra_deg[true]) * np.cos(np.radians(table["dec"])) * 3.6e6
        assert np.std(off_ra) == pytest.approx(2.0, rel=0.3)
        assert np.std((table["dec"] - sky.dec_deg[true]) * 3.6e6) == pytest.approx(2.0, rel=0.3)
        assert np.std(table["mag_r"] - sky.mag["r"][true]) == pytest.approx(0.01, rel=0.3)
        assert table["ra"].unit == "deg"
        assert table["raErr"].unit == "mas"
        assert "epoch_mjd_tai" in table.meta


def test_all_bright_stars_are_in_the_reference_catalogue_once():
    sky = make_sky(CI)
    ids = np.concatenate([table["id"] for table in reference_catalogue(CI).values()])
    assert sorted(ids) == list(np.flatnonzero(sky.is_star & (sky.mag["r"] < 21)))


def test_truth_objects_are_the_sky():
    truth, sky = truth_objects(CI), make_sky(CI)
    assert len(truth) == len(sky)
    assert set(truth.colnames) == {"id", "ra", "dec", "isStar", "hlr", "mag_g", "mag_r", "mag_i"}
    np.testing.assert_array_equal(truth["mag_i"], sky.mag["i"])


def test_each_transient_has_a_row_for_each_visit_of_its_epoch():
    truth = truth_transients(CI)
    assert len(truth) == CI.transients * len(CI.bands)
    epoch_of = {visit.id: visit.epoch for visit in CI.visits}
    for number in np.unique(truth["id"]):
        rows = truth[truth["id"] == number]
        assert len({epoch_of[visit] for visit in rows["visit"]}) == 1
        assert set(rows["band"]) == set(CI.bands)


def test_true_zero_points_are_those_of_flat_fielded_images():
    truth = truth_visits(CI)
    assert len(truth) == CI.raw_count
    visit = CI.visits[5]
    row = truth[(truth["visit"] == visit.id) & (truth["detector"] == 4)][0]
    expected = NOMINAL_ZERO_POINTS["i"] - visit.extinction_mag + 2.5 * np.log10(camera_sensitivity(CI))
    assert row["zeroPoint"] == pytest.approx(expected)
    assert row["seeing"] == pytest.approx(visit.fwhm_px * 0.2, rel=0.05)
