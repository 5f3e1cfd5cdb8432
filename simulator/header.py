"""Raws as files: LSSTCam-like headers, and a compressed image of 16-bit numbers.

Belongs here: writing a raw. Doesn't: reading one (`drp_tasks.raw_formatter`, whose docstring describes the format).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.time import Time

from drp_tasks.camera import DETECTORS, INSTRUMENT, OVERSCAN_PX, PHYSICAL_FILTERS
from simulator.optics import Optics
from simulator.survey import Survey, Visit

OBSERVATORY_XYZ_M = (1818938.94, -5208470.95, -3195172.08)
OBSERVATORY_LONGITUDE_DEG = -70.7494
OBSERVATORY_LATITUDE_DEG = -30.2446

CONTROLLER = "S"
CAMERA_CODE = "SC"
TARGET = "ECDFS-mini"
PROGRAM = "SIM-SURVEY"


def observation_id(visit: Visit) -> str:
    """Name of an exposure in file names and headers, such as ``"SC_S_20261101_000001"``."""
    return f"{CAMERA_CODE}_{CONTROLLER}_{visit.day_obs}_{visit.seq_num:06d}"


def raw_file_name(visit: Visit, detector_id: int) -> str:
    """Name of a raw's file."""
    return f"{observation_id(visit)}_{DETECTORS[detector_id].full_name}.fits"


def raw_header(survey: Survey, visit: Visit, detector_id: int) -> fits.Header:
    """Primary header of a raw."""
    detector = DETECTORS[detector_id]
    optics = Optics(survey, visit, detector_id)
    begin, end = (Time(mjd, format="mjd", scale="tai").isot for mjd in (visit.mjd_begin, visit.mjd_end))
    ra, dec = optics.boresight_deg
    altitude_begin, azimuth_begin = horizontal_deg(ra, dec, visit.mjd_begin)
    altitude_end, azimuth_end = horizontal_deg(ra, dec, visit.mjd_end)
    size = survey.detector_px
    header = optics.header_wcs().to_header()
    header.update(
        {
            "INSTRUME": INSTRUMENT,
            "TELESCOP": "Simonyi Survey Telescope",
            "OBSID": observation_id(visit),
            "DAYOBS": str(visit.day_obs),
            "SEQNUM": visit.seq_num,
            "CONTRLLR": CONTROLLER,
            "CAMCODE": CAMERA_CODE,
            "IMGTYPE": "OBJECT",
            "REASON": "science",
            "PROGRAM": PROGRAM,
            "OBJECT": TARGET,
            "GROUPID": begin,
            "CURINDEX": 1,
            "MAXINDEX": 1,
            "RAFTBAY": detector.raft,
            "CCDSLOT": detector.slot,
            "LSST_NUM": f"SIM-{detector.id:03d}",
            "FILTER": PHYSICAL_FILTERS[visit.band],
            "FILTBAND": visit.band,
            "EXPTIME": visit.exposure_time_s,
            "SHUTTIME": visit.exposure_time_s,
            "DARKTIME": visit.dark_time_s,
            "TIMESYS": "TAI",
            "MJD-BEG": visit.mjd_begin,
            "MJD-END": visit.mjd_end,
            "DATE-OBS": begin,
            "DATE-BEG": begin,
            "DATE-END": end,
            "TRACKSYS": "RADEC",
            "RADESYS": "ICRS",
            "RA": ra,
            "DEC": dec,
            "ROTPA": float(np.degrees(visit.rotation_rad)) % 360.0,
            "ROTCOORD": "sky",
            "ELSTART": altitude_begin,
            "AZSTART": azimuth_begin,
            "ELEND": altitude_end,
            "AZEND": azimuth_end,
            "AMSTART": airmass(altitude_begin),
            "AMEND": airmass(altitude_end),
            "AIRTEMP": 11.0,
            "PRESSURE": 74255.0,
            "HUMIDITY": 30.0,
            "FOCUSZ": 0.0,
            "OBSGEO-X": OBSERVATORY_XYZ_M[0],
            "OBSGEO-Y": OBSERVATORY_XYZ_M[1],
            "OBSGEO-Z": OBSERVATORY_XYZ_M[2],
            "SIMULATE": True,
            "BUNIT": "adu",
            "DATASEC": f"[1:{size},1:{size}]",
            "BIASSEC": f"[{size + 1}:{size + OVERSCAN_PX},1:{size}]",
        }
    )
    return header


def write_raw(path: Path, adu: np.ndarray, header: fits.Header) -> None:
    """Write a raw at once or not at all: a file that is there is whole.

    Parameters
    ----------
    path
        Where to; its folder exists.
    adu
        Pixels and overscan, unsigned 16-bit.
    header
        Primary header.
    """
    unfinished = path.with_suffix(".part")
    image = fits.CompImageHDU(adu, compression_type="RICE_1", name="IMAGE")
    fits.HDUList([fits.PrimaryHDU(header=header), image]).writeto(unfinished, overwrite=True)
    unfinished.rename(path)


def horizontal_deg(ra_deg: float, dec_deg: float, mjd: float) -> tuple[float, float]:
    """Altitude and azimuth at the observatory, good to a fraction of a degree."""
    sidereal = 280.46061837 + 360.98564736629 * (mjd - 51544.5) + OBSERVATORY_LONGITUDE_DEG
    hour_angle, dec, latitude = np.radians([sidereal - ra_deg, dec_deg, OBSERVATORY_LATITUDE_DEG])
    sin_altitude = np.sin(dec) * np.sin(latitude) + np.cos(dec) * np.cos(latitude) * np.cos(hour_angle)
    azimuth = np.arctan2(
        -np.cos(dec) * np.sin(hour_angle),
        np.sin(dec) * np.cos(latitude) - np.cos(dec) * np.sin(latitude) * np.cos(hour_angle),
    )
    return float(np.degrees(np.arcsin(sin_altitude))), float(np.degrees(azimuth)) % 360.0


def airmass(altitude_deg: float) -> float:
    """Airmass of a plane-parallel atmosphere."""
    return float(1.0 / np.sin(np.radians(altitude_deg)))
