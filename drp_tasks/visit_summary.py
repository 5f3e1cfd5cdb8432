"""The row that sums up one detector of one visit: its calibration, its image quality, its depth.

Belongs here: the columns of the visit summaries and how each follows from a calibrated image.
Doesn't: gathering rows (`drp_tasks.consolidate`), or recalibrating them (`drp_tasks.update_visit_summary`).
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Table

from drp_tasks import camera
from drp_tasks.astrometry import AstrometricSolution
from drp_tasks.cleaning import Background
from drp_tasks.images import nanojansky_per_electron, wcs_to_text
from drp_tasks.moments import half_maximum_width, stamp_moments
from drp_tasks.photometry import ZeroPoint
from drp_tasks.psf import PolynomialPsf
from drp_tasks.visit_facts import VisitFacts

REFERENCE_SEEING_ARCSEC = 0.7
"""Seeing at which the effective time is the exposure time, sky and transparency being nominal."""


@dataclass(frozen=True, eq=False)
class DetectorCalibration:
    """All that a detector's own stars told about its image.

    Parameters
    ----------
    shape
        (ny, nx) of the image.
    psf, astrometry, zero_point, background
        The fits.
    mean_variance
        Mean variance of the usable pixels, electron².
    n_sources
        Number of sources measured.
    """

    shape: tuple[int, int]
    psf: PolynomialPsf
    astrometry: AstrometricSolution
    zero_point: ZeroPoint
    background: Background
    mean_variance: float
    n_sources: int


def summary_row(facts: VisitFacts, found: DetectorCalibration, nominal_sky_electron_s: float) -> Table:
    """Return the table of one row that sums up a detector of a visit.

    Parameters
    ----------
    facts
        What the dimensions know.
    found
        What was measured.
    nominal_sky_electron_s
        Sky, electrons a pixel and second, at which the effective time is the exposure time.
    """
    ny, nx = found.shape
    wcs = found.astrometry.wcs
    centre = found.psf.image_at(*found.psf.centre_xy)
    moments = stamp_moments(centre[None])
    fwhm_arcsec = half_maximum_width(centre) * camera.PIXEL_SCALE_ARCSEC
    corner_x, corner_y = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    corner_ra, corner_dec = wcs.all_pix2world(corner_x, corner_y, 0)
    ra, dec = wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
    effective_s = effective_time(
        facts,
        zero_point=found.zero_point.value,
        fwhm_arcsec=fwhm_arcsec,
        sky_electron=found.background.mean,
        nominal_sky_electron_s=nominal_sky_electron_s,
    )
    values = {
        "visit": np.int64(facts.visit),
        "detector": np.int32(facts.detector),
        "band": facts.band,
        "physical_filter": facts.physical_filter,
        "day_obs": np.int32(facts.day_obs),
        "mjdMid": facts.mjd_mid * u.day,
        "expTime": facts.exposure_s * u.s,
        "zeroPoint": found.zero_point.value * u.mag,
        "zeroPointErr": found.zero_point.error * u.mag,
        "nPhotometryStars": np.int32(found.zero_point.used.sum()),
        "wcs": wcs_to_text(wcs),
        "astrometryResidual": np.float32(found.astrometry.residual_mas) * u.mas,
        "nAstrometryStars": np.int32(len(found.astrometry.star)),
        "psfSigma": np.float32(moments.size[0]) * u.pix,
        "psfFwhm": np.float32(fwhm_arcsec) * u.arcsec,
        "psfE1": np.float32(moments.e1[0]),
        "psfE2": np.float32(moments.e2[0]),
        "nPsfStars": np.int32(found.psf.n_stars),
        "skyBackground": np.float32(found.background.mean) * u.electron,
        "skyNoise": np.float32(found.background.noise) * u.electron,
        "effTime": np.float32(effective_s) * u.s,
        "nSources": np.int32(found.n_sources),
        "ra": float(ra) * u.deg,
        "dec": float(dec) * u.deg,
        **{f"raCorner{k}": float(corner_ra[k]) * u.deg for k in range(4)},
        **{f"decCorner{k}": float(corner_dec[k]) * u.deg for k in range(4)},
        "meanVariance": np.float32(found.mean_variance * nanojansky_per_electron(found.zero_point.value) ** 2)
        * u.nJy**2,
    }
    row = Table()
    for name, value in values.items():
        row[name] = u.Quantity([value]) if isinstance(value, u.Quantity) else np.array([value])
    return row


def effective_time(
    facts: VisitFacts,
    *,
    zero_point: float,
    fwhm_arcsec: float,
    sky_electron: float,
    nominal_sky_electron_s: float,
) -> float:
    """Return the seconds in which a nominal exposure in `REFERENCE_SEEING_ARCSEC` reaches the same depth.

    Depth goes with transparency squared, the inverse square of the seeing, and the inverse sky (Rubin's effTime).

    Parameters
    ----------
    facts
        Band and exposure time.
    zero_point
        AB magnitude of one electron in the exposure.
    fwhm_arcsec
        Effective width of the PSF.
    sky_electron
        Sky of the exposure, electrons a pixel.
    nominal_sky_electron_s
        Nominal sky, electrons a pixel and second.
    """
    nominal_zero_point = camera.NOMINAL_ZERO_POINTS[facts.band] + 2.5 * np.log10(
        facts.exposure_s / camera.NOMINAL_EXPOSURE_S
    )
    transparency = 10 ** (0.4 * (zero_point - nominal_zero_point))
    darkness = nominal_sky_electron_s * facts.exposure_s / max(sky_electron, 1.0)
    return float(facts.exposure_s * transparency**2 * (REFERENCE_SEEING_ARCSEC / fwhm_arcsec) ** 2 * darkness)
