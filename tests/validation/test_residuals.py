import numpy as np
import pytest
from astropy.table import Table

from validation.residuals import binned_median, robust_width, star_residuals


def measurements(**changes):
    columns = {
        "sourceId": [10, 11, 12, 20, 21, 30],
        "visit": [1, 2, 3, 1, 2, 1],
        "detector": [0, 0, 1, 0, 0, 0],
        "band": ["r", "r", "g", "r", "r", "r"],
        "x": np.arange(6.0),
        "y": np.arange(6.0),
        "ra": 53.0 + np.array([0, 10, 5, 0, 0, 0]) / 3.6e6 / np.cos(np.radians(-28.0)),
        "dec": -28.0 + np.array([0, 0, 9, 4, 0, 0]) / 3.6e6,
        "psfFlux": 1e5 * np.array([1.0, 1.01, 2.0, 1.0, 1.0, 1.0]),
        "psfFluxErr": np.full(6, 100.0),
        "flag": np.zeros(6, bool),
    }
    return Table(columns | changes)


ASSOCIATION = Table({"sourceId": [21, 20, 12, 11, 10], "isolatedStarId": [2, 2, 1, 1, 1]})


def test_positions_are_compared_over_bands_and_magnitudes_within_one():
    residuals = star_residuals(measurements(), ASSOCIATION)
    assert list(residuals["visit"]) == [1, 2, 1, 2]
    assert residuals["ra_mas"][:2] == pytest.approx([-5, 5], abs=1e-3)
    assert residuals["dec_mas"] == pytest.approx([-3, -3, 2, -2], abs=1e-3)
    half = 1250 * np.log10(1.01)
    assert residuals["mag_mmag"] == pytest.approx([half, -half, 0, 0], abs=1e-9)


def test_a_source_of_no_isolated_star_a_flagged_or_a_faint_one_is_left_out():
    flagged = measurements(flag=[False, False, False, True, False, False])
    assert list(star_residuals(flagged, ASSOCIATION)["isolatedStarId"]) == [1, 1]
    faint = measurements(psfFluxErr=np.array([100.0, 100, 100, 5000, 100, 100]))
    assert list(star_residuals(faint, ASSOCIATION)["isolatedStarId"]) == [1, 1]


def test_a_field_across_right_ascension_zero_has_small_residuals():
    ra = np.array([359.9999999, 0.0000001, 0.0, 0.0, 0.0, 0.0])
    residuals = star_residuals(measurements(ra=ra), ASSOCIATION)
    assert np.abs(residuals["ra_mas"]).max() < 1


def test_no_association_gives_no_residuals():
    assert len(star_residuals(measurements(), ASSOCIATION[:0])) == 0


def test_the_robust_width_is_a_standard_deviation_that_ignores_outliers_and_gaps():
    values = np.random.default_rng(1).normal(3.0, 2.0, 20_000)
    values[:100], values[100:200] = 1e6, np.nan
    assert robust_width(values) == pytest.approx(2.0, rel=0.04)
    assert np.isnan(robust_width(np.array([])))


def test_cells_hold_the_median_of_what_lies_in_them():
    x, y = np.array([0.5, 0.6, 0.7, 1.5, 9.0]), np.array([0.5, 0.5, 0.5, 0.5, 9.0])
    cells = binned_median(x, y, np.array([1.0, 2.0, 9.0, np.nan, 4.0]), np.array([0.0, 1.0, 2.0]))
    assert cells[0, 0] == 2.0
    assert np.isnan(cells).sum() == 3
    thin = binned_median(x, y, np.ones(5), np.array([0.0, 1.0, 2.0]), least=2)
    assert np.isnan(thin[0, 1])
