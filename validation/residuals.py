"""How far each measurement of a star is from the star's mean: what repeatability figures show.

Belongs here: pure numbers from star tables. Doesn't: the metrics themselves, which the validation step's tasks compute
and store.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table

MAS_PER_DEGREE = 3.6e6


def star_residuals(stars: Table, association: Table, least_snr: float = 50.0) -> Table:
    """Compare every measurement of an isolated star with the star's mean.

    Parameters
    ----------
    stars
        One row a measurement: sourceId, visit, detector, band, x, y (pix), ra, dec (deg), psfFlux, psfFluxErr (nJy),
        flag.
    association
        sourceId and isolatedStarId of those that belong to an isolated star.
    least_snr
        Fainter measurements are left out.

    Returns
    -------
    astropy.table.Table
        isolatedStarId, visit, detector, band, x, y (pix), ra_mas (times cos dec) and dec_mas from the mean over all
        bands, mag_mmag from the mean over the same band; only stars measured at least twice (in the band).
    """
    ids = np.asarray(association["sourceId"])
    order = np.argsort(ids)
    source = np.asarray(stars["sourceId"])
    place = np.minimum(np.searchsorted(ids, source, sorter=order), max(len(ids) - 1, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.asarray(stars["psfFlux"], float) / np.asarray(stars["psfFluxErr"], float)
    good = (snr > least_snr) & ~np.asarray(stars["flag"], bool)
    good &= (ids[order[place]] == source) if len(ids) else False
    star = np.asarray(association["isolatedStarId"])[order[place]][good] if len(ids) else np.zeros(0, int)
    picked = stars[good]
    ra, dec = np.asarray(picked["ra"], float), np.asarray(picked["dec"], float)
    # From the first star on, so that a field across right ascension 0 has one mean.
    ra = (ra - ra[:1] + 180) % 360 - 180
    magnitude = 31.4 - 2.5 * np.log10(np.asarray(picked["psfFlux"], float))
    band = np.asarray(picked["band"]).astype(str)
    mean_ra, mean_dec = _group_means(star, ra), _group_means(star, dec)
    band_code = np.unique(band, return_inverse=True)[1]
    star_band = star * (band_code.max(initial=0) + 1) + band_code
    mean_magnitude = _group_means(star_band, magnitude)
    several = _group_sizes(star_band) >= 2
    table = Table(
        {
            "isolatedStarId": star,
            "visit": np.asarray(picked["visit"]),
            "detector": np.asarray(picked["detector"]),
            "band": band,
            "x": np.asarray(picked["x"], float),
            "y": np.asarray(picked["y"], float),
            "ra_mas": (ra - mean_ra) * np.cos(np.radians(dec)) * MAS_PER_DEGREE,
            "dec_mas": (dec - mean_dec) * MAS_PER_DEGREE,
            "mag_mmag": (magnitude - mean_magnitude) * 1000,
        }
    )
    return table[several]


def robust_width(values: np.ndarray) -> float:
    """Estimate a standard deviation by the median absolute deviation from the median; NaN of nothing.

    Parameters
    ----------
    values
        Numbers; those that aren't finite are left out.
    """
    values = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")


def binned_median(x: np.ndarray, y: np.ndarray, values: np.ndarray, edges: np.ndarray, least: int = 1) -> np.ndarray:
    """Take the median of values in square cells.

    Parameters
    ----------
    x, y
        Positions.
    values
        One a position.
    edges
        Cells' edges, the same in both directions.
    least
        A cell with fewer finite values is NaN.

    Returns
    -------
    numpy.ndarray
        (cells in y, cells in x).
    """
    cells = len(edges) - 1
    column, row = np.digitize(x, edges) - 1, np.digitize(y, edges) - 1
    inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells) & np.isfinite(values)
    medians = np.full(cells * cells, np.nan)
    cell = (row * cells + column)[inside]
    order = np.argsort(cell, kind="stable")
    groups, starts = np.unique(cell[order], return_index=True)
    stops = [*starts[1:], len(order)]
    sorted_values = values[inside][order]
    for group, start, stop in zip(groups, starts, stops if len(groups) else [], strict=True):
        if stop - start >= least:
            medians[group] = np.median(sorted_values[start:stop])
    return medians.reshape(cells, cells)


def _group_means(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give each element the mean of its group."""
    _, inverse = np.unique(groups, return_inverse=True)
    return (np.bincount(inverse, values) / np.bincount(inverse))[inverse] if len(groups) else values


def _group_sizes(groups: np.ndarray) -> np.ndarray:
    """Give each element the size of its group."""
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return counts[inverse]
