"""Choosing the stars that a detector's PSF is fitted to, before anything but their brightness and width is known.

Belongs here: bright, isolated sources whose widths agree.
Doesn't: the PSF itself (`drp_tasks.psf`), or the coadds' stars, which the isolated-star catalogue names
(`drp_tasks.coadd_psf`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from scipy.spatial import cKDTree

MIN_HALF_LIGHT_PX = 1.0
"""Narrower than any star: what remains of a cosmic ray."""

LOCUS_MIN_SOURCES = 6
WINDOW_SIGMA_PER_HALF_LIGHT = 1 / 1.1774
APERTURE_PX = 9.0


@dataclass(frozen=True, eq=False)
class PsfCandidates:
    """Stars by the look of them: windowed positions (n,) in pixels, and the half-light radius they share."""

    x: np.ndarray
    y: np.ndarray
    half_light_radius: float


def select_psf_stars(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    *,
    threshold: float,
    min_signal_to_noise: float,
    width_tolerance: float,
    isolation_px: float,
) -> PsfCandidates:
    """Find bright, isolated sources on the locus of half-light radii where stars lie.

    Parameters
    ----------
    image, variance, bad
        Background-subtracted pixels, their variance, where they are unusable; (ny, nx).
    threshold
        Least significance of each pixel of a detection, without any filter.
    min_signal_to_noise
        Of the flux in an aperture of `APERTURE_PX`.
    width_tolerance
        How far a half-light radius may be from the locus, as a part of it.
    isolation_px
        Least distance to the next detection.
    """
    pixels = np.ascontiguousarray(image)
    found = sep.extract(
        pixels, threshold, var=variance, mask=bad, minarea=5, filter_kernel=None, deblend_cont=1.0, clean=False
    )
    flux, error, _ = sep.sum_circle(pixels, found["x"], found["y"], APERTURE_PX, var=variance, mask=bad)
    radius, _ = sep.flux_radius(pixels, found["x"], found["y"], np.full(len(found), APERTURE_PX), 0.5, mask=bad)
    bright = (flux > min_signal_to_noise * error) & (radius > MIN_HALF_LIGHT_PX)
    if not bright.any():
        return PsfCandidates(np.zeros(0), np.zeros(0), np.nan)
    sigma = np.clip(radius, MIN_HALF_LIGHT_PX, 6.0) * WINDOW_SIGMA_PER_HALF_LIGHT
    x, y, _ = sep.winpos(pixels, found["x"], found["y"], sigma, mask=bad)
    isolated = cKDTree(np.c_[x, y]).query(np.c_[x, y], k=2)[0][:, 1] > isolation_px
    bright &= isolated
    locus = stellar_radius(radius[bright])
    stars = bright & (np.abs(radius - locus) < width_tolerance * locus)
    return PsfCandidates(x[stars], y[stars], locus)


def stellar_radius(radii: np.ndarray) -> float:
    """Return where the half-light radii (n,) of stars cluster: the median of the narrower half, NaN without sources."""
    narrow = np.sort(radii)[: max(LOCUS_MIN_SOURCES, len(radii) // 2)]
    return float(np.median(narrow)) if len(narrow) else np.nan
