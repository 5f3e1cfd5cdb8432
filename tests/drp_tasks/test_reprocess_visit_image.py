"""The final visit image has the survey's flux scale and WCS, and its sources are measured with both."""

import lsst.pipe.base as pb
import numpy as np
import pytest
from astropy.table import Table

from drp_tasks.images import plane, wcs_of
from drp_tasks.reprocess_visit_image import ReprocessVisitImageTask, detector_row
from tests.drp_tasks.synthetic_fields import (
    DETECTOR,
    VISIT,
    detector_wcs,
    draw,
    flux_in_psf_image,
    nanojansky_image,
    observe,
    psf_model,
    scattered_stars,
    summary,
)

SHAPE = (300, 300)
FWHM = 4.5
REFINED = detector_wcs(SHAPE, rotation_deg=0.01)
STARS = scattered_stars(SHAPE, 36, np.random.default_rng(1), faint=5e3)
SATURATED = np.zeros(SHAPE, bool)
SATURATED[:4] = True


@pytest.fixture(scope="module")
def result():
    """A detector whose zero point turned out 0.1 mag fainter than preliminarily thought."""
    array, variance = observe(draw(STARS, SHAPE, FWHM), 30.0, np.random.default_rng(2))
    known = Table({"x": STARS.x + 0.2, "y": STARS.y, "calibPsfUsed": np.arange(36) < 12})
    task = ReprocessVisitImageTask(config=ReprocessVisitImageTask.ConfigClass())
    return task.run(
        image=nanojansky_image(array, variance, detector_wcs(SHAPE), {"SAT": SATURATED}),
        psf=psf_model(SHAPE, FWHM).to_table(),
        preliminarySummary=summary(detector_wcs(SHAPE), zero_point=31.4),
        stars=known,
        visitSummary=summary(REFINED, zero_point=31.5),
        visit=VISIT,
        detector=DETECTOR,
    )


def test_a_fainter_electron_makes_smaller_fluxes(result):
    sources = result.sources
    distance = np.hypot(*(np.asarray(sources[axis])[:, None] - getattr(STARS, axis) for axis in ("x", "y")))
    nearest = distance.argmin(1)
    ratio = np.asarray(sources["psfFlux"]) / STARS.flux[nearest]
    assert len(sources) > 25
    assert np.median(ratio) == pytest.approx(flux_in_psf_image(FWHM) * 10 ** (-0.4 * 0.1), rel=0.003)
    assert result.visitImage.metadata["zeroPoint"] == 31.5


def test_variance_scales_as_the_square_of_flux(result):
    sky = np.median(result.visitImage.variance.array)
    assert sky == pytest.approx(30.0**2 * 10 ** (-0.8 * 0.1), rel=0.05)


def test_the_image_and_the_sources_have_the_refined_wcs(result):
    sources = result.sources
    ra, dec = REFINED.all_pix2world(sources["x"], sources["y"], 0)
    assert np.asarray(sources["ra"]) == pytest.approx(ra, abs=1e-10)
    assert np.asarray(sources["dec"]) == pytest.approx(dec, abs=1e-10)
    corner = np.array([[10.0, 290.0]])
    assert wcs_of(result.visitImage).all_pix2world(corner, 0) == pytest.approx(REFINED.all_pix2world(corner, 0))


def test_masks_are_carried(result):
    assert (plane(result.visitImage, "SAT") == SATURATED).all()


def test_sources_are_numbered_and_stars_are_not_extended(result):
    sources = result.sources
    assert len(set(sources["sourceId"])) == len(sources)
    assert set(sources["band"]) == {"r"}
    bright = np.asarray(sources["psfFlux"]) > 3e4
    assert abs(np.median(np.asarray(sources["extendedness"])[bright])) < 0.01


@pytest.mark.parametrize("change", [{"detector": [DETECTOR + 1]}, {"zeroPoint": [np.nan]}, {"wcs": [""]}])
def test_a_detector_without_final_calibration_is_an_upstream_failure(change):
    table = summary(REFINED)
    for name, value in change.items():
        table[name] = value
    with pytest.raises(pb.UpstreamFailureNoWorkFound):
        detector_row(table, DETECTOR)
