"""DiaSources: what changed is found with its flux, and artefacts are not."""

import numpy as np
import pytest

from drp_tasks.dia_source import Candidates, DetectAndMeasureDiaSourceTask, Rejection, find_candidates, real
from drp_tasks.subtract_images import Pixels, subtract
from tests.drp_tasks.synthetic_fields import (
    DETECTOR,
    MJD,
    VISIT,
    Stars,
    detector_wcs,
    draw,
    nanojansky_image,
    observe,
    psf_model,
    scattered_stars,
    summary,
)

SHAPE = (400, 400)
FWHM = 4.8


def difference_of(transients=None, *, seed=1):
    """Difference of a star field with transients of either sign, and the PSF that belongs to it."""
    rng = np.random.default_rng(seed)
    stars = scattered_stars(SHAPE, 64, rng, faint=4e3, bright=4e5)
    brighter, fainter = draw(stars, SHAPE, FWHM), draw(stars, SHAPE, 4.0)
    if transients is not None:
        up = transients.flux > 0
        brighter = brighter + draw(Stars(*(v[up] for v in (transients.x, transients.y, transients.flux))), SHAPE, FWHM)
        fainter = fainter + draw(Stars(transients.x[~up], transients.y[~up], -transients.flux[~up]), SHAPE, 4.0)
    good = np.zeros(SHAPE, bool)
    science = Pixels(*observe(brighter, 30.0, rng), good)
    template = Pixels(*observe(fainter, 15.0, rng), good)
    difference = subtract(science, template, stars.x, stars.y)
    return difference.pixels, difference.psf(psf_model(SHAPE, FWHM))


def flux_error(pixels, psf):
    return float(np.sqrt(np.median(pixels.variance) / (psf.image_at(200, 200) ** 2).sum()))


def lattice_of_transients(snr, error, signs=1.0):
    """Transients between the stars' grid cells."""
    at = (np.arange(7) + 1) * 50.0
    x, y = (axis.ravel() for axis in np.meshgrid(at, at))
    return Stars(x, y, np.resize(snr, x.size) * error * signs)


def run_task(pixels, psf, planes=None):
    wcs = detector_wcs(SHAPE)
    image = nanojansky_image(pixels.array, pixels.variance, wcs, planes or {"NO_DATA": pixels.bad})
    task = DetectAndMeasureDiaSourceTask(config=DetectAndMeasureDiaSourceTask.ConfigClass())
    return task.run(image, psf.to_table(), summary(wcs), visit=VISIT, detector=DETECTOR).diaSources


def matches(table, transients, radius=2.0):
    """For each transient the row of its DiaSource, or -1."""
    distance = np.hypot(
        np.asarray(table["x"])[None] - transients.x[:, None], np.asarray(table["y"])[None] - transients.y[:, None]
    )
    return np.where(distance.min(1, initial=np.inf) < radius, distance.argmin(1), -1)


def test_a_field_where_nothing_changed_has_no_dia_source():
    assert len(run_task(*difference_of())) == 0


def test_transients_above_six_sigma_are_found_with_their_flux():
    error = flux_error(*difference_of())
    transients = lattice_of_transients(np.linspace(6.5, 40, 49), error)
    found = run_task(*difference_of(transients))
    row = matches(found, transients)
    assert (row >= 0).mean() > 0.95
    assert len(found) == (row >= 0).sum()
    flux, flux_error_ = (np.asarray(found[name])[row[row >= 0]] for name in ("psfFlux", "psfFluxErr"))
    pull = (flux - transients.flux[row >= 0]) / flux_error_
    assert abs(pull.mean()) < 0.5
    assert pull.std() == pytest.approx(1.0, abs=0.3)


def test_what_faded_is_a_negative_dia_source():
    error = flux_error(*difference_of())
    transients = lattice_of_transients(20.0, error, signs=-1.0)
    found = run_task(*difference_of(transients))
    assert (matches(found, transients) >= 0).mean() > 0.9
    assert np.asarray(found["isNegative"]).all()
    assert (np.asarray(found["psfFlux"]) < 0).all()


def test_dia_sources_know_their_place_time_and_number():
    transients = Stars(np.array([100.0, 250.0]), np.array([100.0, 300.0]), np.array([2e4, 3e4]))
    found = run_task(*difference_of(transients))
    assert len(found) == len(set(found["diaSourceId"])) == 2
    assert found["diaSourceId"].dtype == np.int64
    assert set(found["band"]) == {"r"}
    assert set(found["mjdMid"]) == {MJD}
    x, y = detector_wcs(SHAPE).all_world2pix(found["ra"], found["dec"], 0)
    assert x == pytest.approx(np.asarray(found["x"]))
    assert y == pytest.approx(np.asarray(found["y"]))


def test_a_misplaced_template_makes_dipoles_and_no_dia_sources():
    pixels, psf = difference_of()
    dipole = psf_model(SHAPE, FWHM)
    array = pixels.array.copy()
    stamp = 3e4 * (dipole.stamps_at(np.array([200.4]), np.array([200.0])) - dipole.image_at(200, 200))[0]
    array[188:213, 188:213] += stamp
    changed = Pixels(array, pixels.variance, pixels.bad)
    assert len(find_candidates(changed.array, changed.variance, changed.bad, psf, 4.5)) >= 2
    assert len(run_task(changed, psf)) == 0


def test_a_lone_hot_pixel_is_not_a_dia_source():
    pixels, psf = difference_of()
    array = pixels.array.copy()
    array[200, 200] += 3000
    assert len(run_task(Pixels(array, pixels.variance, pixels.bad), psf)) == 0


def test_a_transient_on_a_masked_column_is_rejected_and_beside_it_flagged():
    transients = Stars(np.array([100.0, 250.0]), np.array([100.0, 300.0]), np.array([2e4, 3e4]))
    pixels, psf = difference_of(transients)
    bad = np.zeros(SHAPE, bool)
    bad[:, 99:102], bad[:, 258] = True, True
    found = run_task(Pixels(np.where(bad, 0, pixels.array), pixels.variance, bad), psf)
    assert np.asarray(found["x"]) == pytest.approx([250], abs=0.5)
    assert np.asarray(found["flag"]).all()


def test_what_is_left_beside_a_saturated_star_is_rejected():
    transients = Stars(np.array([100.0, 250.0]), np.array([100.0, 300.0]), np.array([2e4, 3e4]))
    pixels, psf = difference_of(transients)
    saturated = np.zeros(SHAPE, bool)
    saturated[100, 107] = True
    found = run_task(pixels, psf, {"SAT": saturated})
    assert np.asarray(found["x"]) == pytest.approx([250], abs=0.5)


def candidates(**columns):
    n = len(columns["x"])
    defaults = {"x_err": 0.1, "y_err": 0.1, "flux": 1000.0, "flux_err": 50.0, "chi2": 1.0, "usable": 1.0, "y": 0.0}
    return Candidates(**{name: np.resize(columns.get(name, value), n) for name, value in (defaults | {"x": 0}).items()})


@pytest.mark.parametrize(
    ("change", "is_real"),
    [
        ({}, True),
        ({"flux": [-1000.0]}, True),
        ({"flux": [240.0]}, False),
        ({"chi2": [3.0]}, False),
        ({"chi2": [3.0], "flux": [1e4]}, True),
        ({"usable": [0.6]}, False),
        ({"x_err": [np.nan]}, False),
        ({"flux": [np.nan]}, False),
    ],
)
def test_a_candidate_is_judged_by_each_rule(change, is_real):
    assert real(candidates(x=[10.0], **change), Rejection()).tolist() == [is_real]


def test_of_a_lopsided_dipole_the_strong_lobe_stays():
    assert real(candidates(x=[10.0, 13.0], flux=[9000.0, -500.0]), Rejection()).tolist() == [True, False]
    assert real(candidates(x=[10.0, 13.0], flux=[9000.0, -6000.0]), Rejection()).tolist() == [False, False]
    assert real(candidates(x=[10.0, 15.0], flux=[9000.0, 6000.0]), Rejection()).tolist() == [True, True]


def test_a_source_that_a_bad_column_splits_is_one_dia_source():
    split = candidates(x=[10.0, 11.0, 30.0], flux=[6000.0, 9000.0, 500.0])
    assert real(split, Rejection()).tolist() == [False, True, True]
    transient = Stars(np.array([200.0]), np.array([200.0]), np.array([3e4]))
    pixels, psf = difference_of(transient)
    column = np.zeros(SHAPE, bool)
    column[:, 200] = True
    assert len(find_candidates(pixels.array, pixels.variance, column, psf, 4.5)) == 2
    assert len(run_task(Pixels(np.where(column, 0, pixels.array), pixels.variance, column), psf)) == 1
