"""The calibration's metrics come from the recalibrated measurements of the tract's isolated stars."""

import numpy as np
import pytest

from drp_tasks.calibration_metrics import (
    CalibrationMetricsConfig,
    CalibrationMetricsTask,
    calibration_metrics,
    observations_of,
)
from drp_tasks.isolated_star import IsolationCriteria, associate_isolated_stars, attach_references
from drp_tasks.metrics import metrics_from_table
from tests.drp_tasks.synthetic_stars import Errors, make_sky, observe

SEEN = observe(make_sky(200), "grigrigri", Errors(centroid_mas=5.0, flux_relative=0.004, reference_mas=2.0))


@pytest.fixture(scope="module")
def world():
    """Sources with PSF moments, isolated stars, and summaries."""
    rng = np.random.default_rng(1)
    sources, n = SEEN.sources.copy(), len(SEEN.sources)
    sources["calibPsfUsed"] = np.arange(n) % 2 == 0
    for name, value in {"psfSize": 2.0, "psfE1": 0.01, "psfE2": 0.02}.items():
        sources[name] = value
        sources[name.replace("psf", "star")] = value + rng.normal(0, 0.005, n)
    members, stars = associate_isolated_stars(sources, IsolationCriteria())
    return sources, members, attach_references(stars, SEEN.references, 0.5), SEEN.summary


def test_every_measurement_finds_its_star_whatever_the_order(world):
    sources, members, stars, _ = world
    shuffled = sources[np.random.default_rng(2).permutation(len(sources))]
    seen = observations_of(shuffled, members[::-1], stars)
    assert list(seen) == ["g", "i", "r"]
    assert sum(len(one.star) for one in seen.values()) == len(members)
    counts = np.bincount(np.concatenate([one.star for one in seen.values()]), minlength=len(stars))
    assert np.array_equal(counts, stars["nSource"])
    for one in seen.values():
        assert np.abs(one.dec - np.asarray(stars["dec"])[one.star]).max() < 1 / 3600


def test_metrics_are_those_of_the_measurements(world):
    found = {(metric.metric, metric.band): metric for metric in calibration_metrics(*world)}
    # Half of all stars scatter less than sigma sqrt(ln 2) when there are three measurements of each.
    assert found["PA1", "r"].value == pytest.approx(1.0857 * 4 * np.sqrt(np.log(2)), rel=0.12)
    assert found["repeatabilityDec", "i"].value == pytest.approx(5, rel=0.2)
    assert found["AA1", ""].value < 2
    assert found["psfE2Residual", "g"].value == pytest.approx(0.005, rel=0.2)
    assert found["zeroPointScatter", "r"].value == 0
    assert {"AB1", "AM1", "AF1", "AD1", "TE1", "TE2", "PF1", "PF1_stars"} <= {name for name, _ in found}
    assert not found["AM3", "r"].measurable


def test_task_writes_a_metric_table_and_reports_the_main_ones(world):
    sources, members, stars, summary = world
    task = CalibrationMetricsTask(config=CalibrationMetricsConfig())
    half = np.asarray(sources["visit"]) < 5
    table = task.run([sources[half], sources[~half]], members, stars, [summary]).metrics
    metrics = metrics_from_table(table)
    assert [metric.value for metric in metrics if metric.metric == "PA1" and metric.band == "r"] == [
        task.metadata["PA1_r"]
    ]
    assert "AA1" in task.metadata
