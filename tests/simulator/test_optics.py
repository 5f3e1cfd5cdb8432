"""Light falls where the header nearly says, in the shape that the seeing gives it."""

import numpy as np
import pytest

from drp_tasks.camera import NOMINAL_ZERO_POINTS
from simulator.optics import Optics
from simulator.sky import field_to_sky
from simulator.survey import CI, DEMO

X_ARCSEC, Y_ARCSEC = np.array([-20.0, 0.0, 15.0]), np.array([5.0, -30.0, 10.0])


@pytest.mark.parametrize("survey", [CI, DEMO], ids=lambda survey: survey.name)
@pytest.mark.parametrize("visit_index", [0, 4, 11])
@pytest.mark.parametrize("detector", [0, 4])
def test_the_headers_wcs_is_off_by_the_pointing_error_alone(survey, visit_index, detector):
    visit = survey.visits[visit_index]
    optics = Optics(survey, visit, detector)
    true_x, true_y = optics.to_detector(X_ARCSEC, Y_ARCSEC)
    said_x, said_y = optics.header_wcs().world_to_pixel_values(*field_to_sky(survey, X_ARCSEC, Y_ARCSEC))
    np.testing.assert_allclose(said_x - true_x, visit.pointing_error_px[0], atol=0.5)
    np.testing.assert_allclose(said_y - true_y, visit.pointing_error_px[1], atol=0.5)


def test_distortion_and_turbulence_move_images_by_less_than_a_pixel_but_not_by_nothing():
    visit = DEMO.visits[0]
    optics = Optics(DEMO, visit, 0)
    true_x, _ = optics.to_detector(np.array([-150.0, -100.0]), np.array([-150.0, -100.0]))
    said_x, _ = optics.header_wcs().world_to_pixel_values(
        *field_to_sky(DEMO, np.array([-150.0, -100.0]), np.array([-150.0, -100.0]))
    )
    moved = said_x - true_x - visit.pointing_error_px[0]
    assert 0.01 < np.abs(moved).max() < 1.0
    assert moved[0] != pytest.approx(moved[1], abs=1e-3)


def test_the_dithered_field_of_the_block_is_centred_on_the_tract():
    for visit in CI.visits:
        centres = [Optics(CI, visit, detector.id).to_detector(*visit.dither_arcsec) for detector in CI.detectors]
        # The middle of four detectors is as far to the right of the left ones as it is to the left of the right ones.
        assert np.mean([float(x) for x, _ in centres]) == pytest.approx(CI.detector_px / 2 - 0.5, abs=0.5)
        assert np.mean([float(y) for _, y in centres]) == pytest.approx(CI.detector_px / 2 - 0.5, abs=0.5)


def test_the_boresight_is_at_the_middle_of_the_camera():
    optics = Optics(DEMO, DEMO.visits[3], 4)
    x, y = optics.header_wcs().world_to_pixel_values(*optics.boresight_deg)
    error_x, error_y = DEMO.visits[3].pointing_error_px
    assert (float(x) - error_x, float(y) - error_y) == pytest.approx((255.5, 255.5), abs=0.01)


def test_the_psf_has_unit_flux_and_the_seeing_of_the_visit():
    visit = DEMO.visits[0]
    optics = Optics(DEMO, visit, 4)
    psf = optics.psf(255.5, 255.5)
    assert psf.flux == pytest.approx(1.0)
    assert psf.drawImage(nx=200, ny=200, scale=0.2, method="no_pixel").calculateFWHM() * 1.0 == pytest.approx(
        visit.fwhm_px, rel=0.05
    )


def test_the_psf_varies_over_the_focal_plane():
    corner, centre = (Optics(DEMO, DEMO.visits[0], detector) for detector in (0, 4))
    at = np.array(100.0), np.array(100.0)
    assert corner.fwhm_px(*at) != pytest.approx(centre.fwhm_px(*at), rel=1e-3)
    assert corner.psf_shear(*at)[0] < centre.psf_shear(*at)[0]


def test_clouds_take_from_the_zero_point():
    visit = DEMO.visits[1]
    assert Optics(DEMO, visit, 0).zero_point == NOMINAL_ZERO_POINTS["r"] - visit.extinction_mag
