"""Truth metrics: pairing by place, the task from images to metric rows, and nobody else reads truth."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.metrics import metrics_from_table
from drp_tasks.skymap import TangentSkyMap
from drp_tasks.truth_matching import (
    CoaddImage,
    DifferenceImage,
    band_samples,
    count_bogus,
    is_isolated,
    match_objects,
    point_source_error,
    transient_sample,
    true_flux,
)
from drp_tasks.truth_metrics import Truth, TruthMetricsTask, zero_point_metrics
from tests.drp_tasks.synthetic_fields import DETECTOR, VISIT, nanojansky_image, psf_model

ROOT = Path(__file__).parents[2]
ARCSEC = 1 / 3600
SKYMAP = TangentSkyMap("t", ((53.1, -28.1),), patches_x=2, patches_y=1, patch_px=200, border_px=10)
WCS = SKYMAP.wcs(0)
SKY_VARIANCE = 400.0


@dataclass
class Handle:
    """A deferred dataset."""

    dataId: dict[str, Any]
    value: Any

    def get(self):
        return self.value


def at(x, y):
    """Positions on the sky of tract pixels."""
    ra, dec = WCS.all_pix2world(np.asarray(x, float), np.asarray(y, float), 0)
    return ra, dec


def coadd(patch, planes=None):
    box = SKYMAP.outer_box(patch)
    shape = (box.y.size, box.x.size)
    image = nanojansky_image(
        np.zeros(shape), np.full(shape, SKY_VARIANCE), WCS, planes, start_xy=(box.x.start, box.y.start)
    )
    return CoaddImage("r", patch, image, psf_model(shape, 4.5))


def truth_objects(x, y, mag, is_star=True):
    ra, dec = at(x, y)
    return Table({"id": np.arange(len(ra)), "ra": ra, "dec": dec, "isStar": np.resize(is_star, len(ra)), "mag_r": mag})


def objects_like(truth, rows, flux_factor=1.0):
    found = truth[rows]
    return Table(
        {
            "ra": found["ra"],
            "dec": np.asarray(found["dec"]) + 0.1 * ARCSEC,
            "r_psfFlux": true_flux(np.asarray(found["mag_r"])) * flux_factor,
            "r_psfFluxErr": np.full(len(found), 100.0),
            "r_flag": np.zeros(len(found), bool),
            "detect_isPrimary": np.ones(len(found), bool),
        }
    )


def test_the_expected_error_is_that_of_psf_photometry():
    shape = (200, 200)
    psf = psf_model(shape, 4.5)
    image = nanojansky_image(np.zeros(shape), np.full(shape, SKY_VARIANCE), WCS, {"NO_DATA": np.eye(200, dtype=bool)})
    error = point_source_error(image, psf, np.array([50.2, 80.0]), np.array([50.0, 20.0]), ("NO_DATA",))
    assert np.isnan(error[0])
    assert error[1] == pytest.approx(np.sqrt(SKY_VARIANCE / (psf.image_at(80, 20) ** 2).sum()))


def test_of_two_true_sources_the_brighter_one_is_the_object():
    truth = truth_objects([100, 101, 150], [50, 50, 50], [24.0, 20.0, 22.0])
    objects = objects_like(truth, [0, 2])
    assert list(match_objects(truth, np.array([1.0, 40.0, 10.0]), objects)) == [-1, 0, 1]


def test_a_source_is_isolated_if_nothing_comparable_is_near():
    x, y = np.array([0.0, 5.0, 50.0, 55.0, 100.0]), np.zeros(5)
    brightness = np.array([10.0, 1.0, 10.0, 8.0, 5.0])
    assert list(is_isolated(x, y, brightness, 10.0)) == [True, False, False, False, True]


def test_true_sources_know_their_patch_error_and_object():
    truth = truth_objects([50, 300, 350, 900], [100, 100, 50, 50], [20.0, 21.0, 22.0, 20.0])
    hole = np.zeros((200, 210), bool)
    hole[45:55, 155:165] = True
    sample = band_samples(truth, objects_like(truth, [0, 2], 0.99), [coadd(0), coadd(1, {"SAT": hole})], SKYMAP, 0)["r"]
    assert list(sample.patch) == [0, 1, 1, -1]
    assert list(np.isfinite(sample.expected_error)) == [True, True, False, False]
    assert list(sample.found) == [True, False, True, False]
    assert sample.flux[0] == pytest.approx(0.99 * sample.true_flux[0])
    assert np.isnan(sample.flux[1])


def transients(rows):
    """Truth rows from (id, x, y, visit, mag)."""
    number, x, y, visit, mag = (np.array(column) for column in zip(*rows, strict=True))
    ra, dec = at(x, y)
    return Table({"id": number, "ra": ra, "dec": dec, "visit": visit, "band": ["r"] * len(ra), "mag": mag})


def difference():
    shape = (200, 400)
    masked = np.zeros(shape, bool)
    masked[:, 250:260] = True
    image = nanojansky_image(np.zeros(shape), np.full(shape, SKY_VARIANCE), WCS, {"CR": masked})
    return DifferenceImage(VISIT, DETECTOR, image, psf_model(shape, 4.5))


def dia_sources(rows):
    """DiaSources from (x, y, flux), in the difference's visit."""
    x, y, flux = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    ra, dec = at(x, y)
    n = len(ra)
    return Table(
        {
            "visit": np.full(n, VISIT),
            "detector": np.full(n, DETECTOR),
            "ra": ra,
            "dec": dec,
            "psfFlux": flux,
            "psfFluxErr": np.full(n, 50.0),
        }
    )


def test_only_transients_that_a_difference_could_show_are_expected():
    table = transients(
        [(1, 50, 50, VISIT, 21.0), (2, 255, 50, VISIT, 21.0), (3, 5, 50, VISIT, 21.0), (4, 90, 90, VISIT + 1, 21.0),
         (5, 150, 150, VISIT, 22.0)]
    )  # fmt: skip
    sample = transient_sample(difference(), table, dia_sources([(50.5, 50, 13000.0), (90, 90, 5e3)]))
    assert sample.flux == pytest.approx(true_flux(np.array([21.0, 22.0])))
    assert list(sample.found) == [True, False]


def test_a_dia_source_beside_any_transient_is_not_bogus():
    table = transients([(1, 50, 50, VISIT + 5, 21.0)])
    assert count_bogus(dia_sources([(50, 53, -100.0), (50, 70, 300.0), (120, 120, 300.0)]), table) == 2


def test_zero_points_are_compared_detector_by_detector():
    visits = [{"visit": v, "detector": d, "zeroPoint": 31.0 + 0.1 * v} for v in range(4) for d in range(3)]
    summaries = [
        Table({"visit": [v] * 4, "detector": range(4), "band": ["g"] * 4, "zeroPoint": [31.012 + 0.1 * v] * 4})
        for v in range(4)
    ]
    bias = zero_point_metrics(Table(visits), summaries)[0]
    assert (bias.metric, bias.band, bias.n) == ("zeroPointBias", "g", 12)
    assert bias.value == pytest.approx(12.0)


def run_task(**changes):
    """A tract of two patches with 200 stars, all objects but one in ten, and 12 transients of which 9 are found."""
    rng = np.random.default_rng(1)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(20) * 18.0 + 20, np.arange(10) * 16.0 + 20))
    objects = truth_objects(x, y, rng.permutation(np.linspace(18.0, 22.9, 200)))
    shining = transients([(i, 30 * i + 20, 100, VISIT, 20.5) for i in range(12)])
    flux = float(true_flux(20.5))
    found = dia_sources([(30 * i + 20, 100, flux) for i in range(12) if i % 4] + [(11, 180, 500.0)])
    visits = Table({"visit": [VISIT], "detector": [DETECTOR], "band": ["r"], "zeroPoint": [31.0]})
    coadds = [coadd(0), coadd(1)]
    image = difference()
    here = {"visit": VISIT, "detector": DETECTOR}
    task = TruthMetricsTask(config=TruthMetricsTask.ConfigClass())
    arguments = {
        "objects": objects_like(objects, np.arange(200) % 10 != 3, 10 ** (-0.4 * 0.004)),
        "geometry": SKYMAP,
        "tract": 0,
        "coadds": [Handle({"patch": one.patch, "band": "r"}, one.image) for one in coadds],
        "coadd_psfs": [Handle({"patch": one.patch, "band": "r"}, one.psf.to_table()) for one in coadds],
        "summaries": [visits],
        "differences": [Handle(here, image.image)],
        "difference_psfs": [Handle(here, image.psf.to_table())],
        "dia_sources": found,
    } | changes
    rows = metrics_from_table(task.run(Truth(objects, shining, visits), **arguments).metrics)
    return {(metric.metric, metric.band): metric for metric in rows}, task.metadata


def test_the_task_measures_objects_and_transients():
    metrics, metadata = run_task()
    assert metrics["PA6", "r"].value == pytest.approx(4.0, abs=1e-6)
    assert metrics["purity", ""].value == 100.0
    assert metrics["diaBogusPerDetector", ""].value == 1.0
    assert metrics["diaCompleteness", ""].value == pytest.approx(75.0)
    assert not metrics["PA3", "r"].measurable
    assert not metrics["zeroPointBias", "r"].measurable
    assert metadata["PA6_r"] == metrics["PA6", "r"].value


def test_without_difference_imaging_only_objects_are_measured():
    metrics, _ = run_task(dia_sources=None, differences=[], difference_psfs=[])
    assert ("PA6", "r") in metrics
    assert not any(name.startswith("dia") for name, _ in metrics)


def test_objects_that_are_not_primary_do_not_count():
    metrics, _ = run_task()
    truth = truth_objects([50.0], [50.0], [20.0])
    doubled = objects_like(truth, [0])
    doubled["detect_isPrimary"] = False
    assert not run_task(objects=doubled)[0]["purity", ""].measurable
    assert metrics["purity", ""].measurable


def test_nobody_but_the_truth_metrics_names_a_truth_dataset():
    names = re.compile(r"truth_(object|transient|visit)")
    rooms = ("drp_tasks", "launchers", "arrivals", "planning", "validation", "sensors", "drp_assets")
    readers = {
        str(module.relative_to(ROOT))
        for room in rooms
        for module in sorted((ROOT / room).rglob("*.py"))
        if names.search(module.read_text())
    }
    assert readers == {"drp_tasks/truth_metrics.py"}
