"""Corrections to positions over a field, visit by visit, such that stars stay where they are.

Belongs here: the numeric fit of all visits' corrections in a tangent plane, against mean star positions anchored to a
reference catalogue. Doesn't: pixels, WCSs and tables (`drp_tasks.global_astrometry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from drp_tasks.robust import robust_sigma, robust_weights

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FieldModel:
    """How flexible a visit's correction is."""

    max_order: int = 5
    """Largest total order of the visit's polynomial in the tangent plane."""
    stars_per_term: int = 8
    """The order is lowered until the visit has so many stars for each of its terms."""
    visit_prior_mas: float = 10.0
    """Width of the prior of each coefficient: many stars outvote it, corners without stars stay sane."""
    detector_prior_mas: float = 3.0
    """Width of the prior of each detector's own shift and linear terms in a visit; 0 for none."""

    def order(self, n_stars: int) -> int:
        """Largest order that a visit with so many stars can bear; −1 if it bears none."""
        orders = range(self.max_order, -1, -1)
        return next((k for k in orders if (k + 1) * (k + 2) // 2 * self.stars_per_term <= n_stars), -1)


@dataclass(frozen=True, slots=True)
class Footprint:
    """A detector's place in the tangent plane for one visit, on a grid of its pixels; arrays of shape (n_points,)."""

    visit: int
    detector: int
    x: Floats
    y: Floats
    """Pixels of the grid, which covers the whole detector."""
    xi: Floats
    eta: Floats
    """The grid under the preliminary WCS, in arcsec."""


@dataclass(frozen=True, slots=True)
class StarPositions:
    """Measurements of stars in the tangent plane; arrays of shape (n_measurements,) unless said otherwise."""

    star: Integers
    """Index of the star."""
    footprint: Integers
    """Index of the footprint."""
    position: Floats
    """Standard coordinates under the preliminary WCS in arcsec, shape (n_measurements, 2)."""
    sigma: Floats
    """Error in each coordinate in arcsec."""
    reference: Floats
    """Standard coordinates of each star in the reference catalogue, NaN where it has none, shape (n_stars, 2)."""
    reference_sigma: Floats
    """Their error in arcsec, shape (n_stars,)."""


@dataclass(frozen=True, slots=True)
class AstrometricCorrection:
    """Corrections of all detectors of all visits; arrays over the footprints unless said otherwise."""

    grid: list[Floats | None]
    """For each footprint, corrected standard coordinates of its grid, shape (n_points, 2); None without a solution."""
    position: Floats
    """Corrected positions of the measurements in arcsec, shape (n_measurements, 2)."""
    n_stars: Integers
    residual_mas: Floats
    """Robust scatter of the measurements about their stars, in each coordinate; NaN with fewer than two."""
    n_iterations: int
    converged: bool


class _VisitSolver:
    """The linear model of one visit: a polynomial over the field, and a shift and slopes for each detector."""

    def __init__(
        self, footprint_indices: Integers, footprints: Sequence[Footprint], order: int, model: FieldModel
    ) -> None:
        self._order = order
        points = np.concatenate([np.stack([footprints[k].xi, footprints[k].eta], axis=-1) for k in footprint_indices])
        self._field = _Domain.around(points)
        self._detectors = {
            int(k): _Domain.around(np.stack([footprints[k].xi, footprints[k].eta], axis=-1)) for k in footprint_indices
        }
        self._with_detectors = model.detector_prior_mas > 0
        n_field = (order + 1) * (order + 2) // 2
        n_detector = 3 * len(self._detectors) * self._with_detectors
        widths = np.repeat([model.visit_prior_mas, model.detector_prior_mas], [n_field, n_detector]) / 1000
        self._prior = np.diag(widths**-2.0)

    def design(self, footprint: Integers, position: Floats) -> Floats:
        """Matrix (n, n_terms) of the model's terms at positions (n, 2) in their footprints (n,)."""
        u, v = self._field.normalised(position).T
        p, q = legvander(u, self._order), legvander(v, self._order)
        columns = [p[:, i] * q[:, j] for i in range(self._order + 1) for j in range(self._order + 1 - i)]
        if self._with_detectors:
            for detector, domain in self._detectors.items():
                here = (footprint == detector).astype(float)
                u, v = domain.normalised(position).T
                columns += [here, here * u, here * v]
        return np.stack(columns, axis=-1)

    def fit(self, design: Floats, offset: Floats, weight: Floats) -> Floats:
        """Coefficients (n_terms, 2) that best explain offsets (n, 2) with weights (n,) and the priors."""
        weighted = design * weight[:, None]
        return np.linalg.solve(weighted.T @ design + self._prior, weighted.T @ offset)


@dataclass(frozen=True, slots=True)
class _Domain:
    """A box of the tangent plane that maps to [−1, 1]²."""

    middle: Floats
    half: Floats

    @classmethod
    def around(cls, points: Floats) -> _Domain:
        low, high = points.min(axis=0), points.max(axis=0)
        return cls((low + high) / 2, (high - low) / 2)

    def normalised(self, position: Floats) -> Floats:
        return (position - self.middle) / self.half


def fit_corrections(
    footprints: Sequence[Footprint],
    stars: StarPositions,
    model: FieldModel | None = None,
    *,
    max_iterations: int = 100,
    reweighted_iterations: int = 10,
    tolerance_mas: float = 0.02,
) -> AstrometricCorrection:
    """Fit corrections under which each star has one position in all visits, tied to the reference catalogue.

    Alternates between mean star positions, in which the reference catalogue has its share by its errors, and each
    visit's correction to them, with Huber weights, until nothing moves any more. (A small relative of Bernstein et al.
    2017, without terms that all visits share.)

    Parameters
    ----------
    footprints
        The detectors of each visit.
    stars
        The measurements.
    model
        How flexible the corrections are.
    max_iterations
        Limit of the alternation.
    reweighted_iterations
        How many of these change the weights; with fixed ones the rest converges.
    tolerance_mas
        Largest change of any correction at which it ends.

    Returns
    -------
    correction
        A visit with too few stars for its lowest order has no solution.
    """
    model = model or FieldModel()
    visit_of = np.array([footprint.visit for footprint in footprints])
    measured_visit = visit_of[stars.footprint]
    solvers: dict[int, _VisitSolver] = {}
    rows: dict[int, Integers] = {}
    for visit in np.unique(measured_visit):
        mine = np.flatnonzero(measured_visit == visit)
        order = model.order(len(mine))
        if order >= 0:
            rows[visit] = mine
            solvers[visit] = _VisitSolver(np.flatnonzero(visit_of == visit), footprints, order, model)
    designs = {
        visit: solvers[visit].design(stars.footprint[mine], stars.position[mine]) for visit, mine in rows.items()
    }
    solved = np.isin(measured_visit, list(rows))

    weight = solved / stars.sigma**2
    offset = np.zeros_like(stars.position)
    coefficients: dict[int, Floats] = {}
    converged, iteration = False, 0
    while not converged and iteration < max_iterations:
        mean = _anchored_means(stars, stars.position - offset, weight)
        before, offset = offset, np.zeros_like(offset)
        for visit, mine in rows.items():
            difference = (stars.position - mean[stars.star])[mine]
            coefficients[visit] = solvers[visit].fit(designs[visit], difference, weight[mine])
            offset[mine] = designs[visit] @ coefficients[visit]
        if iteration < reweighted_iterations:
            residual = np.hypot(*(stars.position - offset - mean[stars.star]).T) / np.sqrt(2) / stars.sigma
            weight = np.where(solved, robust_weights(residual), 0.0) / stars.sigma**2
        converged = 1000 * np.abs(offset - before).max(initial=0.0) < tolerance_mas
        iteration += 1

    mean = _anchored_means(stars, stars.position - offset, weight)
    residual_mas = 1000 * (stars.position - offset - mean[stars.star])
    used = weight > 0
    grids: list[Floats | None] = []
    scatter = np.full(len(footprints), np.nan)
    for k, footprint in enumerate(footprints):
        grids.append(_corrected_grid(k, footprint, solvers, coefficients))
        mine = used & (stars.footprint == k)
        if mine.sum() >= 2:
            scatter[k] = robust_sigma(residual_mas[mine], center=0.0)
    return AstrometricCorrection(
        grid=grids,
        position=stars.position - offset,
        n_stars=np.bincount(stars.footprint[used], minlength=len(footprints)).astype(np.int64),
        residual_mas=scatter,
        n_iterations=iteration,
        converged=converged,
    )


def _corrected_grid(
    index: int, footprint: Footprint, solvers: dict[int, _VisitSolver], coefficients: dict[int, Floats]
) -> Floats | None:
    if footprint.visit not in coefficients:
        return None
    grid = np.stack([footprint.xi, footprint.eta], axis=-1)
    design = solvers[footprint.visit].design(np.full(len(grid), index), grid)
    return np.asarray(grid - design @ coefficients[footprint.visit])


def _anchored_means(stars: StarPositions, position: Floats, weight: Floats) -> Floats:
    """Mean position (n_stars, 2) of each star, its reference position taking part; NaN-free where nothing weighs."""
    n_stars = len(stars.reference)
    anchored = np.isfinite(stars.reference).all(axis=1)
    anchor_weight = np.where(anchored, stars.reference_sigma, np.inf) ** -2.0
    total = np.bincount(stars.star, weight, minlength=n_stars) + anchor_weight
    means = np.zeros((n_stars, 2))
    for axis in range(2):
        pull = np.where(anchored, stars.reference[:, axis], 0.0) * anchor_weight
        sums = np.bincount(stars.star, weight * position[:, axis], minlength=n_stars) + pull
        means[:, axis] = sums / np.where(total > 0, total, 1.0)
    return means
