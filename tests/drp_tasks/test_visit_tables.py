"""The survey's tables: a row for each detector, a row for each visit, medians that broken detectors don't spoil."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.visit_tables import MakeVisitDetectorTableTask, MakeVisitTableTask, gather_detectors, gather_visits


def summary(visit: int, detectors: list[int], ra: float = 53.0, zero_point: float = 31.0) -> Table:
    n = len(detectors)
    ones = np.ones(n, np.float32)
    return Table(
        {
            "visit": np.full(n, visit),
            "detector": np.array(detectors, np.int32),
            "band": np.full(n, "r"),
            "physical_filter": np.full(n, "r_57"),
            "day_obs": np.full(n, 20261101, np.int32),
            "mjdMid": np.full(n, 61345.3) * u.day,
            "expTime": np.full(n, 30.0) * u.s,
            "zeroPoint": (zero_point + 0.01 * np.arange(n)) * u.mag,
            "wcs": np.full(n, "CTYPE1"),
            "astrometryResidual": 4 * ones * u.mas,
            "psfSigma": 2 * ones * u.pix,
            "psfFwhm": 0.8 * ones * u.arcsec,
            "psfE1": 0 * ones,
            "psfE2": 0 * ones,
            "skyBackground": 700 * ones * u.electron,
            "skyNoise": 28 * ones * u.electron,
            "effTime": 20 * ones * u.s,
            "nSources": np.full(n, 80, np.int32),
            "nPsfStars": np.full(n, 20, np.int32),
            "nAstrometryStars": np.full(n, 15, np.int32),
            "nPhotometryStars": np.full(n, 14, np.int32),
            "ra": (ra + np.linspace(-0.01, 0.01, n)) % 360 * u.deg,
            "dec": np.full(n, -28.0) * u.deg,
            "meanVariance": 1600 * ones * u.nJy**2,
        }
    )


def test_detectors_are_listed_by_visit_and_detector_with_their_depth():
    table = gather_detectors([summary(9, [4, 1]), summary(3, [0])])
    assert list(zip(table["visit"], table["detector"], strict=True)) == [(3, 0), (9, 1), (9, 4)]
    assert "wcs" not in table.colnames
    noise = np.sqrt(1600 * 4 * np.pi * 2**2)
    assert table["magLim"][0] == pytest.approx(31.4 - 2.5 * np.log10(5 * noise), abs=1e-5)
    assert table["magLim"].unit == table["zeroPoint"].unit == u.mag


def test_a_visit_is_one_row_of_medians_and_sums():
    table = gather_visits([summary(9, [0, 1, 2]), summary(3, [0])])
    assert list(table["visit"]) == [3, 9]
    assert list(table["nDetectors"]) == [1, 3]
    assert table["zeroPoint"][1] == pytest.approx(31.01)
    assert table["zeroPointScatter"][1] == pytest.approx(np.std([0, 0.01, 0.02]))
    assert list(table["nSources"]) == [80, 240]
    assert table["psfFwhm"].unit == u.arcsec
    assert list(table["band"]) == ["r", "r"]


def test_a_detector_without_a_zero_point_does_not_spoil_its_visit():
    broken = summary(9, [0, 1, 2])
    broken["zeroPoint"][0] = np.nan
    table = gather_visits([broken])
    assert table["zeroPoint"][0] == pytest.approx(31.015)
    assert table["nDetectors"][0] == 3
    broken["zeroPoint"][:] = np.nan
    assert np.isnan(gather_visits([broken])["zeroPoint"][0])


def test_a_visit_across_the_origin_of_right_ascension_points_there():
    table = gather_visits([summary(9, [0, 1, 2], ra=0.0)])
    assert np.cos(np.radians(table["ra"][0])) == pytest.approx(1.0, abs=1e-9)
    assert table["dec"][0] == pytest.approx(-28.0, abs=1e-4)


@dataclass(frozen=True)
class Handle:
    table: Table

    def get(self) -> Table:
        return self.table


@pytest.mark.parametrize(("task_class", "rows"), [(MakeVisitDetectorTableTask, 4), (MakeVisitTableTask, 2)])
def test_the_tasks_read_all_summaries(task_class, rows):
    task = task_class(config=task_class.ConfigClass())
    handles = [Handle(summary(9, [0, 1, 2])), Handle(summary(3, [0]))]
    assert len(task.run(handles).outputTable) == rows
