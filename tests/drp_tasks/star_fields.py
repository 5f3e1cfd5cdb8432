"""A detector full of Moffat stars in electrons, with a PSF that varies and a WCS that bends: truth for single visits.

Belongs here: the truth and its pixels.
Doesn't: differences and templates (`synthetic_fields`), coadds (`synthetic_coadds`).
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import galsim
import numpy as np
from astropy.table import Table
from astropy.wcs import WCS, Sip

BETA, FWHM_PX, SKY, READ_NOISE = 3.2, 4.0, 700.0, 9.0
ZERO_POINT = 31.8


@dataclass(frozen=True)
class StarField:
    """Electrons without the sky, their variance, no bad pixels; the stars' true positions and fluxes."""

    image: np.ndarray
    variance: np.ndarray
    bad: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray


def psf_at(x: float, y: float, size: int) -> galsim.GSObject:
    u_, v_ = x / size - 0.5, y / size - 0.5
    return galsim.Moffat(beta=BETA, fwhm=FWHM_PX * (1 + 0.04 * u_)).shear(g1=0.02 + 0.02 * u_, g2=-0.01 + 0.02 * v_)


def grid_of_positions(n_side: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    step = np.linspace(30, size - 30, n_side)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, n_side**2) for axis in np.meshgrid(step, step))
    return x, y


def draw_stars(x: np.ndarray, y: np.ndarray, flux: np.ndarray, size: int) -> np.ndarray:
    canvas = galsim.ImageD(size, size, xmin=0, ymin=0)
    for one_x, one_y, one_flux in zip(x, y, flux, strict=True):
        stamp = galsim.ImageD(91, 91, xmin=round(one_x) - 45, ymin=round(one_y) - 45)
        star = psf_at(one_x, one_y, size) * one_flux
        star.drawImage(stamp, scale=1.0, center=galsim.PositionD(one_x, one_y), method="no_pixel")
        common = stamp.bounds & canvas.bounds
        canvas[common] += stamp[common]
    return canvas.array


def star_field(seed: int = 1, n_side: int = 6, size: int = 320, flux_range=(1e4, 3e5), noise: bool = True) -> StarField:
    rng = np.random.default_rng(seed)
    x, y = grid_of_positions(n_side, size, rng)
    flux = 10 ** rng.uniform(*np.log10(flux_range), len(x))
    expected = draw_stars(x, y, flux, size)
    variance = expected + SKY + READ_NOISE**2
    image = expected + rng.normal(0, np.sqrt(variance)) if noise else expected
    return StarField(image.astype(np.float32), variance.astype(np.float32), np.zeros(image.shape, bool), x, y, flux)


def bent_wcs(size: int = 320) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crval = [53.1, -28.1]
    wcs.wcs.crpix = [size / 2 + 0.5, size / 2 + 0.5]
    scale = 0.2 / 3600
    wcs.wcs.cd = np.array([[-scale, 0.02 * scale], [0.02 * scale, scale]])
    a, b = np.zeros((2, 3, 3))
    a[2, 0], a[1, 1], b[0, 2], b[1, 1] = 8e-7, -5e-7, 6e-7, 4e-7
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def header_guess(wcs: WCS, offset_xy: tuple[float, float]) -> WCS:
    """What a telescope believes: the same without distortion, off by some pixels."""
    guess = WCS(naxis=2)
    guess.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    guess.wcs.crval = wcs.wcs.crval
    guess.wcs.crpix = wcs.wcs.crpix + np.array(offset_xy)
    guess.wcs.cd = wcs.wcs.cd
    guess.wcs.set()
    return guess


def reference_table(field: StarField, wcs: WCS, error_mas: float = 1.0, seed: int = 2) -> Table:
    rng = np.random.default_rng(seed)
    ra, dec = wcs.all_pix2world(field.x, field.y, 0)
    n = len(ra)
    return Table(
        {
            "id": np.arange(n),
            "ra": (ra + rng.normal(0, error_mas / 3.6e6, n) / np.cos(np.radians(dec))) * u.deg,
            "dec": (dec + rng.normal(0, error_mas / 3.6e6, n)) * u.deg,
            "raErr": np.full(n, error_mas, np.float32) * u.mas,
            "decErr": np.full(n, error_mas, np.float32) * u.mas,
            "mag_r": (ZERO_POINT - 2.5 * np.log10(field.flux) + rng.normal(0, 0.005, n)) * u.mag,
            "magErr_r": np.full(n, 0.005, np.float32) * u.mag,
        }
    )
