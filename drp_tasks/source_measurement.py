"""A table of sources: what the detections of every image of a visit are measured for.

Belongs here: the columns that all such tables share, and how a source is flagged and told from a star.
Doesn't: finding sources (`drp_tasks.detection`), moments of stars (`drp_tasks.moments`).
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from drp_tasks.identifiers import source_ids
from drp_tasks.photometry import aperture_photometry, psf_photometry
from drp_tasks.psf import PolynomialPsf
from drp_tasks.visit_facts import VisitFacts

FLAG_USABLE = 0.95
"""A source with less of its PSF on usable pixels is flagged."""

APERTURE_PX = 9.0
"""Radius of the aperture of apFlux."""


def measure_sources(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    psf: PolynomialPsf,
    x: np.ndarray,
    y: np.ndarray,
    *,
    unit: u.UnitBase,
    start_xy: tuple[int, int] = (0, 0),
    aperture_px: float = APERTURE_PX,
) -> Table:
    """Measure sources near absolute positions x, y (n,), and leave out those that can't be.

    Parameters
    ----------
    image, variance, bad
        Background-subtracted pixels, their variance, where they are unusable; (ny, nx).
    psf
        The image's PSF.
    unit
        Unit of the pixels.
    start_xy
        Absolute coordinates of the first pixel.
    aperture_px
        Radius of the aperture.

    Returns
    -------
    astropy.table.Table
        Columns x, y, xErr, yErr, psfFlux, psfFluxErr, apFlux, apFluxErr, halfLightRadius, psfChi2, flag.
    """
    point = psf_photometry(image, variance, bad, psf, x, y, start_xy=start_xy)
    disc = aperture_photometry(image, variance, bad, point.x, point.y, aperture_px, start_xy=start_xy)
    table = Table(
        {
            "x": point.x * u.pix,
            "y": point.y * u.pix,
            "xErr": point.x_err.astype(np.float32) * u.pix,
            "yErr": point.y_err.astype(np.float32) * u.pix,
            "psfFlux": point.flux * unit,
            "psfFluxErr": point.flux_err * unit,
            "apFlux": disc.flux * unit,
            "apFluxErr": disc.flux_err * unit,
            "halfLightRadius": disc.half_light_radius.astype(np.float32) * u.pix,
            "psfChi2": point.chi2.astype(np.float32),
            "flag": (point.usable < FLAG_USABLE) | ~np.isfinite(point.x_err),
        },
        copy=False,
    )
    return table[np.isfinite(point.flux) & np.isfinite(disc.flux)]


def extendedness(psf_flux: np.ndarray, aperture_flux: np.ndarray, stars: np.ndarray) -> np.ndarray:
    """Return how much brighter sources are in the aperture than as points, in mag, relative to the stars' median.

    Parameters
    ----------
    psf_flux, aperture_flux
        Fluxes (n,) in the same unit.
    stars
        Which sources are known to be points (n,).

    Returns
    -------
    numpy.ndarray
        Float32 (n,): about 0 for stars, more for what is extended, NaN where a flux isn't positive.
    """
    positive = (psf_flux > 0) & (aperture_flux > 0)
    ratio = np.where(positive, aperture_flux, np.nan) / np.where(positive, psf_flux, 1)
    difference = 2.5 * np.log10(ratio)
    known = stars & np.isfinite(difference)
    offset = np.median(difference[known]) if known.any() else 0.0
    return (difference - offset).astype(np.float32)


def identified(sources: Table, facts: VisitFacts, wcs: WCS) -> Table:
    """Return the sources with sourceId, visit, detector and band in front, and ra, dec [deg] by ``wcs`` after x, y.

    Parameters
    ----------
    sources
        As `measure_sources` returns them.
    facts
        Where they were seen.
    wcs
        Projection of their absolute pixel coordinates.
    """
    n = len(sources)
    ra, dec = wcs.all_pix2world(sources["x"].value, sources["y"].value, 0) if n else (np.zeros(0), np.zeros(0))
    front = {
        "sourceId": source_ids(facts.visit, facts.detector, n),
        "visit": np.full(n, facts.visit, np.int64),
        "detector": np.full(n, facts.detector, np.int32),
        "band": np.full(n, facts.band),
        "x": sources["x"],
        "y": sources["y"],
        "ra": ra * u.deg,
        "dec": dec * u.deg,
    }
    rest = {name: sources[name] for name in sources.colnames if name not in front}
    return Table({**front, **rest}, copy=False)


def rows_near(sources: Table, x: np.ndarray, y: np.ndarray, radius_px: float) -> np.ndarray:
    """Return for each place x, y (n,) the row of the nearest source, or -1 if none is within ``radius_px``."""
    if not len(sources):
        return np.full(len(x), -1)
    tree = cKDTree(np.c_[sources["x"].value, sources["y"].value])
    distance, row = tree.query(np.c_[x, y], distance_upper_bound=radius_px)
    return np.where(np.isfinite(distance), row, -1)
