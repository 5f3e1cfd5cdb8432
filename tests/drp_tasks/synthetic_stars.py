"""A sky of stars seen by a few visits, with known errors put in, for the tests of the global calibration.

Belongs here: catalogues as the single-visit steps would write them. Doesn't: images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from astropy.wcs import WCS

from drp_tasks.images import wcs_to_text
from drp_tasks.matching import from_tangent_plane, to_tangent_plane

RA0, DEC0 = 53.1, -28.1
SIDE_PX, GAP_PX, SCALE_ARCSEC = 512, 20, 0.2
ZERO_POINTS = {"g": 32.0, "r": 31.8, "i": 31.5}


def no_distortion(visit: int, xi: np.ndarray, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True minus preliminary position [mas]: none."""
    return np.zeros_like(xi), np.zeros_like(eta)


@dataclass(frozen=True)
class Errors:
    """What is wrong with the single-visit calibration, and how noisy the sources are."""

    zero_point: Callable[[int, int], float] = lambda visit, detector: 0.0
    """Preliminary minus true zero point [mag] of (visit, detector)."""
    distortion: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] = no_distortion
    """Preliminary minus true position [mas] of (visit, xi, eta)."""
    centroid_mas: float = 0.0
    flux_relative: float = 0.0
    reference_mas: float = 0.0
    reference_mag: float = 0.0


@dataclass(frozen=True)
class Sky:
    """The true stars."""

    ra: np.ndarray
    dec: np.ndarray
    magnitude: dict[str, np.ndarray]

    @property
    def references(self) -> Table:
        """The reference catalogue without errors."""
        table = Table({"id": np.arange(len(self.ra)), "ra": self.ra, "dec": self.dec})
        table["raErr"] = table["decErr"] = np.full(len(self.ra), 2.0)
        for band, magnitude in self.magnitude.items():
            table[f"mag_{band}"], table[f"magErr_{band}"] = magnitude, np.full(len(self.ra), 0.01)
        return table


@dataclass(frozen=True)
class Catalogues:
    """What the single-visit steps wrote."""

    sky: Sky
    sources: Table
    summary: Table
    references: Table


def make_sky(n_stars: int, seed: int = 1, half_width_arcsec: float = 100.0) -> Sky:
    """Scatter stars of 17 < r < 20 over the field, none within 6 arcsec of another."""
    rng = np.random.default_rng(seed)
    points = np.zeros((0, 2))
    while len(points) < n_stars:
        candidate = rng.uniform(-half_width_arcsec, half_width_arcsec, 2)
        if not len(points) or np.hypot(*(points - candidate).T).min() > 6:
            points = np.vstack([points, candidate])
    ra, dec = from_tangent_plane(points[:, 0], points[:, 1], RA0, DEC0)
    r = rng.uniform(17, 20, n_stars)
    return Sky(ra, dec, {"g": r + 0.6, "r": r, "i": r - 0.3})


def detector_wcs(rotation_deg: float, dither_arcsec: tuple[float, float], detector: int) -> WCS:
    """Pure TAN WCS of a detector of a 2×2 mosaic."""
    cos, sin = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = from_tangent_plane(*dither_arcsec, RA0, DEC0)
    wcs.wcs.cd = SCALE_ARCSEC / 3600 * np.array([[-cos, sin], [sin, cos]])
    column, row = detector % 2, detector // 2
    offset = (SIDE_PX + GAP_PX) / 2
    wcs.wcs.crpix = [
        SIDE_PX / 2 + 0.5 + offset * (1 - 2 * column),
        SIDE_PX / 2 + 0.5 + offset * (1 - 2 * row),
    ]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def observe(
    sky: Sky,
    bands: str = "rrrr",
    errors: Errors | None = None,
    *,
    detectors: tuple[int, ...] = (0, 1, 2, 3),
    seed: int = 2,
) -> Catalogues:
    """Observe a sky, a visit for each letter of ``bands``, rotated by 90 degrees every other time and dithered."""
    errors = errors or Errors()
    rng = np.random.default_rng(seed)
    sources, summary = [], []
    for visit, band in enumerate(bands, start=1):
        dither = tuple(rng.uniform(-5, 5, 2))
        for detector in range(4):
            wcs = detector_wcs(90.0 * (visit % 2) + visit, dither, detector)
            table = _sources_of(sky, (visit, detector, band), wcs, errors, rng)
            zero_point = ZERO_POINTS[band] + errors.zero_point(visit, detector)
            sources.append(table)
            ra, dec = wcs.all_pix2world(SIDE_PX / 2 - 0.5, SIDE_PX / 2 - 0.5, 0)
            summary.append(
                {
                    "visit": visit, "detector": detector, "band": band, "zeroPoint": zero_point,
                    "zeroPointErr": 0.01, "nPhotometryStars": len(table), "wcs": wcs_to_text(wcs),
                    "astrometryResidual": 20.0, "nAstrometryStars": len(table), "ra": float(ra), "dec": float(dec),
                    "meanVariance": 100.0, **_corners(wcs),
                }
            )  # fmt: skip
    references = sky.references
    references["ra"] += rng.normal(0, 1, len(sky.ra)) * errors.reference_mas / 3.6e6 / np.cos(np.radians(DEC0))
    references["dec"] += rng.normal(0, 1, len(sky.ra)) * errors.reference_mas / 3.6e6
    for band in sky.magnitude:
        references[f"mag_{band}"] += rng.normal(0, 1, len(sky.ra)) * errors.reference_mag
    return Catalogues(sky, vstack(sources), Table(rows=summary), references)


def _corners(wcs: WCS) -> dict[str, float]:
    edges = np.array([[-0.5, -0.5], [SIDE_PX - 0.5, -0.5], [SIDE_PX - 0.5, SIDE_PX - 0.5], [-0.5, SIDE_PX - 0.5]])
    sky = wcs.all_pix2world(edges, 0)
    return {f"{axis}Corner{k}": float(sky[k, j]) for k in range(4) for j, axis in enumerate(("ra", "dec"))}


def _sources_of(sky: Sky, data_id: tuple[int, int, str], wcs: WCS, errors: Errors, rng: np.random.Generator) -> Table:
    visit, detector, band = data_id
    xi, eta = to_tangent_plane(sky.ra, sky.dec, RA0, DEC0)
    shift_xi, shift_eta = errors.distortion(visit, xi, eta)
    noise = rng.normal(0, 1, (2, len(xi))) * errors.centroid_mas
    ra, dec = from_tangent_plane(xi + (shift_xi + noise[0]) / 1000, eta + (shift_eta + noise[1]) / 1000, RA0, DEC0)
    x, y = wcs.all_world2pix(ra, dec, 0)
    seen = np.flatnonzero((x > 0) & (x < SIDE_PX - 1) & (y > 0) & (y < SIDE_PX - 1))
    magnitude = sky.magnitude[band][seen] + errors.zero_point(visit, detector)
    # Drawn for all stars, so that one that leaves the edge changes nothing for the others.
    scatter = rng.normal(0, 1, len(xi))[seen] * errors.flux_relative
    flux = 10 ** (-0.4 * (magnitude - 31.4)) * (1 + scatter)
    n = len(seen)
    return Table(
        {
            "sourceId": visit * 10**6 + detector * 10**5 + np.arange(n),
            "truthId": seen,
            "visit": np.full(n, visit), "detector": np.full(n, detector, np.int32), "band": np.full(n, band),
            "x": x[seen], "y": y[seen], "ra": ra[seen], "dec": dec[seen],
            "psfFlux": flux, "psfFluxErr": flux * max(errors.flux_relative, 1e-3),
            "apFlux": flux * 1.05, "apFluxErr": flux * 2e-3,
            "xErr": np.full(n, max(errors.centroid_mas, 1.0) / 1000 / SCALE_ARCSEC, np.float32),
            "yErr": np.full(n, max(errors.centroid_mas, 1.0) / 1000 / SCALE_ARCSEC, np.float32),
            "psfChi2": np.ones(n, np.float32), "extendedness": np.zeros(n, np.float32), "flag": np.zeros(n, bool),
        }
    )  # fmt: skip
