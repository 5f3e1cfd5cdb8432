"""A small tract of two patches and two bands, painted from a list of stars, for the tests of object tasks."""

import astropy.units as u
import numpy as np

from drp_tasks.images import masked_image
from drp_tasks.object_bands import Band
from drp_tasks.psf import PolynomialPsf
from drp_tasks.skymap import TangentSkyMap

SKYMAP = TangentSkyMap("test", ((53.1, -28.1),), patches_x=2, patches_y=1, patch_px=160, border_px=25)
SIGMA = 1.9
NOISE = 1.0
BANDS = ("g", "r")


def gaussian_psf():
    y, x = np.mgrid[-12:13, -12:13]
    profile = np.exp(-0.5 * (x**2 + y**2) / SIGMA**2)
    return PolynomialPsf((profile / profile.sum())[None], 0, (0.0, 0.0), 1.0, 10)


def flux_at(signal_to_noise):
    """Flux of a star of the given S/N in one band."""
    return signal_to_noise * NOISE * SIGMA * 2 * np.sqrt(np.pi)


class Scene:
    """Stars (x, y, flux in g, flux in r) on a tract; each band's noise is the same for both patches."""

    def __init__(self, stars, *, seed=1, sigma=SIGMA):
        ny, nx = SKYMAP.tract_box.shape
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:ny, :nx]
        self.images = {}
        for k, name in enumerate(BANDS):
            image = rng.normal(0, NOISE, (ny, nx))
            for x0, y0, *fluxes in stars:
                profile = np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2) / (2 * np.pi * sigma**2)
                image += fluxes[k] * profile
            self.images[name] = image

    def bands(self, patch, *, saturated=()):
        box = SKYMAP.outer_box(patch)
        result = []
        for name, image in self.images.items():
            cut = image[box.y.start : box.y.stop, box.x.start : box.x.stop]
            flagged = np.zeros(cut.shape, bool)
            for x0, y0 in saturated:
                flagged[round(y0) - box.y.start, round(x0) - box.x.start] = True
            coadd = masked_image(
                cut,
                np.full(cut.shape, NOISE**2),
                {"SAT": flagged},
                unit=u.nJy,
                wcs=SKYMAP.wcs(),
                start_xy=(box.x.start, box.y.start),
            )
            result.append(Band(name, coadd, gaussian_psf()))
        return result
