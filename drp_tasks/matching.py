"""Positions compared on the sky: matching two lists, linking one, pairs by separation, and the tangent plane.

Belongs here: the one way to match positions, on unit vectors, so that neither RA = 0 nor a pole is special.
Doesn't: what a match means (stars, transients, references), or pixel coordinates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]

ARCSEC = np.pi / 180 / 3600
"""One arcsecond in radians."""


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Floats:
    """Turn positions on the sky into points of the unit sphere.

    Parameters
    ----------
    ra, dec
        Positions in degrees, any shape (...,).

    Returns
    -------
    vectors
        Cartesian coordinates, shape (..., 3); NaN where a position is NaN.
    """
    alpha, delta = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=-1)


def sky_position(vectors: ArrayLike) -> tuple[Floats, Floats]:
    """Turn points, not necessarily of unit length, into positions on the sky.

    Parameters
    ----------
    vectors
        Cartesian coordinates, shape (..., 3).

    Returns
    -------
    ra, dec
        Positions in degrees, 0 <= ra < 360, shape (...,).
    """
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Floats:
    """Angle between positions, exact for small angles.

    Parameters
    ----------
    ra1, dec1, ra2, dec2
        Positions in degrees, shapes that broadcast together.

    Returns
    -------
    separation
        Angles in arcsec; NaN where a position is NaN.
    """
    chord = np.linalg.norm(unit_vectors(ra1, dec1) - unit_vectors(ra2, dec2), axis=-1)
    return angle_of_chord(chord)


def angle_of_chord(chord: ArrayLike) -> Floats:
    """Angle in arcsec that a chord of the unit sphere subtends."""
    return np.asarray(2 * np.arcsin(np.clip(np.asarray(chord, float) / 2, 0, 1)) / ARCSEC)


def chord_of_angle(angle_arcsec: float) -> float:
    """Chord of the unit sphere under an angle in arcsec."""
    return float(2 * np.sin(angle_arcsec * ARCSEC / 2))


def match_sky(
    ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike, radius_arcsec: float
) -> tuple[Integers, Floats]:
    """Find for each position of the first list the nearest one of the second.

    Parameters
    ----------
    ra1, dec1
        Positions to find partners for, degrees, shape (n,); a NaN finds none.
    ra2, dec2
        Where partners are looked for, degrees, shape (m,), m may be 0; a NaN is nobody's partner.
    radius_arcsec
        Largest separation of a match.

    Returns
    -------
    index
        Index into the second list, −1 without a match, shape (n,). Several positions may share a partner.
    distance
        Separation in arcsec, infinite without a match, shape (n,).
    """
    here, there = unit_vectors(ra1, dec1), unit_vectors(ra2, dec2)
    index = np.full(len(here), -1, np.int64)
    distance = np.full(len(here), np.inf)
    valid, candidates = np.isfinite(here).all(axis=1), np.flatnonzero(np.isfinite(there).all(axis=1))
    if candidates.size and valid.any():
        limit = chord_of_angle(radius_arcsec) * (1 + 1e-12)
        chord, nearest = map(np.asarray, cKDTree(there[candidates]).query(here[valid], distance_upper_bound=limit))
        found = np.isfinite(chord)
        rows = np.flatnonzero(valid)[found]
        index[rows] = candidates[nearest[found]]
        distance[rows] = angle_of_chord(chord[found])
    return index, distance


def link_friends(ra: ArrayLike, dec: ArrayLike, radius_arcsec: float) -> Integers:
    """Group positions so that any two closer than the linking length share a group (friends of friends).

    Parameters
    ----------
    ra, dec
        Finite positions in degrees, shape (n,).
    radius_arcsec
        Linking length.

    Returns
    -------
    group
        Group of each position, 0 … number of groups − 1, shape (n,). The grouping does not depend on the order.
    """
    points = unit_vectors(ra, dec)
    if not len(points):
        return np.zeros(0, np.int64)
    pairs = cKDTree(points).query_pairs(chord_of_angle(radius_arcsec), output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(points), len(points)))
    return connected_components(links, directed=False)[1].astype(np.int64)


def neighbour_distance(ra: ArrayLike, dec: ArrayLike) -> Floats:
    """Separation in arcsec of each position (degrees, shape (n,)) from its nearest other; infinite for a lonely one."""
    points = unit_vectors(ra, dec)
    if len(points) < 2:
        return np.full(len(points), np.inf)
    return angle_of_chord(cKDTree(points).query(points, k=2)[0][:, 1])


def pairs_between(ra: ArrayLike, dec: ArrayLike, nearest_arcsec: float, farthest_arcsec: float) -> Integers:
    """List the pairs of positions whose separation lies in an annulus.

    Parameters
    ----------
    ra, dec
        Finite positions in degrees, shape (n,).
    nearest_arcsec, farthest_arcsec
        The annulus, both ends included.

    Returns
    -------
    pairs
        Indices i < j, sorted, shape (number of pairs, 2).
    """
    points = unit_vectors(ra, dec)
    if len(points) < 2:
        return np.zeros((0, 2), np.int64)
    pairs = cKDTree(points).query_pairs(chord_of_angle(farthest_arcsec), output_type="ndarray")
    chord = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs = pairs[chord >= chord_of_angle(nearest_arcsec)].astype(np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def to_tangent_plane(ra: ArrayLike, dec: ArrayLike, ra0: float, dec0: float) -> tuple[Floats, Floats]:
    """Project positions gnomonically about a point (the TAN projection of the FITS standard).

    Parameters
    ----------
    ra, dec
        Positions in degrees, less than 90° from the tangent point, any shape.
    ra0, dec0
        Tangent point in degrees.

    Returns
    -------
    xi, eta
        Standard coordinates in arcsec, xi growing to the east and eta to the north.
    """
    alpha, delta = np.radians(np.asarray(ra, float) - ra0), np.radians(np.asarray(dec, float))
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    depth = np.sin(delta) * sin0 + np.cos(delta) * cos0 * np.cos(alpha)
    xi = np.cos(delta) * np.sin(alpha) / depth
    eta = (np.sin(delta) * cos0 - np.cos(delta) * sin0 * np.cos(alpha)) / depth
    return np.asarray(xi / ARCSEC), np.asarray(eta / ARCSEC)


def from_tangent_plane(xi: ArrayLike, eta: ArrayLike, ra0: float, dec0: float) -> tuple[Floats, Floats]:
    """Deproject standard coordinates: the inverse of `to_tangent_plane`.

    Parameters
    ----------
    xi, eta
        Standard coordinates in arcsec, any shape.
    ra0, dec0
        Tangent point in degrees.

    Returns
    -------
    ra, dec
        Positions in degrees, 0 <= ra < 360.
    """
    east, north = np.asarray(xi, float) * ARCSEC, np.asarray(eta, float) * ARCSEC
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    forward = cos0 - north * sin0
    ra = (ra0 + np.degrees(np.arctan2(east, forward))) % 360.0
    dec = np.degrees(np.arctan2(sin0 + north * cos0, np.hypot(east, forward)))
    return np.asarray(ra), np.asarray(dec)
