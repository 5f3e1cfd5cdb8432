"""Raws on disk: how the Butler reads one, and what its header alone tells.

A raw is a FITS file with everything that can be known without pixels in its primary header (identity, times,
pointing, the telescope's own idea of the WCS, the data section) and one image extension of unsigned 16-bit adu: the
light-sensitive columns, then the overscan. In memory it is an `lsst.images.Image` (storage class ``ImageV2``):
float32 adu, overscan included, the header's cards in ``metadata``, and the header's WCS, good to a few pixels, as
its ``sky_projection``. Gain and read noise are constants of the camera.

Belongs here: reading raws and their headers, and the dimension records that a header implies.
Doesn't: writing raws (`simulator.header`), ingesting them (`arrivals`), or removing the instrument's signature
(`drp_tasks.isr`).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import astropy.units as u
import lsst.images as li
import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy.io import fits
from astropy.time import Time, TimeDelta
from astropy.wcs import WCS
from lsst.daf.butler import FormatterV2, Timespan
from lsst.resources import ResourcePath, ResourcePathExpression
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from drp_tasks import translator  # importing it makes the translator known to ObservationInfo
from drp_tasks.camera import INSTRUMENT

FOOTPRINT_PADDING_PX = 20.0
"""Footprints are grown by this much on each side, more than the telescope's pointing error."""

FITS_BLOCK_BYTES = 2880

SECONDS_A_DAY = 86400.0

_WCS_CARD = re.compile(r"WCSAXES|CRPIX\d|PC\d_\d|CDELT\d|CUNIT\d|CTYPE\d|CRVAL\d|LONPOLE|LATPOLE|RADESYS")

_STRUCTURE_CARDS = frozenset({"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "COMMENT", "HISTORY", ""})


@dataclass(frozen=True)
class RawObservation:
    """What the primary header of one raw tells.

    Parameters
    ----------
    info
        Who, when, where and how, in the terms of ``astro_metadata_translator``.
    wcs
        The telescope's own WCS in detector pixels (0-based), without the distortion and with the pointing error.
    width, height
        Light-sensitive pixels along x and y.
    """

    info: ObservationInfo
    wcs: WCS
    width: int
    height: int

    def footprint(self, padding_px: float = FOOTPRINT_PADDING_PX) -> ConvexPolygon:
        """Region of the sky that the detector saw, grown by ``padding_px`` pixels on each side."""
        low = -0.5 - padding_px
        right, top = self.width - 0.5 + padding_px, self.height - 0.5 + padding_px
        ra, dec = self.wcs.pixel_to_world_values([low, right, right, low], [low, low, top, top])
        return sky_polygon(ra, dec)


def sky_polygon(ra_deg: np.ndarray, dec_deg: np.ndarray) -> ConvexPolygon:
    """Convex hull of points on the sky, given in degrees."""
    return ConvexPolygon.convexHull(
        [
            UnitVector3d(LonLat.fromDegrees(float(ra) % 360.0, float(dec)))
            for ra, dec in zip(ra_deg, dec_deg, strict=True)
        ]
    )


def observation_from_header(header: fits.Header) -> RawObservation:
    """Interpret the primary header of a raw.

    Raises
    ------
    ValueError
        If the header is not one of SimCam's, or lacks the data section.
    """
    if header.get("INSTRUME") != INSTRUMENT:
        raise ValueError(f"Not a raw of {INSTRUMENT}: INSTRUME is {header.get('INSTRUME')!r}.")
    x0, x1, y0, y1 = _section(header.get("DATASEC", ""))
    info = ObservationInfo(header, translator_class=translator.SimCamTranslator)
    return RawObservation(info, _telescope_wcs(header), x1 - x0 + 1, y1 - y0 + 1)


def observation_from_stream(stream: BinaryIO) -> RawObservation:
    """Read the primary header from a stream at the start of a raw, and nothing beyond it."""
    return observation_from_header(_primary_header(stream))


def read_observation(raw: ResourcePathExpression) -> RawObservation:
    """Read what one raw's primary header tells: one small read, no pixels.

    Parameters
    ----------
    raw
        Path or URI of a raw FITS file.

    Raises
    ------
    ValueError
        If it is no raw of SimCam.
    FileNotFoundError
        If there is no such file.
    """
    with ResourcePath(raw, forceDirectory=False).open("rb") as stream:
        return observation_from_stream(stream)


def read_zip_observations(zip_file: ResourcePathExpression) -> dict[str, RawObservation]:
    """Read the primary headers of all raws in a Butler zip, by the name of the member."""
    with ResourcePath(zip_file, forceDirectory=False).open("rb") as stream, zipfile.ZipFile(stream) as members:
        observations = {}
        for name in members.namelist():
            if name.endswith(".fits"):
                with members.open(name) as member:
                    observations[name] = observation_from_stream(member)  # type: ignore[arg-type]
        return observations


def dimension_records(info: ObservationInfo) -> dict[str, dict[str, object]]:
    """Rows of ``day_obs``, ``group`` and ``exposure`` that an observation implies, in the order of insertion.

    The columns are filled as ``lsst.obs.base`` fills them.
    """
    noon = Time(_iso_date(info.observing_day), format="isot", scale="tai") + info.observing_day_offset
    next_noon = noon + TimeDelta(SECONDS_A_DAY, format="sec", scale="tai")
    pointing = info.tracking_radec.icrs
    return {
        "day_obs": {
            "instrument": info.instrument,
            "id": info.observing_day,
            "timespan": Timespan(noon, next_noon),
        },
        "group": {"instrument": info.instrument, "name": info.exposure_group},
        "exposure": {
            "instrument": info.instrument,
            "id": info.exposure_id,
            "day_obs": info.observing_day,
            "group": info.exposure_group,
            "physical_filter": info.physical_filter,
            "obs_id": info.observation_id,
            "exposure_time": float(info.exposure_time_requested.to_value(u.s)),
            "dark_time": float(info.dark_time.to_value(u.s)),
            "observation_type": info.observation_type,
            "observation_reason": info.observation_reason,
            "seq_num": info.observation_counter,
            "seq_start": info.group_counter_start,
            "seq_end": info.group_counter_end,
            "target_name": info.object,
            "science_program": info.science_program,
            "tracking_ra": float(pointing.ra.deg),
            "tracking_dec": float(pointing.dec.deg),
            "sky_angle": float(info.boresight_rotation_angle.to_value(u.deg)),
            "azimuth": float(info.altaz_begin.az.deg),
            "zenith_angle": float(90.0 - info.altaz_begin.alt.deg),
            "has_simulated": info.has_simulated_content,
            "can_see_sky": info.can_see_sky,
            "timespan": Timespan(info.datetime_begin, info.datetime_end),
        },
    }


class SimCamRawFormatter(FormatterV2):
    """Read a raw as an `lsst.images.Image`; raws are ingested, never put."""

    can_read_from_local_file: ClassVar[bool] = True
    default_extension: ClassVar[str] = ".fits"
    supported_extensions: ClassVar[frozenset[str]] = frozenset({".fits"})

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> object:
        """Read the image, part of it (parameter ``bbox``), or one of ImageV2's components."""
        with fits.open(path, memmap=False) as hdus:
            header = hdus[0].header
            if component == "sky_projection":
                return _sky_projection(header)
            if component == "unit":
                return u.adu
            if component == "bbox":
                return li.Box.from_shape(hdus[1].shape)
            adu = hdus[1].data.astype(np.float32)
        image = li.Image(adu, unit=u.adu, sky_projection=_sky_projection(header), metadata=_metadata(header))
        bbox = (self.file_descriptor.parameters or {}).get("bbox")
        return image if bbox is None else image[bbox]


def _primary_header(stream: BinaryIO) -> fits.Header:
    blocks = []
    while block := stream.read(FITS_BLOCK_BYTES):
        blocks.append(block)
        if b"END" + b" " * 77 in (block[start : start + 80] for start in range(0, len(block), 80)):
            return fits.Header.fromstring(b"".join(blocks))
    raise ValueError("Not a FITS file: its header has no end.")


def _section(text: str) -> tuple[int, int, int, int]:
    found = re.fullmatch(r"\[(\d+):(\d+),(\d+):(\d+)\]", text)
    if found is None:
        raise ValueError(f"Header lacks a data section like [1:512,1:512]: DATASEC is {text!r}.")
    x0, x1, y0, y1 = (int(number) for number in found.groups())
    return x0, x1, y0, y1


def _telescope_wcs(header: fits.Header) -> WCS:
    # The other cards (the observatory's place, no image in the primary unit) only make astropy warn.
    return WCS(fits.Header([card for card in header.cards if _WCS_CARD.fullmatch(card.keyword)]))


def _sky_projection(header: fits.Header) -> li.SkyProjection:
    return li.SkyProjection.from_fits_wcs(_telescope_wcs(header), li.GeneralFrame(unit=u.pix))


def _metadata(header: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in header.items() if key not in _STRUCTURE_CARDS}


def _iso_date(day_obs: int) -> str:
    year, month, day = day_obs // 10_000, day_obs // 100 % 100, day_obs % 100
    return f"{year:04d}-{month:02d}-{day:02d}"
