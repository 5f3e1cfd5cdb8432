"""The stellar locus: as wide as it was made, from stars only, and honest about too few."""

import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.metrics import metrics_from_table
from drp_tasks.object_metrics import LOCUS_INTERCEPT, LOCUS_SLOPE, ObjectMetricsTask, distance_from_locus

WIDTH_MMAG = 15.0


def objects(n=400, *, offset_mmag=0.0, galaxies=0, seed=3):
    rng = np.random.default_rng(seed)
    colour = rng.uniform(0.2, 1.1, n + galaxies)
    off = rng.normal(offset_mmag, WIDTH_MMAG, n + galaxies) / 1e3
    off[n:] += 0.2
    r = rng.uniform(18, 21, n + galaxies)
    g, i = r + colour, r - (LOCUS_SLOPE * colour + LOCUS_INTERCEPT) - off * np.hypot(1, LOCUS_SLOPE)
    flux = {band: 10 ** (-0.4 * (magnitude - 31.4)) for band, magnitude in {"g": g, "r": r, "i": i}.items()}
    columns = {f"{band}_psfFlux": values for band, values in flux.items()}
    columns |= {f"{band}_psfFluxErr": values / 500 for band, values in flux.items()}
    columns |= {f"{band}_flag": np.zeros(len(r), bool) for band in flux}
    extendedness = np.where(np.arange(len(r)) < n, 0.0, 0.3)
    return Table(columns | {"r_extendedness": extendedness, "detect_isPrimary": np.ones(len(r), bool)})


def measure(table):
    return {metric.metric: metric for metric in metrics_from_table(ObjectMetricsTask().run(table).metrics)}


def test_the_width_and_the_offset_are_those_of_the_stars():
    metrics = measure(objects(offset_mmag=6.0, galaxies=300))
    assert metrics["wPerp"].value == pytest.approx(WIDTH_MMAG, rel=0.15)
    assert metrics["wPerpMedian"].value == pytest.approx(6.0, abs=3.0)
    assert metrics["wPerp"].unit == "mmag"
    assert 200 < metrics["wPerp"].n < 400


def test_duplicates_flagged_and_faint_stars_do_not_count():
    table = objects()
    table["detect_isPrimary"][:150] = False
    table["r_flag"][150:300] = True
    table["r_psfFluxErr"][300:350] = table["r_psfFlux"][300:350] / 100
    assert 20 < measure(table)["wPerp"].n <= 50


def test_too_few_stars_are_not_measurable():
    metric = measure(objects(5))["wPerp"]
    assert not metric.measurable
    assert "20 needed" in metric.detail


def test_a_survey_without_a_band_is_not_measurable():
    table = objects()
    table.remove_columns([name for name in table.colnames if name.startswith("i_")])
    metric = measure(table)["wPerp"]
    assert not metric.measurable
    assert "in i" in metric.detail


def test_fluxes_that_are_not_measured_are_left_out():
    table = objects()
    table["g_psfFlux"][:100] = np.nan
    table["r_extendedness"][100:200] = np.nan
    assert measure(table)["wPerp"].n <= 200


def test_the_distance_is_perpendicular():
    on = distance_from_locus(
        np.array([20.5]), np.array([20.0]), np.array([20.0 - (LOCUS_SLOPE * 0.5 + LOCUS_INTERCEPT)])
    )
    assert on[0] == pytest.approx(0.0, abs=1e-12)
    redder = distance_from_locus(np.array([20.5]), np.array([20.0]), np.array([19.7]))
    assert redder[0] == pytest.approx((0.3 - (LOCUS_SLOPE * 0.5 + LOCUS_INTERCEPT)) / np.sqrt(1 + LOCUS_SLOPE**2))
