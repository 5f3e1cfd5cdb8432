"""Blends divided: each child gets, of every pixel's light, the part that its model has of all models' sum.

Belongs here: models of the children of one footprint, their fit, the division. Doesn't: who is whose child
(`drp_tasks.detect_objects`), fluxes of the children (`drp_tasks.measure_objects`).

A child's model is a sum, with coefficients that aren't negative, of the PSF and of the PSF blurred by round Gaussians:
it is positive, centred and falls off outwards, whatever its neighbours do. Dividing the light, instead of taking the
model for it, keeps what the round model misses, as the SDSS deblender does with its symmetric templates (Lupton 2005),
and conserves the flux exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls

BLUR_SIGMAS_PX = (1.2, 3.0)
"""Widths of the Gaussians that blur the PSF into galaxies."""

_REGULARISATION = 1e-6


@dataclass(frozen=True, eq=False)
class Blend:
    """The pixels of one footprint.

    Parameters
    ----------
    image, variance
        Cut-out around the footprint and its variance (ny, nx).
    footprint
        Which pixels are divided (ny, nx).
    usable
        Which pixels the models are fitted to (ny, nx).
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    footprint: NDArray[np.bool_]
    usable: NDArray[np.bool_]


def place_stamp(stamp: NDArray[np.float64], column: int, row: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return an array of the given shape with a stamp's middle pixel at (column, row), cut where it sticks out."""
    canvas = np.zeros(shape)
    half = stamp.shape[0] // 2
    top, left = row - half, column - half
    rows = slice(max(top, 0), min(top + stamp.shape[0], shape[0]))
    columns = slice(max(left, 0), min(left + stamp.shape[1], shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        canvas[rows, columns] = stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return canvas


def child_profiles(
    psf_stamps: NDArray[np.float64],
    column: NDArray[np.integer],
    row: NDArray[np.integer],
    shape: tuple[int, int],
    blur_sigmas_px: Sequence[float] = BLUR_SIGMAS_PX,
) -> NDArray[np.float64]:
    """Make the profiles of which the children's models are summed.

    Parameters
    ----------
    psf_stamps
        PSF at each child, its sub-pixel phase included (n, side, side).
    column, row
        Pixel of the cut-out on which each stamp's middle lies (n,).
    shape
        Shape of the cut-out.
    blur_sigmas_px
        Widths of the Gaussians.

    Returns
    -------
    profiles : `numpy.ndarray`
        The PSF itself first, (n, 1 + number of Gaussians, *shape), none negative.
    """
    profiles = np.zeros((len(psf_stamps), 1 + len(blur_sigmas_px), *shape))
    for child, stamp in enumerate(np.maximum(psf_stamps, 0)):
        point = place_stamp(stamp, int(column[child]), int(row[child]), shape)
        profiles[child, 0] = point
        for k, sigma in enumerate(blur_sigmas_px):
            profiles[child, 1 + k] = gaussian_filter(point, sigma, mode="constant")
    return profiles


def fit_models(blend: Blend, profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit all children at once by least squares with coefficients that aren't negative.

    Parameters
    ----------
    blend
        The pixels.
    profiles
        As `child_profiles` makes them, (n, k, ny, nx).

    Returns
    -------
    models : `numpy.ndarray`
        The children's models (n, ny, nx).
    """
    n_children, n_profiles = profiles.shape[:2]
    fitted = blend.usable & blend.footprint & (blend.variance > 0)
    weight = 1 / np.sqrt(blend.variance[fitted].astype(np.float64))
    design = profiles[:, :, fitted].reshape(n_children * n_profiles, -1) * weight
    # The normal equations' Cholesky factor stands for the pixels: the same minimum, and far fewer rows.
    normal = design @ design.T
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    factor = np.linalg.cholesky(normal / np.outer(scale, scale) + _REGULARISATION * np.eye(len(normal)))
    target = np.linalg.solve(factor, design @ (blend.image[fitted] * weight) / scale)
    coefficients = nnls(factor.T, target)[0] / scale
    return np.einsum("ik,ikyx->iyx", coefficients.reshape(n_children, n_profiles), profiles)


def divide(blend: Blend, models: NDArray[np.float64]) -> NDArray[np.float32]:
    """Divide a footprint's light among its children.

    Parameters
    ----------
    blend
        The pixels.
    models
        The children's models (n, ny, nx), none negative.

    Returns
    -------
    shares : `numpy.ndarray`
        One image a child (n, ny, nx), float32. They add up to the image in every pixel of the footprint; outside of it
        each is the image itself.
    """
    total = models.sum(axis=0)
    modelled = total > 0
    parts = np.where(modelled, models / np.where(modelled, total, 1), 1 / len(models))
    return np.where(blend.footprint, parts * blend.image, blend.image).astype(np.float32)


def deblend(
    blend: Blend, psf_stamps: NDArray[np.float64], column: NDArray[np.integer], row: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Divide a footprint's light among children at known places; parameters as in `child_profiles` and `divide`."""
    profiles = child_profiles(psf_stamps, column, row, blend.image.shape)
    return divide(blend, fit_models(blend, profiles))
