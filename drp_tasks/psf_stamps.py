"""Stars cut out of an image for the fit of a PSF: whole or mended, centred, free of neighbours.

Belongs here: the pixels of PSF stars.
Doesn't: choosing the stars (`drp_tasks.psf_stars`, `drp_tasks.coadd_psf`), or the model they give (`drp_tasks.psf`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drp_tasks.splines import PAD, shift_matrices, spline_coefficients

NEIGHBOUR_SIGMA = 4.0
"""A pixel of a star so many standard deviations above the model belongs to a neighbour."""

MODEL_TOLERANCE = 0.3
"""Part of its brightness that counts as the model's standard deviation where neighbours are looked for."""

CORE_PX = 3
MAX_HOLES = 0.15
"""Largest part of a star's stamp that may be bad; none within `CORE_PX` of its middle pixel."""


@dataclass(frozen=True, eq=False)
class StarStamps:
    """Stars cut out around their middle pixels, with a margin for interpolation.

    Parameters
    ----------
    index
        Which stars they are (n,).
    pixels, variance, holes
        Arrays (n, side + 2 pad, side + 2 pad); holes are the pixels that were bad.
    phase_xy
        Position minus middle pixel (n,) along x and y.
    half
        Reach of the PSF's image.
    """

    index: np.ndarray
    pixels: np.ndarray
    variance: np.ndarray
    holes: np.ndarray
    phase_xy: tuple[np.ndarray, np.ndarray]
    half: int

    def centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Return stamps (n, side * side) with the star on the middle pixel, and the noise of each one's sum."""
        side = 2 * self.half + 1
        by_column, by_row = (shift_matrices(-phase, side)[0] for phase in self.phase_xy)
        stamps = by_row @ spline_coefficients(self.pixels) @ by_column.transpose(0, 2, 1)
        noise = np.sqrt(self.variance[:, PAD:-PAD, PAD:-PAD].sum(axis=(1, 2), dtype=np.float64))
        return stamps.reshape(len(stamps), side * side), noise

    def places(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return these stars' part of the positions of all stars."""
        return np.asarray(x)[self.index], np.asarray(y)[self.index]

    def cleaned_with(self, model: np.ndarray) -> StarStamps:
        """Return the stars with the PSF's values (n, side, side), scaled to each star, for holes and neighbours.

        Stars of which too much would be replaced, such as galaxies, are left out.
        """
        model = np.pad(model, ((0, 0), (PAD, PAD), (PAD, PAD)), mode="edge")
        good = ~self.holes
        flux = (model * good * self.pixels).sum(axis=(1, 2)) / (model**2 * good).sum(axis=(1, 2))
        expected = model * flux[:, None, None]
        tolerance = np.sqrt(np.maximum(self.variance, 0) + (MODEL_TOLERANCE * expected) ** 2)
        holes = self.holes | (self.pixels - expected > NEIGHBOUR_SIGMA * tolerance)
        whole = holes.mean(axis=(1, 2)) < MAX_HOLES
        return StarStamps(
            self.index[whole],
            np.where(holes, expected, self.pixels)[whole],
            self.variance[whole],
            holes[whole],
            (self.phase_xy[0][whole], self.phase_xy[1][whole]),
            self.half,
        )


def cut_out_stars(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    *,
    positions_xy: tuple[np.ndarray, np.ndarray],
    half: int,
) -> StarStamps:
    """Return the stars that lie whole on the image and have no bad pixel in their cores and few outside."""
    reach = half + PAD
    column, row = (np.rint(position).astype(int) for position in positions_xy)
    ny, nx = image.shape
    inside = np.flatnonzero((column >= reach) & (row >= reach) & (column + reach < nx) & (row + reach < ny))
    offsets = np.arange(-reach, reach + 1)
    rows = row[inside, None, None] + offsets[:, None]
    columns = column[inside, None, None] + offsets
    holes = bad[rows, columns]
    core = slice(reach - CORE_PX, reach + CORE_PX + 1)
    whole = ~holes[:, core, core].any(axis=(1, 2)) & (holes.mean(axis=(1, 2)) < MAX_HOLES)
    index, rows, columns, holes = inside[whole], rows[whole], columns[whole], holes[whole]
    pixels = np.where(holes, 0, image[rows, columns]).astype(np.float64)
    noise = np.where(holes, 0, variance[rows, columns])
    phases = positions_xy[0][index] - column[index], positions_xy[1][index] - row[index]
    opposite = np.s_[:, ::-1, ::-1]
    return StarStamps(
        index,
        np.where(holes, pixels[opposite], pixels),
        np.where(holes, noise[opposite], noise),
        holes,
        phases,
        half,
    )
