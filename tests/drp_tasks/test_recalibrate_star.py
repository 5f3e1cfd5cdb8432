"""Sources follow their detector's final WCS and zero point."""

import numpy as np
import pytest

from drp_tasks.images import wcs_from_text, wcs_to_text
from drp_tasks.matching import separation
from drp_tasks.recalibrate_star import RecalibrateStarConfig, RecalibrateStarTask, recalibrate
from tests.drp_tasks.synthetic_stars import Errors, make_sky, observe

SKY = make_sky(60)
SEEN = observe(SKY, "r", Errors(zero_point=lambda visit, detector: 0.02 * detector))


def test_true_zero_points_give_true_fluxes_and_leave_the_signal_to_noise():
    truth = SEEN.summary.copy()
    truth["zeroPoint"] = 31.8
    new = recalibrate(SEEN.sources, SEEN.summary, truth)
    magnitude = 31.4 - 2.5 * np.log10(new["psfFlux"])
    assert np.array(magnitude) == pytest.approx(SKY.magnitude["r"][new["truthId"]])
    for flux in ("psfFlux", "apFlux"):
        before = SEEN.sources[flux] / SEEN.sources[f"{flux}Err"]
        assert np.array(new[flux] / new[f"{flux}Err"]) == pytest.approx(np.array(before))


def test_positions_come_from_the_new_wcs_of_each_detector():
    moved = SEEN.summary.copy()
    texts = []
    for text, detector in zip(moved["wcs"], moved["detector"], strict=True):
        wcs = wcs_from_text(text)
        wcs.wcs.crval = np.add(wcs.wcs.crval, [0, 0.01 * detector / 3600])
        texts.append(wcs_to_text(wcs))
    moved["wcs"] = texts
    new = recalibrate(SEEN.sources, SEEN.summary, moved)
    shift = separation(new["ra"], new["dec"], SEEN.sources["ra"], SEEN.sources["dec"])
    assert shift == pytest.approx(0.01 * np.array(new["detector"]), abs=1e-5)


def test_the_same_calibration_changes_nothing():
    new = recalibrate(SEEN.sources, SEEN.summary, SEEN.summary)
    assert new.colnames == SEEN.sources.colnames
    assert np.array(new["psfFlux"]) == pytest.approx(np.array(SEEN.sources["psfFlux"]))
    assert 1000 * separation(new["ra"], new["dec"], SEEN.sources["ra"], SEEN.sources["dec"]).max() < 1e-3


def test_a_detector_that_no_summary_knows_is_an_error():
    with pytest.raises(ValueError, match="detector 3 has sources"):
        recalibrate(SEEN.sources, SEEN.summary, SEEN.summary[:3])


def test_task_returns_the_new_table():
    task = RecalibrateStarTask(config=RecalibrateStarConfig())
    result = task.run(SEEN.sources, SEEN.summary, SEEN.summary)
    assert len(result.recalibrated) == task.metadata["n_sources"] == len(SEEN.sources)
