"""Tables that travel beside the images: the reference catalogue, and the truth.

Only the metrics that compare with truth may read the truth tables.

Belongs here: columns, units and the errors of the reference catalogue.
Doesn't: how objects are drawn (`simulator.sky`).
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.table import Table
from lsst.sphgeom import HtmPixelization, LonLat, UnitVector3d

from drp_tasks.camera import PIXEL_SCALE_ARCSEC
from simulator.detector import camera_sensitivity
from simulator.optics import Optics
from simulator.sky import make_sky, make_transients
from simulator.survey import Stream, Survey

REFERENCE_LIMIT_MAG = 21.0
REFERENCE_ASTROMETRIC_ERROR_MAS = 2.0
REFERENCE_PHOTOMETRIC_ERROR_MAG = 0.01
REFERENCE_EPOCH_MJD = 61345.0
HTM_LEVEL = 7


def reference_catalogue(survey: Survey) -> dict[int, Table]:
    """Stars brighter than 21 in r, as a survey before this one measured them, by the HTM trixel that holds them.

    Returns
    -------
    tables : `dict` [`int`, `astropy.table.Table`]
        Columns id, ra, dec (deg), raErr, decErr (mas), mag_<band>, magErr_<band> (AB mag); the epoch is in ``meta``.
    """
    sky = make_sky(survey)
    rng = survey.generator(Stream.REFERENCE_CATALOGUE)
    limit_band = "r" if "r" in survey.bands else survey.bands[0]
    chosen = np.flatnonzero(sky.is_star & (sky.mag[limit_band] < REFERENCE_LIMIT_MAG))
    count = len(chosen)
    mas = np.full(count, REFERENCE_ASTROMETRIC_ERROR_MAS, dtype=np.float32)
    offset_ra, offset_dec = rng.normal(0.0, REFERENCE_ASTROMETRIC_ERROR_MAS / 3.6e6, (2, count))
    dec = sky.dec_deg[chosen]
    table = Table(
        {
            "id": chosen.astype(np.int64),
            "ra": (sky.ra_deg[chosen] + offset_ra / np.cos(np.radians(dec))) * u.deg,
            "dec": (dec + offset_dec) * u.deg,
            "raErr": mas * u.mas,
            "decErr": mas * u.mas,
        },
        meta={"epoch_mjd_tai": REFERENCE_EPOCH_MJD},
    )
    for band in survey.bands:
        table[f"mag_{band}"] = (sky.mag[band][chosen] + rng.normal(0.0, REFERENCE_PHOTOMETRIC_ERROR_MAG, count)) * u.mag
        table[f"magErr_{band}"] = np.full(count, REFERENCE_PHOTOMETRIC_ERROR_MAG, dtype=np.float32) * u.mag
    trixel = _trixels(table["ra"], table["dec"])
    return {int(index): table[trixel == index] for index in np.unique(trixel)}


def truth_objects(survey: Survey) -> Table:
    """Stars and galaxies as they are: id, ra, dec (deg), isStar, hlr (arcsec), mag_<band>."""
    sky = make_sky(survey)
    table = Table(
        {
            "id": np.arange(len(sky), dtype=np.int64),
            "ra": sky.ra_deg * u.deg,
            "dec": sky.dec_deg * u.deg,
            "isStar": sky.is_star,
            "hlr": sky.half_light_radius_arcsec * u.arcsec,
        }
    )
    for band in survey.bands:
        table[f"mag_{band}"] = sky.mag[band] * u.mag
    return table


def truth_transients(survey: Survey) -> Table:
    """One row for each transient and each visit in which it shines: id, ra, dec (deg), visit, band, mag."""
    transients = make_transients(survey)
    rows = [
        (number, visit)
        for number in range(len(transients))
        for visit in survey.visits
        if visit.epoch == transients.epoch[number]
    ]
    index = np.array([number for number, _ in rows], dtype=np.int64)
    return Table(
        {
            "id": index,
            "ra": transients.ra_deg[index] * u.deg,
            "dec": transients.dec_deg[index] * u.deg,
            "visit": np.array([visit.id for _, visit in rows], dtype=np.int64),
            "band": [visit.band for _, visit in rows],
            "mag": transients.mag[index] * u.mag,
        }
    )


def truth_visits(survey: Survey) -> Table:
    """One row for each visit and detector: visit, detector, band, zeroPoint (AB mag of 1 electron), seeing (arcsec).

    The zero point is that of a flat-fielded image whose flats are normalised to the camera's median, for all the light
    of a star, however far from its centre it falls. The seeing is the PSF's full width at half maximum at the centre of
    the detector.
    """
    sensitivity_mag = 2.5 * np.log10(camera_sensitivity(survey))
    centre = np.array(survey.detector_px / 2 - 0.5)
    pairs = [(visit, detector.id) for visit in survey.visits for detector in survey.detectors]
    optics = [Optics(survey, visit, detector) for visit, detector in pairs]
    return Table(
        {
            "visit": np.array([visit.id for visit, _ in pairs], dtype=np.int64),
            "detector": np.array([detector for _, detector in pairs], dtype=np.int32),
            "band": [visit.band for visit, _ in pairs],
            "zeroPoint": np.array([one.zero_point + sensitivity_mag for one in optics]) * u.mag,
            "seeing": np.array([float(one.fwhm_px(centre, centre)) * PIXEL_SCALE_ARCSEC for one in optics]) * u.arcsec,
        }
    )


def _trixels(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    pixelization = HtmPixelization(HTM_LEVEL)
    return np.array(
        [
            pixelization.index(UnitVector3d(LonLat.fromDegrees(float(ra), float(dec))))
            for ra, dec in zip(ra_deg, dec_deg, strict=True)
        ]
    )
