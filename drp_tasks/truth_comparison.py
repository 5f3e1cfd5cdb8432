"""What catalogues say against what the sky was: the definitions of the metrics that need the truth.

Belongs here: metrics of arrays that pair truth with measurement; they are functions of values.
Doesn't: reading either (`drp_tasks.truth_metrics`), metrics that need no truth (`drp_tasks.star_metrics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from drp_tasks.images import AB_NANOJANSKY
from drp_tasks.metrics import Metric
from drp_tasks.robust import robust_sigma

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]
type Booleans = NDArray[np.bool_]

MIN_STARS = 10
"""Fewest stars that a median or a share is taken over."""

BRIGHT_SIGNAL_TO_NOISE = 100.0
"""Stars brighter than this, in S/N by truth, say whether magnitudes are unbiased."""

NEAR_TEN = (8.0, 12.5)
"""S/N that counts as 10."""

PULL_MAGNITUDES = ((18.0, 20.0), (20.0, 22.0), (22.0, 23.0), (23.0, 24.0))
MIN_PATCHES = 6
"""Fewest patches whose scatter PA3 is taken over."""

TRANSIENT_SIGNAL_TO_NOISE = ((4.0, 6.0), (6.0, 8.0), (8.0, 12.0), (12.0, np.inf))


@dataclass(frozen=True, eq=False)
class BandSample:
    """The true point sources and galaxies that a band's coadds cover, and what was measured of them; arrays (n,)."""

    magnitude: Floats
    """True AB magnitudes."""
    is_star: Booleans
    isolated: Booleans
    """Whether no true source of at least half its brightness is near."""
    patch: Integers
    """Patch that the position belongs to."""
    expected_error: Floats
    """Error in nJy that the PSF flux of a faint point source has there."""
    found: Booleans
    """Whether an object is there."""
    flux: Floats
    flux_error: Floats
    """Measured PSF flux and its error in nJy; NaN if not found, or flagged."""

    @property
    def true_flux(self) -> Floats:
        """True fluxes in nJy."""
        return 10 ** (-0.4 * (self.magnitude - AB_NANOJANSKY))

    @property
    def signal_to_noise(self) -> Floats:
        """S/N of the PSF flux by truth, for a point source."""
        return self.true_flux / self.expected_error

    def where(self, mask: Booleans) -> BandSample:
        """Keep the sources in the mask."""
        return BandSample(*(getattr(self, field.name)[mask] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class TransientSample:
    """Transients in the difference images that should show them; arrays (n,), a row a transient and detector-visit."""

    flux: Floats
    """Flux in nJy with which it shone in the visit."""
    expected_error: Floats
    """Error in nJy of a faint point source's PSF flux there."""
    measured: Floats
    measured_error: Floats
    """Flux and error in nJy of its DiaSource; NaN where there is none."""

    @classmethod
    def join(cls, samples: Sequence[TransientSample]) -> TransientSample:
        """Put samples of several difference images one after the other; none at all gives an empty one."""
        columns = ([getattr(sample, field.name) for sample in samples] for field in fields(cls))
        return cls(*(np.concatenate([np.zeros(0), *parts]) for parts in columns))

    @property
    def signal_to_noise(self) -> Floats:
        """S/N of the PSF flux by truth."""
        return self.flux / self.expected_error

    @property
    def found(self) -> Booleans:
        """Whether there is a positive DiaSource."""
        return self.measured > 0


def magnitude_bias(sample: BandSample, band: str) -> list[Metric]:
    """PA6 and PA3 of a band, over stars of S/N >= 100.

    PA6 [mmag] is the median of measured minus true PSF magnitude; PA3 [mmag] the rms over patches of each patch's
    median about their mean.
    """
    stars = sample.where(sample.is_star & (sample.flux > 0) & (sample.signal_to_noise >= BRIGHT_SIGNAL_TO_NOISE))
    n = len(stars.magnitude)
    if n < MIN_STARS:
        why = f"{n} stars of S/N >= {BRIGHT_SIGNAL_TO_NOISE:g}, {MIN_STARS} needed"
        return [Metric.unmeasurable(name, "mmag", why, band=band, n=n) for name in ("PA6", "PA3")]
    offset = 1e3 * (AB_NANOJANSKY - 2.5 * np.log10(stars.flux) - stars.magnitude)
    bias = Metric(
        "PA6", band, float(np.median(offset)), "mmag", n, detail="median of measured - true magnitude, S/N >= 100"
    )
    patches, count = np.unique(stars.patch, return_counts=True)
    patches = patches[count >= MIN_STARS]
    if len(patches) < MIN_PATCHES:
        why = f"{len(patches)} patches with {MIN_STARS} stars, {MIN_PATCHES} needed"
        return [bias, Metric.unmeasurable("PA3", "mmag", why, band=band, n=len(patches))]
    medians = np.array([np.median(offset[stars.patch == patch]) for patch in patches])
    return [bias, Metric("PA3", band, float(medians.std()), "mmag", len(patches), detail="rms of the patches' medians")]


def completeness(sample: BandSample, band: str) -> list[Metric]:
    """Share [%] of the stars of S/N 10 that are among the objects, of all and of the isolated ones.

    What isolated stars lack is depth; what the others lack beyond it, deblending.
    """
    low, high = NEAR_TEN
    near = sample.is_star & (sample.signal_to_noise >= low) & (sample.signal_to_noise < high)
    detail = f"stars of true S/N {low:g}-{high:g} with an object" + (" (S/N: the best band's)" if not band else "")
    alone = near & sample.isolated
    return [
        _share("completenessSn10", band, sample.found[near], detail),
        _share("completenessSn10_isolated", band, sample.found[alone], f"isolated {detail}"),
    ]


def limiting_magnitudes(sample: BandSample, band: str) -> list[Metric]:
    """Magnitudes m50 and m90 at which 50 and 90 % of the stars have an object.

    The share is modelled as A / (1 + exp((m - m0) / w)), fitted by maximum likelihood to all stars; a limit that the
    fit puts beyond the faintest stars, or a share above A, is not measurable.
    """
    stars = sample.where(sample.is_star)
    n, lost = len(stars.magnitude), int((~stars.found).sum())
    names = {"m50": 0.5, "m90": 0.9}
    if lost < MIN_STARS or n - lost < MIN_STARS:
        why = f"of {n} stars {lost} have no object; {MIN_STARS} of either kind are needed"
        return [Metric.unmeasurable(name, "mag", why, band=band, n=n) for name in names]

    def unlikeliness(parameters: Floats) -> float:
        share = _share_found(stars.magnitude, parameters)
        return -float(np.log(np.where(stars.found, share, 1 - share)).sum())

    start = np.array([3.0, float(np.median(stars.magnitude[~stars.found])), np.log(0.3)])
    best = minimize(unlikeliness, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3}).x
    highest = float(expit(best[0]))
    result = []
    for name, level in names.items():
        limit = best[1] + _width(best) * np.log(highest / level - 1) if highest > level else np.nan
        if np.isfinite(limit) and stars.magnitude.min() < limit < stars.magnitude.max():
            result.append(Metric(name, band, float(limit), "mag", n, detail="logistic fit to stars with an object"))
        else:
            why = f"completeness does not cross {level:.0%} among the stars there are (at most {highest:.0%})"
            result.append(Metric.unmeasurable(name, "mag", why, band=band, n=n))
    return result


def depth(sample: BandSample, band: str) -> Metric:
    """Magnitude of a point source of S/N 5, the median over the covered sources' places."""
    n = len(sample.expected_error)
    if not n:
        return Metric.unmeasurable("depth5", "mag", "no source is covered", band=band)
    value = AB_NANOJANSKY - 2.5 * np.log10(5 * float(np.median(sample.expected_error)))
    return Metric("depth5", band, float(value), "mag", n, detail="5 sigma of a PSF flux, median over the area")


def flux_pulls(sample: BandSample, band: str) -> list[Metric]:
    """Robust scatter and median of (flux - true flux) / error of the stars, by true magnitude."""
    pull = (sample.flux - sample.true_flux) / sample.flux_error
    result = []
    for low, high in PULL_MAGNITUDES:
        here = sample.is_star & np.isfinite(pull) & (sample.magnitude >= low) & (sample.magnitude < high)
        names = [f"fluxPull{kind}_{low:g}_{high:g}" for kind in ("Sigma", "Median")]
        if here.sum() < MIN_STARS:
            why = f"{here.sum()} stars of {low:g}-{high:g} mag, {MIN_STARS} needed"
            result += [Metric.unmeasurable(name, "", why, band=band, n=int(here.sum())) for name in names]
            continue
        values = robust_sigma(pull[here]), float(np.median(pull[here]))
        detail = f"(f - f_true) / sigma of stars of {low:g}-{high:g} mag"
        result += [
            Metric(name, band, value, "", int(here.sum()), detail=detail)
            for name, value in zip(names, values, strict=True)
        ]
    return result


def purity(signal_to_noise: Floats, is_true: Booleans) -> Metric:
    """Share [%] of the objects of S/N >= 5 in some band that have something true beside them."""
    return _share("purity", "", is_true[signal_to_noise >= 5], "objects of S/N >= 5 near a star, galaxy or transient")


def zero_point_offsets(offset_mag: Floats, band: str) -> list[Metric]:
    """Median and robust scatter [mmag] over detector-visits of measured minus true zero point.

    A measured zero point is that of the flux within the PSF's image; what falls outside, a per cent that varies with
    the seeing, is in it.
    """
    names, n = ("zeroPointBias", "zeroPointTruthScatter"), len(offset_mag)
    if n < MIN_STARS:
        why = f"{n} detector-visits, {MIN_STARS} needed"
        return [Metric.unmeasurable(name, "mmag", why, band=band, n=n) for name in names]
    values = 1e3 * float(np.median(offset_mag)), 1e3 * robust_sigma(offset_mag)
    return [
        Metric(name, band, value, "mmag", n, detail="zero point - truth, light outside of the PSF image included")
        for name, value in zip(names, values, strict=True)
    ]


def transient_completeness(sample: TransientSample) -> list[Metric]:
    """Share [%] of the transients that have a positive DiaSource, by S/N of their flux.

    What a template loses because the transient shone in its visits too is lost here as well.
    """
    ratio = sample.signal_to_noise
    detail = "transients by true S/N"
    result = [_share("diaCompleteness", "", sample.found[ratio > 6], "transients of true S/N > 6 with a DiaSource")]
    for low, high in TRANSIENT_SIGNAL_TO_NOISE:
        name = f"diaCompleteness_{low:g}_{high:g}" if np.isfinite(high) else f"diaCompleteness_{low:g}"
        result.append(_share(name, "", sample.found[(ratio >= low) & (ratio < high)], detail))
    return result


def transient_flux_pull(sample: TransientSample) -> Metric:
    """Robust scatter of (DiaSource's flux - true flux) / error over the transients that were found."""
    found = sample.found & (sample.signal_to_noise > 6)
    if found.sum() < MIN_STARS:
        return Metric.unmeasurable("diaFluxPullSigma", "", f"{found.sum()} transients found", n=int(found.sum()))
    pull = ((sample.measured - sample.flux) / sample.measured_error)[found]
    return Metric("diaFluxPullSigma", "", robust_sigma(pull), "", int(found.sum()), detail="found, S/N > 6")


def bogus_per_detector(n_bogus: int, n_differences: int) -> Metric:
    """DiaSources with no transient beside them, for each difference image."""
    if not n_differences:
        return Metric.unmeasurable("diaBogusPerDetector", "", "there is no difference image")
    return Metric(
        "diaBogusPerDetector", "", n_bogus / n_differences, "", n_differences, detail=f"{n_bogus} DiaSources in all"
    )


def best_band(samples: Sequence[BandSample]) -> BandSample:
    """Join bands of the same sources: each source as in the band where its S/N is highest."""
    ratio = np.array([sample.signal_to_noise for sample in samples])
    best = np.nanargmax(ratio, axis=0)
    columns = [np.array([getattr(sample, field.name) for sample in samples]) for field in fields(BandSample)]
    return BandSample(*(column[best, np.arange(len(best))] for column in columns))


def _share(name: str, band: str, success: Booleans, detail: str) -> Metric:
    n = len(success)
    if n < MIN_STARS:
        return Metric.unmeasurable(name, "%", f"{n} cases, {MIN_STARS} needed", band=band, n=n)
    return Metric(name, band, 100 * float(success.mean()), "%", n, detail=detail)


def _share_found(magnitude: Floats, parameters: Floats) -> Floats:
    """The model of `limiting_magnitudes`: logit of the highest share, its half-way magnitude, log of its width."""
    share = expit(parameters[0]) * expit(-(magnitude - parameters[1]) / _width(parameters))
    return np.clip(share, 1e-6, 1 - 1e-6)


def _width(parameters: Floats) -> float:
    """The model's width in magnitudes, kept between 0.02 and 3."""
    return float(np.exp(np.clip(parameters[2], -4, 1)))
