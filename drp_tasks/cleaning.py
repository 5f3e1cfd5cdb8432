"""Pixels made fit for measurement: holes filled, the sky subtracted, the variance smoothed.

Belongs here: operations on whole planes of one exposure, before any source is measured.
Doesn't: the detector's own signature (`drp_tasks.isr`), or finding what hit it (`drp_tasks.cosmic_rays`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter

FILL_REACH_PX = 3
SOURCE_BOX_PX, SOURCE_SIGMA, SOURCE_GROWTH_PX = 3, 4.0, 4
"""A source stands out by so many standard deviations of a box's mean; lower, and masking noise biases the sky."""


@dataclass(frozen=True, eq=False)
class Background:
    """The sky: its level at each pixel (ny, nx), its mean, and the pixel noise around it."""

    level: np.ndarray
    mean: float
    noise: float


def fit_background(image: np.ndarray, masked: np.ndarray, box_px: int) -> Background:
    """Return the sky as a spline through clipped means of boxes, sources and bad pixels masked."""
    found = sep.Background(np.ascontiguousarray(image, np.float32), mask=masked, bw=box_px, bh=box_px)
    return Background(found.back(dtype=np.float32), float(found.globalback), float(found.globalrms))


def source_mask(image: np.ndarray, background: Background) -> np.ndarray:
    """Return where means of 3 x 3 pixels stand out of a first sky, grown by `SOURCE_GROWTH_PX` pixels."""
    means = uniform_filter(image - background.level, SOURCE_BOX_PX, mode="nearest")
    raised: np.ndarray = means > SOURCE_SIGMA / SOURCE_BOX_PX * background.noise
    grown: np.ndarray = maximum_filter(raised, size=2 * SOURCE_GROWTH_PX + 1, mode="nearest")
    return grown


def fill_holes(image: np.ndarray, holes: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return a copy whose holes hold a Gaussian-weighted mean of their good neighbours, or zero where there are none.

    Parameters
    ----------
    image
        Background-subtracted pixels (ny, nx).
    holes
        Pixels to fill.
    bad
        Pixels not to learn from; holes are among them anyway.
    """
    filled = image.copy()
    row, column = np.nonzero(holes)
    offsets = np.arange(-FILL_REACH_PX, FILL_REACH_PX + 1)
    rows = row[:, None, None] + offsets[:, None]
    columns = column[:, None, None] + offsets
    ny, nx = image.shape
    inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    rows, columns = np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)
    nearness = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2)).astype(image.dtype)
    weight = nearness * (inside & ~bad[rows, columns] & ~holes[rows, columns])
    total = weight.sum(axis=(1, 2))
    mean = (weight * np.where(weight > 0, image[rows, columns], 0)).sum(axis=(1, 2)) / np.where(total > 0, total, 1)
    filled[row, column] = mean
    return filled


def smooth_variance(variance: np.ndarray, bad: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return the variance without most of its own noise, which would correlate with that of the pixels.

    Bad pixels don't spread: they take the median before the Gaussian of ``sigma_px`` is applied.
    """
    typical = np.median(variance[~bad]) if not bad.all() else np.float32(1)
    smooth: np.ndarray = gaussian_filter(np.where(bad, typical, variance).astype(np.float32), sigma_px, mode="nearest")
    return smooth
