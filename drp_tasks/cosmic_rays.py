"""Cosmic rays on one exposure, by Laplacian edge detection: they are sharper than any star.

Belongs here: van Dokkum's algorithm on whole planes of pixels.
Doesn't: filling what was hit (`drp_tasks.cleaning`), or artifacts that only other exposures reveal
(`drp_tasks.assemble_coadd`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.ndimage import binary_dilation

NEIGHBOUR_SIGMA: Final = 0.3
"""Part of the least significance that suffices beside a pixel that was hit."""

NOISE_WIDTH_PX: Final = 7
STRUCTURE_WIDTH_PX: Final = 7
FINE_WIDTH_PX, COARSE_WIDTH_PX = 5, 9
"""Widths of the medians that give the noise, what is smooth in the Laplacian, and the stars' fine structure."""

LEAST_FINE_STRUCTURE: Final = 0.01
LEAST_VARIANCE: Final = 1e-5

SATURATED_CORE: Final = 0.1
"""A saturated pixel is a star's, and no cosmic ray's, if the median around it is this part of the saturation."""

_SQUARE: Final = np.ones((3, 3), bool)
_NEAR_SATURATED: Final = 4


def find_cosmic_rays(
    electrons: np.ndarray, bad: np.ndarray, *, read_noise: float, saturation: float, sigma: float, contrast: float
) -> np.ndarray:
    """Return where cosmic rays hit, by van Dokkum's Laplacian edge detection (2001, PASP 113, 1420).

    One round of what ``astroscrappy.detect_cosmics`` does with separable medians, the same pixels in a fifth of the
    time: an exposure's medians are made for all pixels at once by exchanges of whole planes.

    Parameters
    ----------
    electrons
        Pixels with the sky still in (ny, nx).
    bad
        Pixels to leave out, with their neighbours.
    read_noise, saturation
        Electrons.
    sigma
        Least significance of the Laplacian.
    contrast
        Least ratio of the Laplacian to the fine structure that a star would have.
    """
    pixels = np.ascontiguousarray(electrons, np.float32)
    good = ~(binary_dilation(bad, _SQUARE) | _saturated_stars(pixels, saturation))
    variance = _separable_median(pixels + np.float32(read_noise**2), NOISE_WIDTH_PX)
    noise = np.sqrt(np.maximum(variance, np.float32(LEAST_VARIANCE)))
    edges = _laplacian(pixels) / (2 * noise)
    edges -= _separable_median(edges, STRUCTURE_WIDTH_PX)
    sharp = (edges > sigma) & good
    fine = _separable_median(pixels, FINE_WIDTH_PX)
    structure = (fine - _separable_median(fine, COARSE_WIDTH_PX)) / noise
    hit = sharp & (edges > contrast * np.maximum(structure, np.float32(LEAST_FINE_STRUCTURE)))
    hit = binary_dilation(hit, _SQUARE) & sharp
    grown: np.ndarray = binary_dilation(hit, _SQUARE) & good & (edges > NEIGHBOUR_SIGMA * sigma)
    return grown


def _saturated_stars(pixels: np.ndarray, saturation: float) -> np.ndarray:
    """Return the saturated cores of stars with their surroundings (ny, nx)."""
    saturated = pixels >= saturation
    if not saturated.any():
        return saturated
    saturated &= _separable_median(pixels, STRUCTURE_WIDTH_PX) > SATURATED_CORE * saturation
    near: np.ndarray = binary_dilation(saturated, _SQUARE, iterations=_NEAR_SATURATED)
    return near


def _laplacian(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of the Laplacian's positive parts in the four quarters of each pixel (ny, nx).

    A quarter has its own pixel on two sides, so that its Laplacian is the sum of two differences.
    """
    across, along = np.diff(pixels, axis=1), np.diff(pixels, axis=0)
    left = np.concatenate([pixels[:, :1], across], axis=1)
    right = np.concatenate([-across, pixels[:, -1:]], axis=1)
    below = np.concatenate([pixels[:1], along], axis=0)
    above = np.concatenate([-along, pixels[-1:]], axis=0)
    total = np.zeros_like(pixels)
    for horizontal in (left, right):
        for vertical in (below, above):
            total += np.maximum(horizontal + vertical, 0)
    return total * np.float32(0.25)


def _separable_median(plane: np.ndarray, width: int) -> np.ndarray:
    """Return the median along columns of the medians along rows (ny, nx); ``width // 2`` pixels at the edges stay."""
    half = width // 2
    ny, nx = plane.shape
    by_row = _median([plane[:, i : nx - 2 * half + i] for i in range(width)])
    result = plane.copy()
    result[half : ny - half, half : nx - half] = _median([by_row[i : ny - 2 * half + i] for i in range(width)])
    return result


def _median(planes: list[np.ndarray]) -> np.ndarray:
    """Return the median of an odd number of planes at each pixel: the least and the most are forgotten in turn."""
    n_held = len(planes) // 2 + 2
    held, waiting = planes[:n_held], planes[n_held:]
    while len(held) > 1:
        n = len(held)
        pairs = [(i, n - 1 - i) for i in range(n // 2)]
        pairs += [(0, i) for i in range(1, (n + 1) // 2)] + [(i, n - 1) for i in range(n // 2, n - 1)]
        for i, j in pairs:
            held[i], held[j] = np.minimum(held[i], held[j]), np.maximum(held[i], held[j])
        held = held[1:-1] + waiting[:1]
        waiting = waiting[1:]
    return held[0]
