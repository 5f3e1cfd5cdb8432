"""Sizes and shapes of stars and of PSFs, by the same adaptive moments, so that they can be compared.

Belongs here: moments of stamps cut from an image or made from a PSF.
Doesn't: what follows from their difference (`drp_tasks.calibration_metrics`).
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import galsim
import numpy as np
from astropy.table import Table
from scipy.ndimage import zoom

from drp_tasks.psf import PolynomialPsf

OVERSAMPLING = 8


@dataclass(frozen=True, eq=False)
class Moments:
    """Adaptive moments, arrays (n,); NaN where they don't converge.

    Parameters
    ----------
    size
        Sigma of the best-fitting elliptical Gaussian, det(M)^(1/4), pixels.
    e1, e2
        Distortion (a² - b²) / (a² + b²) along the axes and along the diagonal.
    """

    size: np.ndarray
    e1: np.ndarray
    e2: np.ndarray


def stamp_moments(stamps: np.ndarray) -> Moments:
    """Measure stamps (n, side, side) by the adaptive moments of Bernstein & Jarvis (2002), as galsim.hsm does."""
    rows = np.full((3, len(stamps)), np.nan)
    for index, stamp in enumerate(stamps):
        try:
            found = galsim.hsm.FindAdaptiveMom(galsim.Image(np.ascontiguousarray(stamp, np.float64)))
        except galsim.GalSimHSMError:
            continue
        rows[:, index] = found.moments_sigma, found.observed_shape.e1, found.observed_shape.e2
    return Moments(*rows)


def star_moments(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, *, half: int = 12, start_xy: tuple[int, int] = (0, 0)
) -> Moments:
    """Measure sources at absolute positions x, y (n,) on a background-subtracted image; NaN too near the edge."""
    ny, nx = image.shape
    column, row = np.rint(x).astype(int) - start_xy[0], np.rint(y).astype(int) - start_xy[1]
    inside = np.flatnonzero((column >= half) & (row >= half) & (column + half < nx) & (row + half < ny))
    offsets = np.arange(-half, half + 1)
    stamps = image[row[inside, None, None] + offsets[:, None], column[inside, None, None] + offsets]
    rows = np.full((3, len(column)), np.nan)
    measured = stamp_moments(stamps)
    rows[:, inside] = measured.size, measured.e1, measured.e2
    return Moments(*rows)


def psf_moments(psf: PolynomialPsf, x: np.ndarray, y: np.ndarray) -> Moments:
    """Measure the PSF at places x, y (n,), with the sub-pixel phase that a star there would have."""
    return stamp_moments(psf.stamps_at(np.asarray(x, np.float64), np.asarray(y, np.float64)))


def add_moments(stars: Table, image: np.ndarray, psf: PolynomialPsf, measured: np.ndarray) -> None:
    """Add columns starSize, starE1, starE2 and psfSize, psfE1, psfE2 to a table of sources.

    Parameters
    ----------
    stars
        Sources with x, y in the image's pixels; changed in place.
    image
        Background-subtracted pixels (ny, nx) that begin at (0, 0).
    psf
        The image's PSF.
    measured
        Rows to measure; the others hold NaN.
    """
    x, y = (np.asarray(stars[name], np.float64)[measured] for name in ("x", "y"))
    for prefix, found in (("star", star_moments(image, x, y, half=psf.half)), ("psf", psf_moments(psf, x, y))):
        for suffix, values, unit in (("Size", found.size, u.pix), ("E1", found.e1, None), ("E2", found.e2, None)):
            column = np.full(len(stars), np.nan, np.float32)
            column[measured] = values
            stars[prefix + suffix] = column if unit is None else column * unit


def half_maximum_width(psf_image: np.ndarray) -> float:
    """Return the full width at half maximum of a PSF's image, in pixels: of the circle with the same area above it."""
    fine: np.ndarray = zoom(psf_image, OVERSAMPLING, order=3, mode="nearest", grid_mode=False)
    pixel_width = (psf_image.shape[0] - 1) / (fine.shape[0] - 1)
    area = np.count_nonzero(fine > fine.max() / 2) * pixel_width**2
    return float(2 * np.sqrt(area / np.pi))
