"""What stars say of the PSF models: residual sizes and shapes, and how these are correlated over the field.

Belongs here: definitions on arrays. Doesn't: measuring moments (`drp_tasks.moments`), tables and tasks
(`drp_tasks.calibration_metrics`), thresholds of requirements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import treecorr
from astropy.table import Table
from numpy.typing import NDArray

from drp_tasks.metrics import Metric
from drp_tasks.robust import robust_sigma

type Floats = NDArray[np.float64]

MIN_PSF_STARS = 20
"""Stars below which residuals of the PSF are not measurable."""
MIN_CORRELATED_PAIRS = 100
"""Pairs of stars below which a correlation is not measurable."""

MAX_RESIDUAL = 0.1
"""Residual of size or shape beyond which something else than the PSF is seen."""


@dataclass(frozen=True, slots=True)
class PsfResiduals:
    """Stars against their PSF models; arrays of shape (n,)."""

    visit: NDArray[np.int64]
    ra: Floats
    dec: Floats
    """Positions in degrees."""
    size: Floats
    """(S − S_psf) / S_psf, S the adaptive-moment sigma."""
    e1: Floats
    e2: Floats
    """Distortion of the star minus that of the model, in pixel axes."""

    @classmethod
    def from_table(cls, stars: Table) -> PsfResiduals:
        """Take the residuals of the stars that have moments of their own and of their model.

        Stars of which a residual is larger than 0.1 are left out: a neighbour or a cosmic ray makes such moments, not
        the PSF.

        Parameters
        ----------
        stars
            Columns visit, ra, dec [deg], starSize, psfSize [pix], starE1, starE2, psfE1, psfE2; NaN where not measured.
        """
        columns = ("ra", "dec", "starSize", "starE1", "starE2", "psfSize", "psfE1", "psfE2")
        ra, dec, size, e1, e2, psf_size, psf_e1, psf_e2 = (np.asarray(stars[name], float) for name in columns)
        residual = (ra, dec, size / psf_size - 1, e1 - psf_e1, e2 - psf_e2)
        good = np.isfinite(residual).all(axis=0)
        good &= (np.abs(residual[2:]) <= MAX_RESIDUAL).all(axis=0)
        return cls(np.asarray(stars["visit"], np.int64)[good], *(values[good] for values in residual))


def psf_model_residuals(residuals: PsfResiduals, band: str) -> list[Metric]:
    """Size and shape residuals of a band's PSF stars.

    Parameters
    ----------
    residuals
        The band's stars.
    band
        The band's name.

    Returns
    -------
    metrics
        psfSizeResidual, the median of (S − S_psf)/S_psf; psfE1Residual and psfE2Residual, the robust scatter of δe1 and
        δe2 about zero.
    """
    n = len(residuals.size)
    names = ("psfSizeResidual", "psfE1Residual", "psfE2Residual")
    if n < MIN_PSF_STARS:
        why = f"{n} PSF stars, {MIN_PSF_STARS} needed"
        return [Metric.unmeasurable(name, "", why, band=band, n=n) for name in names]
    values = (
        float(np.median(residuals.size)),
        robust_sigma(residuals.e1, center=0.0),
        robust_sigma(residuals.e2, center=0.0),
    )
    details = ("median of (S - S_psf)/S_psf", "robust scatter of e1 - e1_psf", "robust scatter of e2 - e2_psf")
    return [
        Metric(name, band, value, "", n, detail=detail + " over stars that the model was fitted to")
        for name, value, detail in zip(names, values, details, strict=True)
    ]


def ellipticity_correlations(residuals: PsfResiduals, band: str) -> list[Metric]:
    """TE1 and TE2 of a band: correlation of the residual ellipticities of pairs of stars of a visit.

    The SRD asks for the correlations of each component; this is the modulus of their mean, <δe1 δe1 + δe2 δe2> / 2,
    over pairs of the same visit in all visits (half of ρ1 of Rowe 2010 as treecorr gives it, for distortions).

    Parameters
    ----------
    residuals
        The band's stars.
    band
        The band's name.

    Returns
    -------
    metrics
        TE1 over separations up to 1 arcmin, TE2 from 5 to 20 arcmin. Not measurable where so few pairs give a noise
        larger than what the SRD at least demands of the correlation itself.
    """
    return [
        _correlation("TE1", residuals, band, nearest_arcmin=0.02, farthest_arcmin=1.0, demanded=3e-5),
        _correlation("TE2", residuals, band, nearest_arcmin=5.0, farthest_arcmin=20.0, demanded=3e-7),
    ]


def _correlation(
    name: str, residuals: PsfResiduals, band: str, *, nearest_arcmin: float, farthest_arcmin: float, demanded: float
) -> Metric:
    pairs = treecorr.GGCorrelation(
        min_sep=nearest_arcmin, max_sep=farthest_arcmin, nbins=1, sep_units="arcmin", bin_slop=0
    )
    for visit in np.unique(residuals.visit):
        mine = residuals.visit == visit
        catalogue = treecorr.Catalog(
            ra=residuals.ra[mine],
            dec=residuals.dec[mine],
            g1=residuals.e1[mine],
            g2=residuals.e2[mine],
            ra_units="deg",
            dec_units="deg",
        )
        pairs.process_auto(catalogue, num_threads=1)
    n = int(pairs.npairs[0])
    span = f"{nearest_arcmin:g}-{farthest_arcmin:g} arcmin"
    if n < MIN_CORRELATED_PAIRS:
        why = f"{n} pairs of PSF stars at {span} in a visit, {MIN_CORRELATED_PAIRS} needed"
        return Metric.unmeasurable(name, "", why, band=band, n=n)
    noise = float(np.sqrt((np.var(residuals.e1) ** 2 + np.var(residuals.e2) ** 2) / n) / 2)
    if noise > demanded:
        why = f"the noise of {n} pairs at {span}, {noise:.1g}, hides what is demanded, {demanded:g}"
        return Metric.unmeasurable(name, "", why, band=band, n=n)
    pairs.finalize(0.0, 0.0)
    detail = f"|<de1 de1 + de2 de2>| / 2 over pairs at {span} in the same visit"
    return Metric(name, band, float(abs(pairs.xip[0]) / 2), "", n, detail=detail)
