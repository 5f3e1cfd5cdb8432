"""Association: one place is one DiaObject over all visits, with an id that nothing but its sources decides."""

import lsst.pipe.base as pb
import numpy as np
import pytest
from astropy.table import Table, vstack
from hypothesis import given
from hypothesis import strategies as st
from lsst.sphgeom import Angle, Circle, LonLat, UnitVector3d

from drp_tasks.associate_dia import AssociateDiaSourceTask, associate_dia_sources

PLACES = {"a": (53.1, -28.1), "b": (53.1001, -28.102), "c": (53.11, -28.09)}
ARCSEC = 1 / 3600


def sources(*rows):
    """DiaSources from (id, place, band, mjd, flux, offset in arcsec)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    place = [PLACES[name] for name in columns[1]]
    return Table(
        {
            "diaSourceId": np.array(columns[0], np.int64),
            "band": np.array(columns[2], "U1"),
            "mjdMid": np.array(columns[3], float),
            "ra": np.array([ra for ra, _ in place], float),
            "dec": np.array([dec for _, dec in place], float) + np.array(columns[5], float) * ARCSEC,
            "psfFlux": np.array(columns[4], float),
            "psfFluxErr": np.full(len(rows), 10.0),
        }
    )


HISTORY = sources(
    (31, "a", "r", 61000.3, 100.0, 0.1),
    (12, "a", "r", 61000.1, 200.0, 0.0),
    (77, "a", "g", 61001.0, -60.0, -0.1),
    (40, "b", "r", 61000.2, 80.0, 0.0),
    (50, "c", "i", 61000.2, 70.0, 0.0),
)


def test_sources_at_one_place_are_one_object_over_visits():
    linked, objects = associate_dia_sources(HISTORY, 0.6, ["g", "r"])
    assert list(objects["diaObjectId"]) == [12, 40, 50]
    assert list(objects["nDiaSources"]) == [3, 1, 1]
    assert dict(zip(linked["diaSourceId"], linked["diaObjectId"], strict=True)) == {
        12: 12,
        31: 12,
        77: 12,
        40: 40,
        50: 50,
    }


def test_an_object_has_its_sources_mean_place_flux_and_times():
    first = associate_dia_sources(HISTORY, 0.6, ["g", "r"])[1][0]
    assert (first["firstDiaSourceMjd"], first["lastDiaSourceMjd"]) == (61000.1, 61001.0)
    assert first["r_psfFluxMean"] == pytest.approx(150.0)
    assert first["r_psfFluxMeanErr"] == pytest.approx(10 / np.sqrt(2))
    assert (first["r_nDiaSources"], first["g_nDiaSources"], first["g_psfFluxMean"]) == (2, 1, -60.0)
    weights = np.array([100.0, 200.0, 60.0]) ** 2
    assert first["dec"] == pytest.approx(-28.1 + ARCSEC * np.average([0.1, 0.0, -0.1], weights=weights), abs=1e-9)


def test_a_band_without_sources_is_not_measured():
    objects = associate_dia_sources(HISTORY, 0.6, ["z"])[1]
    assert np.isnan(np.asarray(objects["z_psfFluxMean"])).all()
    assert (np.asarray(objects["z_nDiaSources"]) == 0).all()


@given(st.permutations(range(len(HISTORY))))
def test_the_order_of_the_rows_changes_nothing(order):
    expected, found = (associate_dia_sources(table, 0.6, ["r"]) for table in (HISTORY, HISTORY[order]))
    for before, after in zip(expected, found, strict=True):
        assert before.colnames == after.colnames
        for name in before.colnames:
            np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]))


def test_no_dia_source_gives_no_object_and_all_columns():
    linked, objects = associate_dia_sources(sources(), 0.6, ["r"])
    assert len(linked) == len(objects) == 0
    assert set(associate_dia_sources(HISTORY, 0.6, ["r"])[1].colnames) == set(objects.colnames)


def run_task(tables):
    around = Circle(UnitVector3d(LonLat.fromDegrees(53.1, -28.1)), Angle.fromDegrees(0.005))
    return AssociateDiaSourceTask(config=AssociateDiaSourceTask.ConfigClass()).run(tables, region=around)


def test_a_tract_keeps_its_own_sources():
    result = run_task([HISTORY[:2], HISTORY[2:]])
    assert set(result.diaSources["diaSourceId"]) == {12, 31, 77, 40}
    assert len(result.diaObjects) == 2


def test_detectors_without_dia_sources_do_no_harm():
    empty = HISTORY[:0]
    joined = run_task([empty, HISTORY[:2], empty])
    assert list(joined.diaSources["diaSourceId"]) == list(run_task([vstack([HISTORY[:2]])]).diaSources["diaSourceId"])
    assert len(run_task([empty, empty]).diaObjects) == 0


def test_a_tract_without_differences_is_no_work():
    with pytest.raises(pb.NoWorkFound):
        run_task([])
