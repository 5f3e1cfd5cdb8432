"""What repeated measurements of stars say of a calibration: the photometric and astrometric metrics of the SRD.

Definitions follow the LSST Science Requirements Document (LPM-17); where common practice differs from it, both numbers
are given, under names of their own.

Belongs here: definitions on arrays, with their selections. Doesn't: PSFs (`drp_tasks.psf_metrics`), tables and tasks
(`drp_tasks.calibration_metrics`), thresholds of requirements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from drp_tasks.matching import angle_of_chord, pairs_between, sky_position, to_tangent_plane, unit_vectors
from drp_tasks.metrics import Metric
from drp_tasks.robust import robust_sigma

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]

MIN_VISITS = 3
"""Measurements of a star that a scatter needs."""
MIN_STARS = 5
"""Stars, or detectors of visits, below which a metric is not measurable."""
MIN_PAIRS = 30
"""Pairs below which a metric is not measurable."""
MAX_PAIRS = 20_000
"""Pairs that suffice; of more, a fixed random choice is taken."""
PA2_MMAG = 15.0
"""Deviation that counts as an outlier for PF1."""
BRIGHT_SIGNAL_TO_NOISE = 200.0
"""Stars whose photon noise is far below the requirement on repeatability."""
ASTROMETRIC_SIGNAL_TO_NOISE = 50.0
"""Stars whose centroid noise is below the requirements on astrometry."""
ASTROMETRIC_MAGNITUDES = (17.0, 21.5)
"""Range in which the SRD states its astrometric requirements."""


@dataclass(frozen=True, slots=True)
class StarObservations:
    """Measurements of stars; arrays of shape (n,)."""

    star: Integers
    """Index of the star."""
    visit: Integers
    magnitude: Floats
    """AB magnitudes."""
    signal_to_noise: Floats
    ra: Floats
    dec: Floats
    """Positions in degrees."""

    def where(self, mask: NDArray[np.bool_]) -> StarObservations:
        """Keep the measurements in the mask."""
        return StarObservations(*(getattr(self, field.name)[mask] for field in fields(self)))

    def repeated(self) -> StarObservations:
        """Keep the measurements of stars that have enough of them for a scatter."""
        return self.where(np.bincount(self.star)[self.star] >= MIN_VISITS) if len(self.star) else self

    def astrometric(self) -> StarObservations:
        """Keep the measurements good enough to ask for positions."""
        low, high = ASTROMETRIC_MAGNITUDES
        return self.where(
            (self.signal_to_noise >= ASTROMETRIC_SIGNAL_TO_NOISE) & (self.magnitude > low) & (self.magnitude < high)
        )


@dataclass(frozen=True, slots=True)
class Annulus:
    """Separations at which relative astrometry is asked for."""

    number: int
    """1 for AM1, AF1, AD1, and so on."""
    nearest_arcmin: float
    farthest_arcmin: float
    outlier_mas: float
    """Deviation that counts as an outlier for AF (the SRD's AD)."""
    allowed_percent: float = 10.0
    """Share of pairs that AD leaves out (the SRD's AF)."""


ANNULI = (Annulus(1, 4, 6, 20.0), Annulus(2, 19, 21, 20.0), Annulus(3, 199, 201, 30.0))
"""About 5, 20 and 200 arcmin."""


def photometric_repeatability(observations: StarObservations, band: str) -> list[Metric]:
    """PA1 and PF1 of a band.

    PA1 [mmag] is the median over stars of the standard deviation of their magnitudes. PF1 [%] is the share of
    measurements more than 15 mmag from their star's mean (the SRD's definition), PF1_stars [%] the share of stars
    whose standard deviation is 15 mmag or more (the definition of analysis_tools).

    Parameters
    ----------
    observations
        The band's measurements; those with S/N of 200 or more are used, of stars with three or more of them.
    band
        The band's name.

    Returns
    -------
    metrics
        PA1, PF1 and PF1_stars.
    """
    units = {"PA1": "mmag", "PF1": "%", "PF1_stars": "%"}
    bright = observations.where(observations.signal_to_noise >= BRIGHT_SIGNAL_TO_NOISE).repeated()
    star, index = np.unique(bright.star, return_inverse=True)
    if len(star) < MIN_STARS:
        why = f"{len(star)} stars with {MIN_VISITS} measurements of S/N {BRIGHT_SIGNAL_TO_NOISE:g}, {MIN_STARS} needed"
        return [Metric.unmeasurable(name, unit, why, band=band, n=len(star)) for name, unit in units.items()]
    sigma, deviation = _scatter_by_star(index, 1000 * bright.magnitude)
    n = len(star)
    return [
        Metric("PA1", band, float(np.median(sigma)), "mmag", n, detail="median over stars of std(m), S/N >= 200"),
        Metric(
            "PF1", band, float(100 * np.mean(np.abs(deviation) > PA2_MMAG)), "%", len(deviation),
            detail="measurements > 15 mmag from their star's mean (LPM-17)",
        ),
        Metric(
            "PF1_stars", band, float(100 * np.mean(sigma >= PA2_MMAG)), "%", n,
            detail="stars with std(m) >= 15 mmag (analysis_tools)",
        ),
    ]  # fmt: skip


def position_repeatability(observations: StarObservations, band: str) -> list[Metric]:
    """Median over stars of the standard deviation of α cos δ and of δ [mas] in a band, 17 < m < 21.5, S/N >= 50."""
    names = ("repeatabilityRa", "repeatabilityDec")
    seen = observations.astrometric().repeated()
    star, index = np.unique(seen.star, return_inverse=True)
    if len(star) < MIN_STARS:
        why = f"{len(star)} stars with {MIN_VISITS} measurements of S/N {ASTROMETRIC_SIGNAL_TO_NOISE:g}"
        return [Metric.unmeasurable(name, "mas", why, band=band, n=len(star)) for name in names]
    ra0, dec0 = _middle(seen.ra, seen.dec)
    return [
        Metric(name, band, float(np.median(_scatter_by_star(index, 1000 * coordinate)[0])), "mas", len(star))
        for name, coordinate in zip(names, to_tangent_plane(seen.ra, seen.dec, ra0, dec0), strict=True)
    ]


def relative_astrometry(observations: StarObservations, band: str, annulus: Annulus) -> list[Metric]:
    """AM, AF and AD of a band at one separation.

    AM [mas] is the median over pairs of stars of the standard deviation of their separation over visits. AF [%] is the
    share of measured separations farther than the SRD's AD from their pair's median; AD [mas] the deviation that only
    the SRD's AF of them exceed.

    Parameters
    ----------
    observations
        The band's measurements; those with 17 < m < 21.5 and S/N of 50 or more are used, of pairs seen together in
        three or more visits.
    band
        The band's name.
    annulus
        Which separations.

    Returns
    -------
    metrics
        AM, AF, AD with the annulus's number.
    """
    units = {f"AM{annulus.number}": "mas", f"AF{annulus.number}": "%", f"AD{annulus.number}": "mas"}
    separations = _separations_of_pairs(observations.astrometric().repeated(), annulus)
    n = len(separations)
    span = f"{annulus.nearest_arcmin:g}-{annulus.farthest_arcmin:g} arcmin"
    if n < MIN_PAIRS:
        why = f"{n} pairs of stars at {span} seen together in {MIN_VISITS} visits, {MIN_PAIRS} needed"
        return [Metric.unmeasurable(name, unit, why, band=band, n=n) for name, unit in units.items()]
    sigma = np.nanstd(separations, axis=1, ddof=1)
    deviation = np.abs(separations - np.nanmedian(separations, axis=1)[:, None])
    deviation = deviation[np.isfinite(deviation)]
    values = (
        float(np.median(sigma)),
        float(100 * np.mean(deviation > annulus.outlier_mas)),
        float(np.percentile(deviation, 100 - annulus.allowed_percent)),
    )
    details = (
        f"median over pairs at {span} of std(separation)",
        f"separations > {annulus.outlier_mas:g} mas from their pair's median",
        f"deviation that {annulus.allowed_percent:g} % of separations exceed",
    )
    return [
        Metric(name, band, value, unit, n, detail=detail)
        for (name, unit), value, detail in zip(units.items(), values, details, strict=True)
    ]


def absolute_astrometry(
    observations: Iterable[StarObservations], reference_ra: Floats, reference_dec: Floats
) -> list[Metric]:
    """AA1: how far the frame of the stars lies from the reference catalogue's.

    Parameters
    ----------
    observations
        Measurements in all bands.
    reference_ra, reference_dec
        Positions of the stars in the reference catalogue in degrees, NaN for none, shape (n_stars,).

    Returns
    -------
    metrics
        AA1_ra and AA1_dec [mas], the medians over stars of mean position minus reference in α cos δ and δ, and AA1,
        the larger of their moduli.
    """
    names = ("AA1_ra", "AA1_dec", "AA1")
    star, ra, dec = _mean_positions(observations)
    matched = np.isfinite(reference_ra[star]) & np.isfinite(reference_dec[star])
    star, ra, dec = star[matched], ra[matched], dec[matched]
    if len(star) < MIN_STARS:
        why = f"{len(star)} stars have a reference position, {MIN_STARS} needed"
        return [Metric.unmeasurable(name, "mas", why, n=len(star)) for name in names]
    east, north = _offsets_mas(ra, dec, reference_ra[star], reference_dec[star])
    median_east, median_north = float(np.median(east)), float(np.median(north))
    values = (median_east, median_north, max(abs(median_east), abs(median_north)))
    detail = "median of mean position minus reference catalogue"
    return [Metric(name, "", value, "mas", len(star), detail=detail) for name, value in zip(names, values, strict=True)]


def band_registration(observations: Mapping[str, StarObservations], reference_band: str = "r") -> list[Metric]:
    """AB1: rms over stars of the separation [mas] between their mean positions in a band and in the reference band.

    Parameters
    ----------
    observations
        Measurements by band.
    reference_band
        The band that the others are compared with.

    Returns
    -------
    metrics
        AB1 of each other band.
    """
    others = {band: seen for band, seen in observations.items() if band != reference_band}
    if reference_band not in observations:
        return [Metric.unmeasurable("AB1", "mas", f"no visit in {reference_band}", band=band) for band in others]
    star, ra, dec = _mean_positions([observations[reference_band]])
    metrics = []
    for band, seen in others.items():
        other_star, other_ra, other_dec = _mean_positions([seen])
        common, here, there = np.intersect1d(star, other_star, return_indices=True)
        if len(common) < MIN_STARS:
            why = f"{len(common)} stars in {band} and {reference_band}, {MIN_STARS} needed"
            metrics.append(Metric.unmeasurable("AB1", "mas", why, band=band, n=len(common)))
            continue
        east, north = _offsets_mas(other_ra[there], other_dec[there], ra[here], dec[here])
        rms = float(np.sqrt(np.mean(east**2 + north**2)))
        detail = f"rms separation of mean positions in {band} and {reference_band}"
        metrics.append(Metric("AB1", band, rms, "mas", len(common), detail=detail))
    return metrics


def zero_point_scatter(visit: Integers, zero_point: Floats, band: str) -> Metric:
    """Scatter of a band's zero points over the detectors of a visit.

    Parameters
    ----------
    visit
        Visit of each (visit, detector), shape (n,).
    zero_point
        Their zero points in magnitudes, shape (n,).
    band
        The band's name.

    Returns
    -------
    metric
        zeroPointScatter [mmag]: the robust scatter about the mean of each visit; clouds that dim a whole visit do not
        count.
    """
    finite = np.isfinite(zero_point)
    _, index, count = np.unique(visit[finite], return_inverse=True, return_counts=True)
    usable, zero_point = count[index] >= 2, zero_point[finite]
    index, zero_point, count = index[usable], zero_point[usable], count[index[usable]]
    mean = np.bincount(index, zero_point) / np.maximum(np.bincount(index), 1)
    deviation = (zero_point - mean[index]) * np.sqrt(count / (count - 1))
    if len(deviation) < MIN_STARS:
        why = f"{len(deviation)} detectors in visits with two or more, {MIN_STARS} needed"
        return Metric.unmeasurable("zeroPointScatter", "mmag", why, band=band, n=len(deviation))
    value = 1000 * robust_sigma(deviation, center=0.0)
    detail = "robust scatter over (visit, detector) about the visit's mean"
    return Metric("zeroPointScatter", band, value, "mmag", len(deviation), detail=detail)


def _scatter_by_star(index: Integers, values: Floats) -> tuple[Floats, Floats]:
    """Standard deviation of each star's values, and each value's deviation from its star's mean."""
    count = np.bincount(index)
    deviation = values - (np.bincount(index, values) / count)[index]
    return np.sqrt(np.bincount(index, deviation**2) / (count - 1)), deviation


def _separations_of_pairs(observations: StarObservations, annulus: Annulus) -> Floats:
    """Separations [mas] of pairs of stars (rows) in each visit (columns); NaN where a visit lacks one of them."""
    visits, column = np.unique(observations.visit, return_inverse=True)
    star, ra, dec = _mean_positions_of(observations)
    position = np.full((len(visits), len(star), 3), np.nan)
    position[column, np.searchsorted(star, observations.star)] = unit_vectors(observations.ra, observations.dec)
    pairs = pairs_between(ra, dec, 60 * annulus.nearest_arcmin, 60 * annulus.farthest_arcmin)
    if len(pairs) > MAX_PAIRS:
        pairs = pairs[np.random.default_rng(1).choice(len(pairs), MAX_PAIRS, replace=False)]
    separations = np.full((len(pairs), len(visits)), np.nan)
    for k, points in enumerate(position):
        separations[:, k] = 1000 * angle_of_chord(np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1))
    return separations[np.isfinite(separations).sum(axis=1) >= MIN_VISITS]


def _mean_positions(observations: Iterable[StarObservations]) -> tuple[Integers, Floats, Floats]:
    """Stars, RA and Dec from the measurements of any bands that are good enough for astrometry."""
    good = [seen.astrometric() for seen in observations]
    if not good:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    return _mean_positions_of(
        StarObservations(*(np.concatenate([getattr(seen, f.name) for seen in good]) for f in fields(StarObservations)))
    )


def _mean_positions_of(observations: StarObservations) -> tuple[Integers, Floats, Floats]:
    star, index = np.unique(observations.star, return_inverse=True)
    points = unit_vectors(observations.ra, observations.dec)
    ra, dec = sky_position(np.stack([np.bincount(index, axis, minlength=len(star)) for axis in points.T], axis=-1))
    return star, ra, dec


def _middle(ra: Floats, dec: Floats) -> tuple[float, float]:
    middle_ra, middle_dec = sky_position(unit_vectors(ra, dec).mean(axis=0))
    return float(middle_ra), float(middle_dec)


def _offsets_mas(ra: Floats, dec: Floats, reference_ra: Floats, reference_dec: Floats) -> tuple[Floats, Floats]:
    """Offsets in α cos δ and δ from the reference positions, in mas."""
    middle = _middle(reference_ra, reference_dec)
    xi, eta = to_tangent_plane(ra, dec, *middle)
    reference_xi, reference_eta = to_tangent_plane(reference_ra, reference_dec, *middle)
    return 1000 * (xi - reference_xi), 1000 * (eta - reference_eta)
