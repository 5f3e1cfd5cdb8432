"""The WCS of a detector: from a header's guess, some pixels off, to milliarcseconds on a reference catalogue.

Belongs here: finding the pointing error, matching, and the linear fit of a tangent-plane projection with distortion.
Doesn't: reading reference catalogues, or fits over many visits (`drp_tasks.global_astrometry`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS, Sip
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from drp_tasks.matching import from_tangent_plane, to_tangent_plane

MIN_MATCHES = 6
CLIP = 3.0
"""A pair is dropped if its distance is so many times the typical one, in its own uncertainty."""

DISTORTION_PRIOR_MAS = 10.0
"""Displacement that a quadratic term is expected to give at the edge of a detector."""

_DEG_PER_ARCSEC = 1 / 3600


class AstrometryError(ValueError):
    """Too few stars agree with the reference catalogue."""

    def __init__(self, n_matched: int) -> None:
        super().__init__(f"{n_matched} stars match the reference catalogue, {MIN_MATCHES} needed for a WCS")
        self.n_matched = n_matched


@dataclass(frozen=True, eq=False)
class Reference:
    """Reference stars, arrays (n,): positions in degrees at the epoch of the image, their uncertainty in mas."""

    ra: np.ndarray
    dec: np.ndarray
    error_mas: np.ndarray


@dataclass(frozen=True, eq=False)
class AstrometricSolution:
    """A fitted WCS and what it rests on.

    Parameters
    ----------
    wcs
        Projection with SIP distortion, of 0-based absolute pixels.
    star, reference
        Indices of the matched pairs (n,) that entered the fit.
    residual_mas
        Robust standard deviation of the pairs in one coordinate.
    """

    wcs: WCS
    star: np.ndarray
    reference: np.ndarray
    residual_mas: float


def solve_astrometry(
    x: np.ndarray,
    y: np.ndarray,
    error_px: np.ndarray,
    reference: Reference,
    guess: WCS,
    *,
    shape: tuple[int, int],
    search_px: float = 20.0,
    n_brightest: int = 60,
    floor_mas: float = 3.0,
) -> AstrometricSolution:
    """Match stars with a reference catalogue and fit a WCS.

    Parameters
    ----------
    x, y
        Positions of stars, brightest first (n,).
    error_px
        Their uncertainty in one coordinate (n,).
    reference
        The catalogue, wider than the image or not.
    guess
        A WCS with the right scale and rotation, off by less than ``search_px``.
    shape
        (ny, nx) of the image.
    search_px
        How far off the guess may be along each axis.
    n_brightest
        How many of the stars vote for the shift.
    floor_mas
        Uncertainty added in quadrature, for what the model can't follow.

    Raises
    ------
    AstrometryError
        If fewer than `MIN_MATCHES` stars match.
    """
    ny, nx = shape
    ref_x, ref_y = _sky_to_pixel(guess, reference)
    margin = 1.5 * search_px
    near = (ref_x > -margin) & (ref_x < nx + margin) & (ref_y > -margin) & (ref_y < ny + margin)
    if near.sum() < MIN_MATCHES or len(x) < MIN_MATCHES:
        raise AstrometryError(min(int(near.sum()), len(x)))
    shift_xy = find_shift((x[:n_brightest], y[:n_brightest]), (ref_x[near], ref_y[near]), search_px)
    catalogue = np.flatnonzero(near)
    scale_mas = pixel_scale_mas(guess)
    centre_xy = ((nx - 1) / 2, (ny - 1) / 2)
    wcs = guess
    tree = cKDTree(np.c_[x, y])
    for radius_px, order in ((4.0, 1), (1.5, 2), (1.0, 2), (1.0, 2)):
        ref_x, ref_y = _sky_to_pixel(wcs, reference, catalogue)
        predicted = np.c_[ref_x + shift_xy[0], ref_y + shift_xy[1]]
        star, ref, distance = _mutual_pairs(tree, predicted, radius_px)
        sigma = np.sqrt((error_px[star] * scale_mas) ** 2 + reference.error_mas[catalogue[ref]] ** 2 + floor_mas**2)
        if order > 1 and len(star) >= MIN_MATCHES:
            misfit = distance * scale_mas / sigma
            kept = misfit <= CLIP * max(1.0, float(np.median(misfit)))
            star, ref, sigma = star[kept], ref[kept], sigma[kept]
        if len(star) < MIN_MATCHES:
            raise AstrometryError(len(star))
        pairs = catalogue[ref]
        wcs = fit_tan_sip(
            x[star],
            y[star],
            reference.ra[pairs],
            reference.dec[pairs],
            weight=1 / sigma,
            centre_xy=centre_xy,
            order=order,
            distortion_prior=DISTORTION_PRIOR_MAS,
        )
        shift_xy = (0.0, 0.0)
    ra, dec = wcs.all_pix2world(x[star], y[star], 0)
    xi, eta = to_tangent_plane(ra, dec, *wcs.wcs.crval)
    ref_xi, ref_eta = to_tangent_plane(reference.ra[pairs], reference.dec[pairs], *wcs.wcs.crval)
    residuals = np.concatenate([xi - ref_xi, eta - ref_eta]) * 1e3
    return AstrometricSolution(wcs, star, pairs, 1.4826 * float(np.median(np.abs(residuals))))


def find_shift(
    stars_xy: tuple[np.ndarray, np.ndarray], references_xy: tuple[np.ndarray, np.ndarray], search_px: float
) -> tuple[float, float]:
    """Return the shift (dx, dy) that brings most references onto stars: the peak of all differences."""
    dx = (stars_xy[0][:, None] - references_xy[0]).ravel()
    dy = (stars_xy[1][:, None] - references_xy[1]).ravel()
    bins = 2 * round(search_px)
    votes, x_edges, y_edges = np.histogram2d(dx, dy, bins=bins, range=[[-search_px, search_px]] * 2)
    column, row = np.unravel_index(gaussian_filter(votes, 1.0, mode="constant").argmax(), votes.shape)
    peak = x_edges[column] + 0.5, y_edges[row] + 0.5
    voters = np.hypot(dx - peak[0], dy - peak[1]) < 2
    return (float(np.median(dx[voters])), float(np.median(dy[voters]))) if voters.any() else peak


def fit_tan_sip(
    x: np.ndarray,
    y: np.ndarray,
    ra: np.ndarray,
    dec: np.ndarray,
    *,
    weight: np.ndarray,
    centre_xy: tuple[float, float],
    order: int = 2,
    distortion_prior: float = np.inf,
) -> WCS:
    """Fit a TAN projection with SIP distortion by linear least squares.

    The polynomial in pixels that gives standard coordinates is linear in its coefficients; its linear part is the CD
    matrix, and what is beyond it, through the inverse of that matrix, the SIP terms. The tangent point is moved to
    where the polynomial's constant vanishes.

    Parameters
    ----------
    x, y
        0-based pixels (n,).
    ra, dec
        Positions in degrees (n,).
    weight
        Inverse standard deviations (n,), in any common unit.
    centre_xy
        Reference pixel.
    order
        1 for a linear projection, more for SIP of that order.
    distortion_prior
        Displacement, in the unit of 1 / ``weight``, that a SIP term is expected to give at the field's edge: few stars
        then don't take noise for distortion.
    """
    scale = max(float(np.ptp(x)), float(np.ptp(y)), 1.0)
    powers = [(i, total - i) for total in range(order + 1) for i in range(total, -1, -1)]
    u, v = (x - centre_xy[0]) / scale, (y - centre_xy[1]) / scale
    design = np.stack([u**i * v**j for i, j in powers], axis=-1)
    # At half a field's width a term of degree n displaces by its coefficient / 2^n.
    prior = np.diag([2.0 ** -(i + j) / distortion_prior if i + j > 1 else 0.0 for i, j in powers])
    weighted = np.vstack([design * weight[:, None], prior])
    tangent = _middle_of(ra, dec)
    for _ in range(4):
        standard = np.stack(to_tangent_plane(ra, dec, *tangent), axis=-1) * _DEG_PER_ARCSEC
        wanted = np.vstack([standard * weight[:, None], np.zeros((len(powers), 2))])
        coefficients = np.linalg.lstsq(weighted, wanted, rcond=None)[0]
        constant = coefficients[0] / _DEG_PER_ARCSEC
        moved_ra, moved_dec = from_tangent_plane(constant[0], constant[1], *tangent)
        tangent = float(moved_ra), float(moved_dec)
    per_pixel = coefficients / np.array([scale ** (i + j) for i, j in powers])[:, None]
    cd = per_pixel[1:3].T
    wcs = WCS(naxis=2)
    suffix = "-SIP" if order > 1 else ""
    wcs.wcs.ctype = ["RA---TAN" + suffix, "DEC--TAN" + suffix]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = tangent
    wcs.wcs.crpix = [centre_xy[0] + 1, centre_xy[1] + 1]
    wcs.wcs.cd = cd
    if order > 1:
        a, b = np.zeros((2, order + 1, order + 1))
        for (i, j), standard_term in zip(powers[3:], per_pixel[3:], strict=True):
            a[i, j], b[i, j] = np.linalg.solve(cd, standard_term)
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def pixel_scale_mas(wcs: WCS) -> float:
    """Return the mean width of a pixel in milliarcseconds."""
    return float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))) * 3.6e6


def _sky_to_pixel(
    wcs: WCS, reference: Reference, subset: np.ndarray | slice = slice(None)
) -> tuple[np.ndarray, np.ndarray]:
    x, y = wcs.all_world2pix(reference.ra[subset], reference.dec[subset], 0, quiet=True)
    return x, y


def _mutual_pairs(tree: cKDTree, predicted: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return indices of stars and predictions that are each other's nearest within ``radius``, and their distances."""
    distance, star = tree.query(predicted, distance_upper_bound=radius)
    _, back = cKDTree(predicted).query(tree.data)
    ref = np.flatnonzero(np.isfinite(distance))
    ref = ref[back[star[ref]] == ref]
    return star[ref], ref, distance[ref]


def _middle_of(ra: np.ndarray, dec: np.ndarray) -> tuple[float, float]:
    """Return a point near the mean of positions that lie within some degrees, wherever RA wraps."""
    xi, eta = to_tangent_plane(ra, dec, float(ra[0]), float(dec[0]))
    middle_ra, middle_dec = from_tangent_plane(xi.mean(), eta.mean(), float(ra[0]), float(dec[0]))
    return float(middle_ra), float(middle_dec)
