"""Fluxes: of point sources with the PSF, of anything in an aperture, and the zero point that gives them a scale.

Belongs here: measurements on pixels at given places, and the fit of a zero point to reference magnitudes.
Doesn't: finding the places (`drp_tasks.detection`), shapes (`drp_tasks.moments`).

All positions are absolute pixel coordinates; ``start_xy`` says where the image's first pixel lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep

from drp_tasks.psf import PolynomialPsf

ITERATIONS = 3
MAX_STEP_PX = 0.5
MAX_WALK_PX = 2.5
MIN_USABLE = 0.5
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class PsfPhotometry:
    """Fluxes of point sources: arrays (n,); NaN where less than half of the PSF's weight lies on usable pixels.

    Parameters
    ----------
    flux, flux_err
        In the image's unit, on the scale where the PSF's image sums to one.
    x, y
        Absolute positions, pixels: the fitted ones, or those given if a fit walked away or wasn't asked for.
    x_err, y_err
        Their uncertainties, pixels; NaN unless fitted.
    chi2
        Reduced chi-squared of the stamp.
    usable
        Part of the PSF's weight that lies on usable pixels of the image, 0 to 1.
    """

    flux: np.ndarray
    flux_err: np.ndarray
    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    chi2: np.ndarray
    usable: np.ndarray


@dataclass(frozen=True, eq=False)
class AperturePhotometry:
    """Fluxes in a circle, arrays (n,) in the image's unit; bad pixels are replaced by the circle's mean."""

    flux: np.ndarray
    flux_err: np.ndarray
    half_light_radius: np.ndarray


@dataclass(frozen=True, eq=False)
class ZeroPoint:
    """The AB magnitude of a flux of one, its uncertainty, and which stars it rests on (n,)."""

    value: float
    error: float
    used: np.ndarray


def psf_photometry(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    psf: PolynomialPsf,
    x: np.ndarray,
    y: np.ndarray,
    recenter: bool = True,
    *,
    start_xy: tuple[int, int] = (0, 0),
) -> PsfPhotometry:
    """Fit the PSF to each source by itself.

    Pixels weigh alike whatever their variance, so that an error of the PSF changes bright and faint fluxes by the same
    factor, and the zero point takes it out again (as Rubin's PsfFlux does). Uncertainties come from the variance.

    Parameters
    ----------
    image, variance, bad
        Background-subtracted pixels, their variance, where they are unusable; (ny, nx).
    psf
        The PSF, in the same absolute coordinates.
    x, y
        Absolute positions (n,); those that aren't finite give NaN.
    recenter
        Whether to fit the position too, by Gauss-Newton steps.
    start_xy
        Absolute coordinates of the first pixel.
    """
    pixels = _Pixels(image, variance, bad, start_xy)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    parts = [
        _fit_chunk(pixels, psf, x[part], y[part], recenter=recenter)
        for part in np.array_split(np.arange(len(x)), max(1, -(-len(x) // _CHUNK)))
    ]
    return PsfPhotometry(*np.concatenate(parts, axis=1))


def aperture_photometry(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    *,
    start_xy: tuple[int, int] = (0, 0),
) -> AperturePhotometry:
    """Sum pixels in circles of ``radius`` pixels around absolute positions x, y (n,)."""
    pixels = np.ascontiguousarray(image)
    column, row = np.asarray(x, np.float64) - start_xy[0], np.asarray(y, np.float64) - start_xy[1]
    known = np.isfinite(column) & np.isfinite(row)
    result = np.full((3, len(column)), np.nan)
    flux, error, _ = sep.sum_circle(pixels, column[known], row[known], radius, var=variance, mask=bad)
    half_light, _ = sep.flux_radius(pixels, column[known], row[known], np.full(known.sum(), radius), 0.5, mask=bad)
    result[:, known] = flux, error, half_light
    return AperturePhotometry(*result)


def fit_zero_point(
    flux: np.ndarray,
    flux_err: np.ndarray,
    reference_mag: np.ndarray,
    reference_mag_err: np.ndarray,
    *,
    floor_mag: float = 0.005,
    clip: float = 3.5,
) -> ZeroPoint:
    """Return the zero point as a weighted mean over stars, with outliers clipped.

    Parameters
    ----------
    flux, flux_err
        Measured fluxes (n,).
    reference_mag, reference_mag_err
        AB magnitudes of the same stars and their uncertainties (n,).
    floor_mag
        Uncertainty added in quadrature, so that no few bright stars decide.
    clip
        Stars further than so many standard deviations from the mean are dropped.

    Raises
    ------
    ValueError
        If no star has a positive flux and a finite magnitude.
    """
    usable = (flux > 0) & np.isfinite(reference_mag) & np.isfinite(flux_err)
    if not usable.any():
        raise ValueError("no star with a positive flux and a reference magnitude")
    zero_points = np.where(usable, reference_mag + 2.5 * np.log10(np.where(usable, flux, 1)), np.nan)
    noise = 2.5 / np.log(10) * flux_err / np.where(usable, flux, 1)
    sigma = np.sqrt(noise**2 + np.nan_to_num(reference_mag_err) ** 2 + floor_mag**2)
    weights = np.where(usable, 1 / np.maximum(sigma, 1e-4) ** 2, 0)
    used = usable
    value = float(np.median(zero_points[usable]))
    for _ in range(5):
        residual = np.abs(zero_points - value)
        scatter = 1.4826 * np.median(residual[used])
        used = usable & (residual <= clip * np.maximum(sigma, scatter))
        value = float(np.average(zero_points[used], weights=weights[used]))
    return ZeroPoint(value, float(weights[used].sum() ** -0.5), used)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """An image with its variance and its bad pixels, and the absolute coordinates of the first one."""

    image: np.ndarray
    variance: np.ndarray
    bad: np.ndarray
    start_xy: tuple[int, int]

    def cover(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return which of the positions (n,) lie on a pixel; those that aren't finite don't."""
        ny, nx = self.image.shape
        column, row = np.rint(x) - self.start_xy[0], np.rint(y) - self.start_xy[1]
        return (column >= 0) & (column < nx) & (row >= 0) & (row < ny)

    def stamps(self, x: np.ndarray, y: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return pixels, variance and usability (n, stamp pixels) around positions; none beyond the edge is usable."""
        ny, nx = self.image.shape
        offsets = np.arange(-half, half + 1)
        rows = (np.rint(y).astype(int) - self.start_xy[1])[:, None, None] + offsets[:, None]
        columns = (np.rint(x).astype(int) - self.start_xy[0])[:, None, None] + offsets
        inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
        rows, columns = np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)
        data, noise = self.image[rows, columns], self.variance[rows, columns]
        good = inside & ~self.bad[rows, columns] & np.isfinite(data) & np.isfinite(noise) & (noise > 0)
        shape = (len(x), -1)
        return np.where(good, data, 0).reshape(shape), np.where(good, noise, 1).reshape(shape), good.reshape(shape)


def _fit_chunk(
    pixels: _Pixels, psf: PolynomialPsf, x_given: np.ndarray, y_given: np.ndarray, *, recenter: bool
) -> np.ndarray:
    """Return the fields of `PsfPhotometry` as rows (8, n)."""
    result = np.full((8, len(x_given)), np.nan)
    result[2], result[3], result[7] = x_given, y_given, 0
    on_image = np.flatnonzero(pixels.cover(x_given, y_given))
    if not len(on_image):
        return result
    x, y = x_given[on_image], y_given[on_image]
    x_err = y_err = np.full(len(x), np.nan)
    if recenter:
        x, y, x_err, y_err = _recentre(pixels, psf, x, y)
    data, noise, good = pixels.stamps(x, y, psf.half)
    model = psf.stamps_at(x, y).reshape(len(x), -1)
    power = np.sum(model**2 * good, axis=1)
    whole_power = np.sum(model**2, axis=1)
    usable = power / whole_power
    safe = np.where(power > 0, power, np.nan)
    flux = np.sum(model * good * data, axis=1) / safe
    flux_err = np.sqrt(np.sum(model**2 * good * noise, axis=1)) / safe
    residual = (data - flux[:, None] * model) ** 2 * good / noise
    freedom = np.maximum(good.sum(axis=1) - (3 if recenter else 1), 1)
    rows = np.array([flux, flux_err, x, y, x_err, y_err, residual.sum(axis=1) / freedom])
    measured = usable >= MIN_USABLE
    result[:7, on_image[measured]] = rows[:, measured]
    result[7, on_image] = usable
    return result


def _recentre(
    pixels: _Pixels, psf: PolynomialPsf, x_given: np.ndarray, y_given: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return fitted positions and their uncertainties (n,); sources whose fit walks away keep the given position."""
    x, y = x_given.copy(), y_given.copy()
    covariance = np.full((len(x), 3, 3), np.nan)
    for _ in range(ITERATIONS):
        data, noise, good = pixels.stamps(x, y, psf.half)
        design = np.stack(psf.stamps_and_slopes_at(x, y), axis=1).reshape(len(x), 3, -1)
        masked = design * good[:, None, :]
        normal = masked @ design.transpose(0, 2, 1)
        normal += 1e-12 * np.eye(3)
        inverse = np.linalg.inv(normal)
        solution = (inverse @ (masked @ data[:, :, None]))[:, :, 0]
        covariance = inverse @ ((masked * noise[:, None, :]) @ masked.transpose(0, 2, 1)) @ inverse
        positive = solution[:, 0] > 0
        flux = np.where(positive, solution[:, 0], np.inf)
        x = x + np.clip(solution[:, 1] / flux, -MAX_STEP_PX, MAX_STEP_PX)
        y = y + np.clip(solution[:, 2] / flux, -MAX_STEP_PX, MAX_STEP_PX)
        covariance /= flux[:, None, None] ** 2
    stayed = (np.hypot(x - x_given, y - y_given) < MAX_WALK_PX) & np.isfinite(x) & np.isfinite(y) & positive
    x_err, y_err = (np.where(stayed, np.sqrt(np.abs(covariance[:, k, k])), np.nan) for k in (1, 2))
    return np.where(stayed, x, x_given), np.where(stayed, y, y_given), x_err, y_err
