"""Shifts of stamps by parts of a pixel, many at a time, by quintic B-splines.

Belongs here: interpolation of small images whose features a spline resolves.
Doesn't: resampling of whole images with masks and variances (`drp_tasks.warping`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.interpolate import BSpline
from scipy.ndimage import spline_filter1d

SPLINE_DEGREE: Final = 5
PAD: Final = 4
"""Margin of pixels that a stamp needs on each side, so that its splines' ends don't matter."""

_SPLINE = BSpline.basis_element(np.arange(SPLINE_DEGREE + 2) - (SPLINE_DEGREE + 1) / 2, extrapolate=False)
_SPLINE_SLOPE = _SPLINE.derivative()
_REACH = (SPLINE_DEGREE + 1) // 2


def spline_coefficients(stamps: np.ndarray) -> np.ndarray:
    """Return the quintic B-spline coefficients (n, ny, nx) that interpolate stamps (n, ny, nx)."""
    once = spline_filter1d(stamps, order=SPLINE_DEGREE, axis=-1, output=np.float64, mode="mirror")
    return spline_filter1d(once, order=SPLINE_DEGREE, axis=-2, output=np.float64, mode="mirror")


def shift_matrices(shift: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return matrices (n, side, side + 2 pad) that move a padded line by ``shift`` (n,), and their derivatives."""
    matrices = np.zeros((2, len(shift), side, side + 2 * PAD))
    lines = np.arange(side)
    for tap in range(-_REACH, _REACH + 1):
        argument = tap - shift
        matrices[0][:, lines, lines + PAD - tap] = np.nan_to_num(_SPLINE(argument))[:, None]
        matrices[1][:, lines, lines + PAD - tap] = np.nan_to_num(-_SPLINE_SLOPE(argument))[:, None]
    return matrices[0], matrices[1]
