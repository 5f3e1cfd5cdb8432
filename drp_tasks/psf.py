"""The point-spread function: a pixel image whose values are polynomials of the position.

Belongs here: the model, its fit to stars, its evaluation at any place and sub-pixel phase, its table form.
Doesn't: choosing the stars (`drp_tasks.calibrate_image`, `drp_tasks.coadd_psf`), or photometry with it
(`drp_tasks.photometry`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from astropy.table import Table
from scipy.interpolate import BSpline
from scipy.ndimage import spline_filter1d

SPLINE_DEGREE: Final = 5
_SPLINE = BSpline.basis_element(np.arange(SPLINE_DEGREE + 2) - (SPLINE_DEGREE + 1) / 2, extrapolate=False)
_SPLINE_SLOPE = _SPLINE.derivative()
_REACH = (SPLINE_DEGREE + 1) // 2
_PAD = 4

MIN_STARS = 4
STARS_FOR_ORDER = ((18, 2), (8, 1), (MIN_STARS, 0))
"""How many stars a polynomial of which order takes."""


class TooFewStarsError(ValueError):
    """A PSF was asked for with fewer usable stars than its lowest order needs."""

    def __init__(self, n_stars: int) -> None:
        super().__init__(f"{n_stars} usable stars, {MIN_STARS} needed for a PSF")
        self.n_stars = n_stars


@dataclass(frozen=True, eq=False)
class PolynomialPsf:
    """A PSF whose every pixel is a polynomial of the position on the image.

    Parameters
    ----------
    coefficients
        Array (n_terms, side, side): the images that the terms x^i y^j multiply, where i + j ≤ order, i outermost.
        The side is odd; the PSF's centre lies on the centre of the middle pixel.
    order
        Order of the polynomial.
    centre_xy, scale
        The polynomial's argument is ((x, y) - centre_xy) / scale, pixels.
    n_stars
        How many stars it was fitted to.
    """

    coefficients: np.ndarray
    order: int
    centre_xy: tuple[float, float]
    scale: float
    n_stars: int

    @property
    def side(self) -> int:
        """Width of the PSF's images, pixels."""
        return int(self.coefficients.shape[-1])

    @property
    def half(self) -> int:
        """How far the PSF's images reach from their middle pixel."""
        return self.side // 2

    def image_at(self, x: float, y: float) -> np.ndarray:
        """Return the PSF (side, side) at a place, centred on its middle pixel and normalised to a sum of one."""
        return self.images_at(np.array([x]), np.array([y]))[0]

    def images_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the centred, normalised PSF (n, side, side) at places x, y (n,)."""
        terms = self._normalised_terms(x, y)
        return np.tensordot(terms, self.coefficients, axes=1)

    def stamps_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the PSF (n, side, side) as pixels see it: its centre at (x, y), its middle pixel at rint of that."""
        return self.stamps_and_slopes_at(x, y)[0]

    def stamps_and_slopes_at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `stamps_at` with its derivatives by x and by y of the centre, each (n, side, side)."""
        splines = np.tensordot(self._normalised_terms(x, y), self._spline_coefficients, axes=1)
        by_row, by_row_slope = _shift_matrices(y - np.rint(y), self.side)
        by_column, by_column_slope = _shift_matrices(x - np.rint(x), self.side)
        rows = by_row @ splines
        across = by_column.transpose(0, 2, 1)
        return rows @ across, rows @ by_column_slope.transpose(0, 2, 1), (by_row_slope @ splines) @ across

    def to_table(self) -> Table:
        """Return the PSF as a table of one row a polynomial term; the rest travels in its metadata."""
        powers = _powers(self.order)
        table = Table(
            {
                "xPower": np.array([i for i, _ in powers], np.int32),
                "yPower": np.array([j for _, j in powers], np.int32),
                "image": self.coefficients.reshape(len(powers), -1).astype(np.float64),
            }
        )
        for name, value in self._scalars().items():
            table[name] = np.full(len(powers), value)
        return table

    @classmethod
    def from_table(cls, table: Table) -> PolynomialPsf:
        """Return the PSF that `to_table` wrote."""
        images = np.stack([np.asarray(row, np.float64) for row in table["image"]])
        side = round(images.shape[1] ** 0.5)
        return cls(
            images.reshape(-1, side, side),
            int(np.max(table["xPower"])),
            (float(table["centreX"][0]), float(table["centreY"][0])),
            float(table["scale"][0]),
            int(table["nStars"][0]),
        )

    def _scalars(self) -> dict[str, float]:
        return {
            "centreX": self.centre_xy[0],
            "centreY": self.centre_xy[1],
            "scale": self.scale,
            "nStars": self.n_stars,
        }

    def _normalised_terms(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        terms = _terms(x, y, self.order, self.centre_xy, self.scale)
        return terms / (terms @ self.coefficients.sum(axis=(1, 2)))[:, None]

    @cached_property
    def _spline_coefficients(self) -> np.ndarray:
        padded = np.pad(self.coefficients, ((0, 0), (_PAD, _PAD), (_PAD, _PAD)), mode="edge")
        return spline_coefficients(padded)


def fit_psf(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    start_xy: tuple[int, int] = (0, 0),
    half: int = 12,
    max_order: int = 2,
) -> tuple[PolynomialPsf, np.ndarray]:
    """Fit a PSF to stars: centre their stamps by spline interpolation, then weighted least squares with rejection.

    Parameters
    ----------
    image, variance, bad
        Background-subtracted pixels, their variance, and where they are unusable; all (ny, nx).
    x, y
        Absolute positions of the stars (n,).
    start_xy
        Absolute coordinates of the first pixel.
    half
        Reach of the PSF's image from its middle pixel.
    max_order
        Highest order of the polynomial; fewer stars give a lower one (`STARS_FOR_ORDER`).

    Returns
    -------
    psf, used
        The model, and which of the stars were used (n,).

    Raises
    ------
    TooFewStarsError
        If fewer than `MIN_STARS` stars have all their pixels usable.
    """
    whole, stamps, weights = _centred_stars(
        image, variance, bad, positions_xy=(x - start_xy[0], y - start_xy[1]), half=half
    )
    if len(whole) < MIN_STARS:
        raise TooFewStarsError(len(whole))
    order = min(max_order, next(order for stars, order in STARS_FOR_ORDER if len(whole) >= stars))
    ny, nx = image.shape
    centre_xy = (start_xy[0] + (nx - 1) / 2, start_xy[1] + (ny - 1) / 2)
    scale = float(max(nx, ny))
    terms = _terms(x[whole], y[whole], order, centre_xy, scale)
    kept = np.ones(len(whole), bool)
    coefficients = np.zeros((terms.shape[1], stamps.shape[1]))
    for _ in range(3):
        weighted = weights * kept
        coefficients = np.linalg.lstsq(terms * weighted[:, None], stamps * weighted[:, None], rcond=None)[0]
        misfit = np.sqrt(((stamps - terms @ coefficients) ** 2).sum(axis=1)) * weights
        kept = misfit < 3 * np.median(misfit)
    used = np.zeros(len(x), bool)
    used[whole[kept]] = True
    side = 2 * half + 1
    return PolynomialPsf(coefficients.reshape(-1, side, side), order, centre_xy, scale, int(kept.sum())), used


def spline_coefficients(stamps: np.ndarray) -> np.ndarray:
    """Return the quintic B-spline coefficients (n, ny, nx) that interpolate stamps (n, ny, nx)."""
    once = spline_filter1d(stamps, order=SPLINE_DEGREE, axis=-1, output=np.float64, mode="mirror")
    return spline_filter1d(once, order=SPLINE_DEGREE, axis=-2, output=np.float64, mode="mirror")


def _centred_stars(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    *,
    positions_xy: tuple[np.ndarray, np.ndarray],
    half: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return indices of the stars that are whole, their centred unit-sum stamps (n, pixels), and weights (n,)."""
    x, y = positions_xy
    reach = half + _PAD
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    ny, nx = image.shape
    inside = np.flatnonzero((column >= reach) & (row >= reach) & (column + reach < nx) & (row + reach < ny))
    offsets = np.arange(-reach, reach + 1)
    rows = row[inside, None, None] + offsets[:, None]
    columns = column[inside, None, None] + offsets
    clean = ~bad[rows, columns].any(axis=(1, 2))
    inside, rows, columns = inside[clean], rows[clean], columns[clean]
    side = 2 * half + 1
    by_row, _ = _shift_matrices(row[inside] - y[inside], side)
    by_column, _ = _shift_matrices(column[inside] - x[inside], side)
    stamps = by_row @ spline_coefficients(image[rows, columns]) @ by_column.transpose(0, 2, 1)
    flux = stamps.sum(axis=(1, 2))
    noise = np.sqrt(variance[rows, columns].sum(axis=(1, 2), dtype=np.float64))
    positive = flux > 0
    unit = (stamps[positive] / flux[positive, None, None]).reshape(positive.sum(), side * side)
    return inside[positive], unit, np.minimum(flux[positive] / noise[positive], 300.0)


def _shift_matrices(shift: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return matrices (n, side, side + 2 pad) that move a padded line by ``shift`` (n,), and their derivatives."""
    matrices = np.zeros((2, len(shift), side, side + 2 * _PAD))
    lines = np.arange(side)
    for tap in range(-_REACH, _REACH + 1):
        argument = tap - shift
        matrices[0][:, lines, lines + _PAD - tap] = np.nan_to_num(_SPLINE(argument))[:, None]
        matrices[1][:, lines, lines + _PAD - tap] = np.nan_to_num(-_SPLINE_SLOPE(argument))[:, None]
    return matrices[0], matrices[1]


def _powers(order: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]


def _terms(x: np.ndarray, y: np.ndarray, order: int, centre_xy: tuple[float, float], scale: float) -> np.ndarray:
    """Return the polynomial's terms (n, n_terms) at places x, y (n,)."""
    u, v = (np.asarray(x) - centre_xy[0]) / scale, (np.asarray(y) - centre_xy[1]) / scale
    return np.stack([u**i * v**j for i, j in _powers(order)], axis=-1)
