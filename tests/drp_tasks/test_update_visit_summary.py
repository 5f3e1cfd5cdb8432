"""A visit's summary takes over what the global fits solved, and keeps the rest."""

import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.images import wcs_from_text, wcs_to_text
from drp_tasks.matching import separation
from drp_tasks.update_visit_summary import UpdateVisitSummaryConfig, UpdateVisitSummaryTask, update_summary
from tests.drp_tasks.synthetic_stars import SIDE_PX, make_sky, observe

SUMMARY = observe(make_sky(20), "r").summary
MIDDLE = SIDE_PX / 2 - 0.5


def shifted_wcs(text, dec_arcsec):
    wcs = wcs_from_text(text)
    wcs.wcs.crval = np.add(wcs.wcs.crval, [0, dec_arcsec / 3600])
    return wcs_to_text(wcs)


def zero_points(*detectors, change=0.1):
    n = len(detectors)
    return Table(
        {
            "visit": np.ones(n, int),
            "detector": np.array(detectors, int),
            "zeroPoint": np.full(n, 31.8 + change),
            "zeroPointErr": np.full(n, 0.002),
            "nStars": np.full(n, 77),
        }
    )


def wcs_catalog(*detectors, dec_arcsec=1.0, n_stars=50):
    texts = [shifted_wcs(SUMMARY["wcs"][detector], dec_arcsec) for detector in detectors]
    n = len(detectors)
    return Table(
        {
            "visit": np.ones(n, int),
            "detector": np.array(detectors, int),
            "wcs": np.array(texts, str),
            "nStars": np.full(n, n_stars),
            "residualMas": np.full(n, 6.0),
        }
    )


def test_new_zero_points_and_wcss_are_taken_over():
    updated = update_summary(SUMMARY, zero_points(0, 1, 2, 3), [wcs_catalog(0, 1, 2, 3)])
    assert updated["recalibrated"].all()
    assert np.array(updated["zeroPoint"]) == pytest.approx(31.9)
    assert np.array(updated["zeroPointErr"]) == pytest.approx(0.002)
    assert set(updated["nPhotometryStars"]) == {77}
    assert set(updated["nAstrometryStars"]) == {50}
    assert np.array(updated["astrometryResidual"]) == pytest.approx(6.0)
    assert np.array(updated["meanVariance"]) == pytest.approx(100 * 10**-0.08)
    assert updated["wcs"][2] == shifted_wcs(SUMMARY["wcs"][2], 1.0)


def test_centre_and_corners_follow_the_new_wcs():
    updated = update_summary(SUMMARY, zero_points(), [wcs_catalog(1, dec_arcsec=2.0)])
    wcs = wcs_from_text(updated["wcs"][1])
    for suffix, (x, y) in {"": (MIDDLE, MIDDLE), "Corner0": (-0.5, -0.5), "Corner2": (511.5, 511.5)}.items():
        ra, dec = wcs.all_pix2world(x, y, 0)
        assert 1000 * separation(updated[f"ra{suffix}"][1], updated[f"dec{suffix}"][1], ra, dec) < 0.01
    assert updated["dec"][1] - SUMMARY["dec"][1] == pytest.approx(2 / 3600, rel=1e-3)


def test_a_row_without_a_solution_keeps_the_preliminary_one_and_says_so():
    updated = update_summary(SUMMARY, zero_points(0, 1), [wcs_catalog(1, 2)])
    assert updated["recalibrated"].tolist() == [False, True, False, False]
    assert np.array(updated["zeroPoint"]) == pytest.approx([31.9, 31.9, 31.8, 31.8])
    assert [new == old for new, old in zip(updated["wcs"], SUMMARY["wcs"], strict=True)] == [True, False, False, True]
    for name in SUMMARY.colnames:
        assert updated[name][3] == SUMMARY[name][3]


def test_solutions_of_other_visits_are_not_taken():
    other = zero_points(0, 1, 2, 3)
    other["visit"] = 2
    assert not update_summary(SUMMARY, other, [wcs_catalog(0, 1, 2, 3)])["recalibrated"].any()


@pytest.mark.parametrize("swap", [False, True])
def test_of_several_tracts_the_one_with_most_stars_decides(swap):
    tracts = [wcs_catalog(0, dec_arcsec=1.0, n_stars=10), wcs_catalog(0, dec_arcsec=2.0, n_stars=90)]
    updated = update_summary(SUMMARY, zero_points(0), tracts[::-1] if swap else tracts)
    assert updated["nAstrometryStars"][0] == 90
    assert updated["wcs"][0] == shifted_wcs(SUMMARY["wcs"][0], 2.0)


def test_preliminary_summary_is_left_alone():
    before = SUMMARY.copy()
    update_summary(SUMMARY, zero_points(0), [wcs_catalog(0)])
    assert all(np.array_equal(before[name], SUMMARY[name]) for name in SUMMARY.colnames)


def test_task_counts_what_was_recalibrated_and_warns_of_little(caplog):
    task = UpdateVisitSummaryTask(config=UpdateVisitSummaryConfig())
    updated = task.run(SUMMARY, zero_points(0), [wcs_catalog(0)]).updated
    assert len(updated) == 4
    assert task.metadata["n_recalibrated"] == 1
    assert task.metadata["largest_zero_point_change_mmag"] == pytest.approx(100)
    assert "Only 1 of 4 detectors" in caplog.text
