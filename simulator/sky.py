"""What is on the sky: stars on the stellar locus, galaxies, and transients that live for one epoch.

Positions are field coordinates: arcsec from the tract's centre along the tract's pixel axes (x grows to the west, y to
the north), so that sky coordinates are exactly those of the tract's WCS.

Belongs here: drawing the catalogue.
Doesn't: how it looks through the telescope (`simulator.observe`), or the delivered tables (`simulator.tables`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from drp_tasks.camera import BANDS
from simulator.survey import Stream, Survey

LOCUS_SLOPE = 0.483
LOCUS_OFFSET_MAG = -0.042
LOCUS_WIDTH_MAG = 0.012
"""Stellar locus: r-i = slope (g-r) + offset, with this scatter at right angles to it (Ivezic et al. 2004)."""

SKY_MARGIN_ARCSEC = 10.0
"""Objects reach beyond the tract by this much, so that dithered and turned detectors never see an empty edge."""

STAR_MAG_RANGE = (15.3, 24.5)
STAR_COUNT_SLOPE = 0.16
GALAXY_MAG_RANGE = (18.0, 25.5)
GALAXY_COUNT_SLOPE = 0.34
TRANSIENT_MAG_RANGE = (20.5, 23.8)
TRANSIENT_FIELD_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class Sky:
    """The objects that do not change, column by column; each array has one entry for each object.

    Parameters
    ----------
    x_arcsec, y_arcsec
        Field coordinates.
    ra_deg, dec_deg
        ICRS coordinates.
    is_star
        Whether the object is a star; the others are galaxies.
    mag
        AB magnitudes in each band.
    half_light_radius_arcsec
        Zero for stars.
    sersic_index, shear_1, shear_2
        Profile and reduced shear of galaxies, along the tract's axes.
    """

    x_arcsec: np.ndarray
    y_arcsec: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray
    is_star: np.ndarray
    mag: Mapping[str, np.ndarray]
    half_light_radius_arcsec: np.ndarray
    sersic_index: np.ndarray
    shear_1: np.ndarray
    shear_2: np.ndarray

    def __len__(self) -> int:
        return len(self.x_arcsec)


@dataclass(frozen=True, eq=False)
class Transients:
    """Point sources that shine in one epoch, with the same magnitude in all bands.

    Parameters
    ----------
    x_arcsec, y_arcsec, ra_deg, dec_deg
        Positions, as for `Sky`.
    mag
        AB magnitude while it shines.
    epoch
        The epoch in which it shines.
    """

    x_arcsec: np.ndarray
    y_arcsec: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray
    mag: np.ndarray
    epoch: np.ndarray

    def __len__(self) -> int:
        return len(self.x_arcsec)


@lru_cache(maxsize=2)
def make_sky(survey: Survey) -> Sky:
    """Draw the stars and galaxies of a survey."""
    rng = survey.generator(Stream.SKY)
    side = survey.tract_px * survey.skymap.scale_arcsec + 2 * SKY_MARGIN_ARCSEC
    area_arcmin2 = (side / 60.0) ** 2
    stars, galaxies = (int(n * area_arcmin2) for n in (survey.stars_per_arcmin2, survey.galaxies_per_arcmin2))
    count = stars + galaxies
    is_star = np.arange(count) < stars
    x, y = rng.uniform(-side / 2, side / 2, (2, count))
    ra, dec = field_to_sky(survey, x, y)
    mag_r = np.concatenate(
        [
            _power_law_magnitudes(rng, stars, STAR_MAG_RANGE, STAR_COUNT_SLOPE),
            _power_law_magnitudes(rng, galaxies, GALAXY_MAG_RANGE, GALAXY_COUNT_SLOPE),
        ]
    )
    mag = _magnitudes(rng, is_star, mag_r)
    radius = 10 ** (rng.normal(-0.38, 0.15, count) - 0.06 * (mag_r - 23.0))
    shear_1, shear_2 = np.clip(rng.normal(0.0, 0.2, (2, count)), -0.5, 0.5)
    return Sky(
        x_arcsec=x,
        y_arcsec=y,
        ra_deg=ra,
        dec_deg=dec,
        is_star=is_star,
        mag={band: mag[band] for band in survey.bands},
        half_light_radius_arcsec=np.where(is_star, 0.0, np.maximum(radius, 0.05)),
        sersic_index=rng.choice([1.0, 2.5], count, p=[0.75, 0.25]),
        shear_1=shear_1,
        shear_2=shear_2,
    )


@lru_cache(maxsize=2)
def make_transients(survey: Survey) -> Transients:
    """Draw the transients of a survey."""
    rng = survey.generator(Stream.TRANSIENTS)
    reach = TRANSIENT_FIELD_SHARE * survey.tract_px * survey.skymap.scale_arcsec / 2
    x, y = rng.uniform(-reach, reach, (2, survey.transients))
    ra, dec = field_to_sky(survey, x, y)
    return Transients(
        x_arcsec=x,
        y_arcsec=y,
        ra_deg=ra,
        dec_deg=dec,
        mag=rng.uniform(*TRANSIENT_MAG_RANGE, survey.transients),
        epoch=rng.integers(0, survey.epochs, survey.transients),
    )


def field_to_sky(survey: Survey, x_arcsec: np.ndarray, y_arcsec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ICRS right ascension and declination, in degrees, of field coordinates in arcsec."""
    skymap = survey.skymap
    centre = survey.tract_px / 2 - 0.5
    ra, dec = skymap.wcs().pixel_to_world_values(
        np.asarray(x_arcsec) / skymap.scale_arcsec + centre, np.asarray(y_arcsec) / skymap.scale_arcsec + centre
    )
    return ra, dec


def _power_law_magnitudes(
    rng: np.random.Generator, count: int, mag_range: tuple[float, float], slope: float
) -> np.ndarray:
    """Magnitudes whose counts grow as 10**(slope m) between two limits."""
    low, high = (10 ** (slope * mag) for mag in mag_range)
    return np.log10(low + rng.uniform(0.0, 1.0, count) * (high - low)) / slope


def _magnitudes(rng: np.random.Generator, is_star: np.ndarray, mag_r: np.ndarray) -> dict[str, np.ndarray]:
    """Magnitudes in all bands: stars on the locus, galaxies around it."""
    count = len(mag_r)
    g_r = np.where(is_star, np.clip(rng.normal(0.65, 0.3, count), 0.2, 1.4), rng.normal(0.7, 0.3, count))
    off_locus = rng.normal(0.0, LOCUS_WIDTH_MAG, count) * np.sqrt(1 + LOCUS_SLOPE**2)
    r_i = np.where(is_star, LOCUS_SLOPE * g_r + LOCUS_OFFSET_MAG + off_locus, 0.45 * g_r + rng.normal(0, 0.08, count))
    scatter = np.where(is_star, 0.02, 0.1)
    u_g = 0.5 + 1.4 * g_r + scatter * rng.normal(0.0, 1.0, count)
    i_z = 0.55 * r_i + 0.01 + scatter * rng.normal(0.0, 1.0, count)
    z_y = 0.35 * r_i + scatter * rng.normal(0.0, 1.0, count)
    mag_g, mag_i = mag_r + g_r, mag_r - r_i
    mag_z = mag_i - i_z
    return dict(zip(BANDS, (mag_g + u_g, mag_g, mag_r, mag_i, mag_z, mag_z - z_y), strict=True))
