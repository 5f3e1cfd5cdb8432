"""Fields of Moffat stars whose every flux is known, for the tests of difference imaging and forced photometry.

Belongs here: pixels, PSFs and WCSs with a known truth. Doesn't: catalogues over many visits (`synthetic_stars`).
"""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy.wcs import WCS

from drp_tasks.images import masked_image, wcs_to_text
from drp_tasks.psf import PolynomialPsf

RA0, DEC0, SCALE_ARCSEC = 53.1, -28.1, 0.2
VISIT, DETECTOR, MJD = 2026110100001, 4, 61345.25
GAIN_NJY = 0.7
"""Photon noise: variance in nJy² for one nJy."""


@dataclass(frozen=True)
class Stars:
    """Positions (pixels) and fluxes (nJy)."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray


def moffat(fwhm_px: float) -> galsim.GSObject:
    """The shape of a star."""
    return galsim.Moffat(beta=3.2, fwhm=fwhm_px)


def scattered_stars(shape: tuple[int, int], n: int, rng: np.random.Generator, faint=4e3, bright=2e5) -> Stars:
    """Stars on a jittered grid, so that no two overlap much."""
    columns = int(np.ceil(np.sqrt(n)))
    cell = (np.arange(n) % columns, np.arange(n) // columns)
    jitter = rng.uniform(0.2, 0.8, (2, n))
    x = (cell[0] + jitter[0]) * shape[1] / columns
    y = (cell[1] + jitter[1]) * shape[0] / columns
    return Stars(x, y, np.exp(rng.uniform(np.log(faint), np.log(bright), n)))


def draw(stars: Stars, shape: tuple[int, int], fwhm_px: float, shear=(0.0, 0.0)) -> np.ndarray:
    """Stars without noise."""
    image = galsim.ImageD(shape[1], shape[0], xmin=0, ymin=0)
    for x, y, flux in zip(stars.x, stars.y, stars.flux, strict=True):
        stamp = galsim.ImageD(61, 61, xmin=round(x) - 30, ymin=round(y) - 30)
        star = moffat(fwhm_px).shear(g1=shear[0], g2=shear[1]) * flux
        star.drawImage(stamp, scale=1, center=galsim.PositionD(x, y), method="no_pixel")
        both = stamp.bounds & image.bounds
        if both.isDefined():
            image[both] += stamp[both]
    return image.array


def observe(truth: np.ndarray, sky_noise: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add noise of sky and photons; returns pixels and their variance."""
    variance = sky_noise**2 + GAIN_NJY * np.clip(truth, 0, None)
    return (truth + rng.normal(size=truth.shape) * np.sqrt(variance)).astype(np.float32), variance.astype(np.float32)


def psf_model(shape: tuple[int, int], fwhm_px: float) -> PolynomialPsf:
    """The true PSF as the pipeline's model."""
    image = _psf_image(fwhm_px)
    return PolynomialPsf((image / image.sum())[None], 0, (shape[1] / 2, shape[0] / 2), float(max(shape)), 40)


def flux_in_psf_image(fwhm_px: float) -> float:
    """Part of a star's flux that the model's image holds, and PSF photometry therefore finds."""
    return float(_psf_image(fwhm_px).sum())


def _psf_image(fwhm_px: float) -> np.ndarray:
    return moffat(fwhm_px).drawImage(nx=25, ny=25, scale=1, method="no_pixel", dtype=float).array


def detector_wcs(shape: tuple[int, int], rotation_deg=0.0) -> WCS:
    """A tangent plane around the field's centre."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA0, DEC0]
    wcs.wcs.crpix = [shape[1] / 2 + 0.5, shape[0] / 2 + 0.5]
    angle = np.radians(rotation_deg)
    wcs.wcs.cd = SCALE_ARCSEC / 3600 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.set()
    return wcs


def nanojansky_image(array, variance, wcs, planes=None, start_xy=(0, 0)):
    """A masked image as the tasks exchange it."""
    return masked_image(array, variance, planes or {}, unit=u.nJy, wcs=wcs, start_xy=start_xy)


def summary(wcs: WCS, zero_point=31.4) -> Table:
    """A visit's summary of one detector."""
    return Table(
        {
            "visit": [VISIT],
            "detector": [DETECTOR],
            "band": ["r"],
            "mjdMid": [MJD],
            "zeroPoint": [zero_point],
            "wcs": [wcs_to_text(wcs)],
        }
    )
