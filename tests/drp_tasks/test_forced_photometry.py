"""Forced photometry: unbiased fluxes of all objects at their places, detected or not."""

import lsst.pipe.base as pb
import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.forced_photometry import ForcedPhotometryTask, positions_on_detector
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
FWHM = 4.5
WCS = detector_wcs(SHAPE, rotation_deg=25.0)


def objects_at(x, y, primary=True):
    ra, dec = WCS.all_pix2world(x, y, 0)
    n = len(np.atleast_1d(x))
    return Table(
        {
            "objectId": 100 + np.arange(n),
            "ra": np.atleast_1d(ra),
            "dec": np.atleast_1d(dec),
            "detect_isPrimary": np.resize(primary, n),
        }
    )


def run(array, variance, objects, planes=None, **more):
    task = ForcedPhotometryTask(config=ForcedPhotometryTask.ConfigClass())
    image = nanojansky_image(array, variance, WCS, planes)
    psf = psf_model(SHAPE, FWHM).to_table()
    return task.run(image, psf, summary(WCS), objects, visit=VISIT, detector=DETECTOR, **more).forcedSources


def test_fluxes_of_bright_faint_and_absent_objects_are_unbiased():
    rng = np.random.default_rng(1)
    stars = scattered_stars(SHAPE, 100, rng, faint=100.0, bright=2e4)
    stars = Stars(stars.x, stars.y, np.where(np.arange(100) % 4 == 0, 0.0, stars.flux))
    array, variance = observe(draw(stars, SHAPE, FWHM), 30.0, rng)
    found = run(array, variance, objects_at(stars.x, stars.y))
    pull = (np.asarray(found["psfFlux"]) - stars.flux) / np.asarray(found["psfFluxErr"])
    pull = pull[~np.asarray(found["flag"])]
    assert len(pull) > 90
    assert abs(np.median(pull)) < 0.3
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1.0, abs=0.25)


def test_the_difference_is_measured_with_its_own_psf():
    rng = np.random.default_rng(2)
    array, variance = observe(np.zeros(SHAPE), 30.0, rng)
    changed = Stars(np.array([150.0]), np.array([200.0]), np.array([-3e4]))
    difference = nanojansky_image(array - draw(Stars(changed.x, changed.y, -changed.flux), SHAPE, 6.0), variance, WCS)
    found = run(
        array,
        variance,
        objects_at(changed.x, changed.y),
        difference=difference,
        differencePsf=psf_model(SHAPE, 6.0).to_table(),
    )
    assert found["psfDiffFlux"][0] == pytest.approx(-3e4, abs=4 * found["psfDiffFluxErr"][0])
    assert abs(found["psfFlux"][0]) < 4 * found["psfFluxErr"][0]


def test_without_a_difference_only_direct_fluxes_are_measured():
    array, variance = observe(np.zeros(SHAPE), 30.0, np.random.default_rng(3))
    found = run(array, variance, objects_at(np.array([100.0]), np.array([100.0])))
    assert np.isfinite(found["psfFlux"]).all()
    assert np.isnan(found["psfDiffFlux"]).all()


def test_only_primary_objects_on_the_detector_are_measured():
    array, variance = observe(np.zeros(SHAPE), 30.0, np.random.default_rng(4))
    x, y = np.array([10.0, 200.0, 300.0, -5.0, 200.0]), np.array([10.0, 200.0, 300.0, 50.0, 399.7])
    found = run(array, variance, objects_at(x, y, primary=[True, False, True, True, True]))
    assert list(found["objectId"]) == [100, 102]
    assert np.asarray(found["x"]) == pytest.approx([10, 300])
    assert (set(found["band"]), set(found["mjdMid"]), set(found["visit"])) == ({"r"}, {MJD}, {VISIT})


def test_a_flux_on_masked_pixels_is_flagged():
    array, variance = observe(np.zeros(SHAPE), 30.0, np.random.default_rng(5))
    saturated = np.zeros(SHAPE, bool)
    saturated[90:110, 90:110] = True
    found = run(array, variance, objects_at(np.array([100.0, 200.0]), np.array([100.0, 200.0])), {"SAT": saturated})
    assert list(found["flag"]) == [True, False]


def test_a_detector_without_objects_is_no_work():
    array, variance = observe(np.zeros(SHAPE), 30.0, np.random.default_rng(6))
    with pytest.raises(pb.NoWorkFound):
        run(array, variance, objects_at(np.array([5000.0]), np.array([100.0])))


def test_positions_are_found_across_the_meridian():
    wcs = detector_wcs(SHAPE)
    wcs.wcs.crval = [0.0, -28.1]
    ra, dec = wcs.all_pix2world([50.0, 350.0], [200.0, 200.0], 0)
    rows, x, _ = positions_on_detector(ra, dec, wcs, SHAPE)
    assert list(rows) == [0, 1]
    assert x == pytest.approx([50, 350])
