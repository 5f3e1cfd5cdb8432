"""Galaxies drawn many at a time: Sersic profiles convolved with the PSF in Fourier space.

One by one, `galsim` spends its time on the Moffat's transform, which is a Bessel function for each Fourier pixel of
each galaxy. Both profiles are round before they are sheared, so one table of each radial transform serves all
galaxies.

Belongs here: the transform and its stamps. Doesn't: which galaxies there are (`simulator.sky`) or where they fall
(`simulator.optics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import galsim
import numpy as np

from simulator.optics import MOFFAT_BETA

TABLE_LIMIT = 300.0
TABLE_POINTS = 4000
"""Radial transforms are tabulated up to this wave number (for unit radius), densely where they bend."""

STAMP_PX = 64
LARGE_STAMP_PX = 128
LARGE_FLUX_ELECTRON = 3e4
LARGE_RADIUS_PX = 4.0
"""Galaxies with more light or a larger half-light radius than this get the large stamp."""

BATCH = 32
"""Galaxies transformed at once: enough to spare Python's overhead, few enough to stay in the cache."""


@dataclass(frozen=True, eq=False)
class Galaxies:
    """Galaxies on a detector, as seen through the optics; each array has one entry for each galaxy.

    Parameters
    ----------
    x, y
        Detector pixels.
    flux_electron
        Total expected light.
    half_light_radius_px, sersic_index
        Profile.
    shape
        Matrices that turn and shear the round profile, shape (n, 2, 2), of unit determinant.
    psf_fwhm_px
        Seeing at the galaxy.
    psf_shape
        As ``shape``, for the PSF.
    """

    x: np.ndarray
    y: np.ndarray
    flux_electron: np.ndarray
    half_light_radius_px: np.ndarray
    sersic_index: np.ndarray
    shape: np.ndarray
    psf_fwhm_px: np.ndarray
    psf_shape: np.ndarray


def shear_matrix(g1: np.ndarray, g2: np.ndarray, rotation_rad: float = 0.0) -> np.ndarray:
    """Matrices that shear by reduced shears and then rotate, shape (n, 2, 2)."""
    shear = np.stack([np.stack([1 + g1, g2], -1), np.stack([g2, 1 - g1], -1)], -2)
    shear /= np.sqrt(1 - g1**2 - g2**2)[:, None, None]
    cos, sin = np.cos(rotation_rad), np.sin(rotation_rad)
    return np.array([[cos, -sin], [sin, cos]]) @ shear


def add_galaxies(light: np.ndarray, galaxies: Galaxies) -> None:
    """Add galaxies to an image of expected electrons, in place.

    Parameters
    ----------
    light
        Image; what falls outside of it is lost.
    galaxies
        What to draw.
    """
    large = (galaxies.flux_electron > LARGE_FLUX_ELECTRON) | (galaxies.half_light_radius_px > LARGE_RADIUS_PX)
    for size, chosen in ((STAMP_PX, ~large), (LARGE_STAMP_PX, large)):
        for index in np.unique(galaxies.sersic_index[chosen]):
            members = np.flatnonzero(chosen & (galaxies.sersic_index == index))
            for start in range(0, len(members), BATCH):
                _add_batch(light, galaxies, members[start : start + BATCH], float(index), size)


def _add_batch(light: np.ndarray, galaxies: Galaxies, members: np.ndarray, sersic_index: float, size: int) -> None:
    x, y = galaxies.x[members], galaxies.y[members]
    corner_x, corner_y = (np.rint(position).astype(int) - size // 2 for position in (x, y))
    kx, ky = 2 * np.pi * np.fft.rfftfreq(size)[None, :], 2 * np.pi * np.fft.fftfreq(size)[:, None]
    galaxy = _radial(sersic_index, kx, ky, galaxies.shape[members], galaxies.half_light_radius_px[members])
    psf = _radial(None, kx, ky, galaxies.psf_shape[members], galaxies.psf_fwhm_px[members])
    phase_x = np.exp(-1j * kx * (x - corner_x)[:, None, None])
    phase_y = np.exp(-1j * ky * (y - corner_y)[:, None, None])
    flux = galaxies.flux_electron[members][:, None, None]
    stamps = np.fft.irfft2(flux * galaxy * psf * (phase_x * phase_y), s=(size, size))
    height, width = light.shape
    for stamp, left, bottom in zip(stamps, corner_x, corner_y, strict=True):
        x0, x1, y0, y1 = max(left, 0), min(left + size, width), max(bottom, 0), min(bottom + size, height)
        if x0 < x1 and y0 < y1:
            light[y0:y1, x0:x1] += stamp[y0 - bottom : y1 - bottom, x0 - left : x1 - left]


def _radial(
    sersic_index: float | None, kx: np.ndarray, ky: np.ndarray, shape: np.ndarray, scale_px: np.ndarray
) -> np.ndarray:
    """Transforms of sheared profiles, shape (n, ky, kx): that of the round one at the back-transformed wave vector."""
    a, b, c, d = (shape[:, row, column, None, None] for row in range(2) for column in range(2))
    wave = np.hypot(a * kx + c * ky, b * kx + d * ky) * scale_px[:, None, None]
    return np.interp(wave, *_transform_table(sersic_index))


@lru_cache(maxsize=8)
def _transform_table(sersic_index: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Wave numbers and the transform there: a Sersic of unit half-light radius or, for None, a Moffat of unit width."""
    profile = (
        galsim.Moffat(beta=MOFFAT_BETA, fwhm=1.0)
        if sersic_index is None
        else galsim.Sersic(sersic_index, half_light_radius=1.0)
    )
    wave = 0.5 * np.sinh(np.linspace(0.0, np.arcsinh(2 * TABLE_LIMIT), TABLE_POINTS))
    return wave, np.array([profile.kValue(float(k), 0.0).real for k in wave])
