"""The point-spread function: a pixel image whose values are polynomials of the position.

Belongs here: the model, its fit to stars, its evaluation at any place and sub-pixel phase, its table form.
Doesn't: choosing the stars (`drp_tasks.calibrate_image`, `drp_tasks.coadd_psf`), or photometry with it
(`drp_tasks.photometry`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.table import Table
from scipy.optimize import curve_fit

from drp_tasks.psf_stamps import StarStamps, cut_out_stars
from drp_tasks.splines import PAD, shift_matrices, spline_coefficients

MIN_STARS = 4
STARS_FOR_ORDER = ((18, 2), (8, 1), (MIN_STARS, 0))
"""How many stars a polynomial of which order takes."""

MODEL_ERROR = 0.03
"""Part of its brightness by which a star's pixel may differ from the model: in the core no star outweighs all."""

VARIATION = 0.3
"""Part of its brightness by which a pixel of the PSF is expected to vary over an image."""

PROFILE_FLOOR = 1e-5
FIRST_SIGMA_PX = 2.0
"""Width of the Gaussian that gives the stars their first fluxes."""

REJECTION = 3.0
"""A star is rejected if its misfit is so many times the typical one."""

FIT_ROUNDS = 4
WINGS_PX, WINGS_BLEND_PX = 7.0, 2.0
"""Radius beyond which a profile stands for the pixels of the mean PSF, and the width of the change."""


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
        by_row, by_row_slope = shift_matrices(y - np.rint(y), self.side)
        by_column, by_column_slope = shift_matrices(x - np.rint(x), self.side)
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
        padded = np.pad(self.coefficients, ((0, 0), (PAD, PAD), (PAD, PAD)), mode="edge")
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
    """Fit a PSF to stars: centre their stamps by spline interpolation, then regularised least squares with rejection.

    A star may have bad pixels outside its core: they take the value of the pixel opposite, and later, as a neighbour's
    pixels do, the model's.

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
        If fewer than `MIN_STARS` stars are whole and agree.
    """
    ny, nx = image.shape
    centre_xy = (start_xy[0] + (nx - 1) / 2, start_xy[1] + (ny - 1) / 2)
    scale = float(max(nx, ny))
    stars = cut_out_stars(image, variance, bad, positions_xy=(x - start_xy[0], y - start_xy[1]), half=half)
    psf, _ = _fit_stamps(stars, stars.places(x, y), max_order, centre_xy, scale)
    stars = stars.cleaned_with(psf.stamps_at(*stars.places(x, y)))
    psf, kept = _fit_stamps(stars, stars.places(x, y), max_order, centre_xy, scale)
    used = np.zeros(len(x), bool)
    used[stars.index[kept]] = True
    return psf, used


def _fit_stamps(
    stars: StarStamps,
    where: tuple[np.ndarray, np.ndarray],
    max_order: int,
    centre_xy: tuple[float, float],
    scale: float,
) -> tuple[PolynomialPsf, np.ndarray]:
    """Return the PSF that fits centred stars, and which of them it kept; the order follows how many those are.

    Fluxes and the model are found in turn. A star's flux weighs pixels by the model: the sum of a stamp would let the
    sky's noise and faint neighbours set the scale, and through the polynomial a slope of fluxes over the image.
    """
    stamps, noise = stars.centred()
    side = 2 * stars.half + 1
    if not len(stamps):
        raise TooFewStarsError(0)
    flux = stamps @ _unit_gaussian(side, FIRST_SIGMA_PX).ravel()
    profile = _radial_profile(np.median(stamps / flux[:, None], axis=0).reshape(side, side)).ravel()
    kept = flux > 0
    order = max_order
    fitted = kept
    coefficients = np.zeros((1, side * side))
    for _ in range(FIT_ROUNDS):
        if kept.sum() < MIN_STARS:
            raise TooFewStarsError(int(kept.sum()))
        order = min(order, next(order for n_stars, order in STARS_FOR_ORDER if kept.sum() >= n_stars))
        terms = _terms(*where, order, centre_xy, scale)
        positive = np.where(flux > 0, flux, np.nan)[:, None]
        pixel_error = np.hypot(noise[:, None] / side / positive, MODEL_ERROR * profile)
        unit = stamps / positive
        coefficients = _solve_polynomials(unit[kept], pixel_error[kept], terms[kept], VARIATION * profile)
        coefficients /= coefficients[0].sum()
        profile = _radial_profile(coefficients[0].reshape(side, side)).ravel()
        model = terms @ coefficients
        model /= model.sum(axis=1, keepdims=True)
        flux = (stamps * model).sum(axis=1) / (model**2).sum(axis=1)
        misfit = np.sqrt(np.mean(((stamps / flux[:, None] - model) / pixel_error) ** 2, axis=1))
        fitted, kept = kept, (flux > 0) & (misfit < REJECTION * max(1.0, float(np.median(misfit[kept]))))
    psf = PolynomialPsf(
        _with_smooth_wings(coefficients.reshape(-1, side, side)), order, centre_xy, scale, int(fitted.sum())
    )
    return psf, fitted


def _solve_polynomials(
    unit: np.ndarray, pixel_error: np.ndarray, terms: np.ndarray, variation: np.ndarray
) -> np.ndarray:
    """Return the coefficients (n_terms, pixels) of unit-flux stars (n, pixels) with errors of the same shape.

    Every pixel has a prior against variation of its own (pixels,). Without it the noise of hundreds of faint pixels
    would decide how the PSF's sum varies.
    """
    weights = 1 / pixel_error**2
    normal = np.einsum("np,ni,nj->pij", weights, terms, terms, optimize=True)
    moments = (weights * unit).T @ terms
    prior = np.zeros_like(moments)
    prior[:, 1:] = 1 / np.maximum(variation, PROFILE_FLOOR)[:, None] ** 2
    systems = normal + prior[:, :, None] * np.eye(terms.shape[1])
    return np.linalg.solve(systems, moments[:, :, None])[:, :, 0].T


def _with_smooth_wings(coefficients: np.ndarray) -> np.ndarray:
    """Return a PSF's coefficients with wings that follow from what lies inside `WINGS_PX`.

    In hundreds of faint pixels the sky's error and neighbours too faint to see would add up to percents of the flux.
    The mean PSF continues as the Moffat profile that fits its inner part, and the terms of its variation as changes of
    that profile's height and width.
    """
    mean = coefficients[0]
    offsets = np.arange(mean.shape[0]) - mean.shape[0] // 2
    radius = np.hypot(offsets[:, None], offsets)
    inside = radius < WINGS_PX
    peak = float(mean.max())
    sigma = np.maximum(MODEL_ERROR * _radial_profile(mean)[inside], 1e-3 * peak)
    try:
        (height, width, beta), _ = curve_fit(
            _moffat,
            radius[inside],
            mean[inside],
            p0=(peak, 4.0, 3.0),
            sigma=sigma,
            bounds=((0.0, 0.5, 1.5), (np.inf, 50.0, 20.0)),
        )
    except RuntimeError:
        return coefficients
    profile = _moffat(radius, height, width, beta)
    widening = profile * (radius / width) ** 2 / (1 + (radius / width) ** 2)
    changes = np.stack([profile, widening], axis=-1)
    amounts = np.linalg.lstsq(changes[inside] / sigma[:, None], (coefficients[1:, inside] / sigma).T, rcond=None)[0]
    wings = np.concatenate([profile[None], np.moveaxis(changes @ amounts, -1, 0)])
    share = np.clip((radius - WINGS_PX) / WINGS_BLEND_PX + 0.5, 0, 1)
    return (1 - share) * coefficients + share * wings


def _moffat(radius: np.ndarray, height: float, width: float, beta: float) -> np.ndarray:
    return height * (1 + (radius / width) ** 2) ** -beta


def _unit_gaussian(side: int, sigma_px: float) -> np.ndarray:
    """Return a centred Gaussian (side, side) that measures a unit flux of its own shape as one."""
    offsets = np.arange(side) - side // 2
    line = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    gaussian = np.outer(line, line) / line.sum() ** 2
    return gaussian / (gaussian**2).sum()


def _radial_profile(image: np.ndarray) -> np.ndarray:
    """Return an image (side, side) of the same mean profile, in rings of one pixel."""
    offsets = np.arange(image.shape[0]) - image.shape[0] // 2
    ring = np.rint(np.hypot(offsets[:, None], offsets)).astype(int)
    mean = np.bincount(ring.ravel(), image.ravel()) / np.bincount(ring.ravel())
    return mean[ring]


def _powers(order: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]


def _terms(x: np.ndarray, y: np.ndarray, order: int, centre_xy: tuple[float, float], scale: float) -> np.ndarray:
    """Return the polynomial's terms (n, n_terms) at places x, y (n,)."""
    u, v = (np.asarray(x) - centre_xy[0]) / scale, (np.asarray(y) - centre_xy[1]) / scale
    return np.stack([u**i * v**j for i, j in _powers(order)], axis=-1)
