"""Galaxies drawn many at a time are those that galsim draws one at a time."""

import galsim
import numpy as np
import pytest

from simulator.galaxies import LARGE_FLUX_ELECTRON, Galaxies, add_galaxies, shear_matrix
from simulator.optics import MOFFAT_BETA

PSF_FWHM_PX = 4.4
PSF_SHEAR = (0.02, 0.03)
ROTATION_RAD = 0.7


def galaxies(x, y, flux, radius, index, shear):
    count = len(x)
    return Galaxies(
        x=np.array(x),
        y=np.array(y),
        flux_electron=np.array(flux),
        half_light_radius_px=np.array(radius),
        sersic_index=np.array(index),
        shape=shear_matrix(*np.array([shear] * count).T, ROTATION_RAD),
        psf_fwhm_px=np.full(count, PSF_FWHM_PX),
        psf_shape=shear_matrix(*np.array([PSF_SHEAR] * count).T),
    )


@pytest.mark.parametrize(("index", "radius", "flux"), [(1.0, 3.0, 1e4), (2.5, 2.0, 1e4), (2.5, 6.0, 1e5)])
def test_a_galaxy_equals_the_one_that_galsim_draws(index, radius, flux):
    light = np.zeros((200, 200))
    add_galaxies(light, galaxies([100.3], [90.8], [flux], [radius], [index], (0.3, -0.2)))

    sersic = galsim.Sersic(index, half_light_radius=radius).shear(g1=0.3, g2=-0.2).rotate(ROTATION_RAD * galsim.radians)
    psf = galsim.Moffat(beta=MOFFAT_BETA, fwhm=PSF_FWHM_PX).shear(g1=PSF_SHEAR[0], g2=PSF_SHEAR[1])
    expected = galsim.ImageD(200, 200, xmin=0, ymin=0)
    (galsim.Convolve(sersic, psf) * flux).drawImage(
        expected, scale=1.0, center=galsim.PositionD(100.3, 90.8), method="no_pixel"
    )
    np.testing.assert_allclose(light, expected.array, atol=1e-3 * expected.array.max())


def test_all_light_lands_on_the_image():
    light = np.zeros((300, 300))
    flux = [1e3, 2 * LARGE_FLUX_ELECTRON, 5e3]
    add_galaxies(light, galaxies([100.0, 150.2, 200.7], [150.0] * 3, flux, [2.0] * 3, [1.0, 2.5, 1.0], (0.1, 0.0)))
    assert light.sum() == pytest.approx(sum(flux), rel=1e-9)


def test_what_falls_beyond_the_edge_is_lost():
    light = np.zeros((100, 100))
    add_galaxies(light, galaxies([-0.5, 300.0], [50.0, 50.0], [1e4, 1e4], [2.0, 2.0], [1.0, 1.0], (0.0, 0.0)))
    assert light.sum() == pytest.approx(5e3, rel=0.01)


def test_a_shear_conserves_area():
    matrices = shear_matrix(np.array([0.3, -0.5]), np.array([0.1, 0.4]), 1.1)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0)
