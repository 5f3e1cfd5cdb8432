"""What a SimCam header means: the keywords of LSSTCam translated for ``astro_metadata_translator``.

Belongs here: the mapping from header cards to the properties of an ``ObservationInfo``.
Doesn't: reading files (`drp_tasks.raw_formatter`), or writing headers (`simulator.header`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import astropy.units as u
from astro_metadata_translator import FitsTranslator, cache_translation
from astro_metadata_translator.translators.helpers import (
    altaz_from_degree_headers,
    is_non_science,
    tracking_from_degree_headers,
)
from astropy.coordinates import AltAz, SkyCoord
from astropy.time import Time, TimeDelta

from drp_tasks.camera import DETECTORS_BY_NAME, INSTRUMENT

DAY_OBS_OFFSET_S = 12 * 3600
"""A day_obs is the TAI date twelve hours before: a whole night has one."""

DETECTOR_EXPOSURE_FACTOR = 1000
"""Exposure ids are multiplied by this to make room for the detector in ids of one detector's exposure."""


class SimCamTranslator(FitsTranslator):
    """Translate SimCam's headers, which use LSSTCam's keywords."""

    name = INSTRUMENT
    supported_instrument = INSTRUMENT
    _const_map: ClassVar[dict[str, Any]] = {"boresight_rotation_coord": "sky"}
    _trivial_map: ClassVar[dict[str, Any]] = {
        "telescope": "TELESCOP",
        "observation_id": "OBSID",
        "detector_group": "RAFTBAY",
        "detector_name": "CCDSLOT",
        "detector_serial": "LSST_NUM",
        "science_program": "PROGRAM",
        "object": ("OBJECT", {"default": "UNKNOWN"}),
        "exposure_time": ("SHUTTIME", {"unit": u.s}),
        "exposure_time_requested": ("EXPTIME", {"unit": u.s}),
        "dark_time": ("DARKTIME", {"unit": u.s}),
        "boresight_rotation_angle": ("ROTPA", {"unit": u.deg, "default": 0.0, "checker": is_non_science}),
        "boresight_airmass": ("AMSTART", {"default": 1.0}),
        "physical_filter": "FILTER",
        "observation_reason": ("REASON", {"default": "science"}),
        "observation_counter": "SEQNUM",
        "exposure_group": "GROUPID",
        "temperature": ("AIRTEMP", {"unit": u.deg_C}),
        "pressure": ("PRESSURE", {"unit": u.Pa}),
        "relative_humidity": "HUMIDITY",
        "focus_z": ("FOCUSZ", {"unit": u.mm}),
    }

    @classmethod
    def observing_date_to_offset(cls, observing_date: Time) -> TimeDelta:
        """Offset between TAI and the start of a day_obs."""
        return TimeDelta(DAY_OBS_OFFSET_S, format="sec", scale="tai")

    @cache_translation
    def to_instrument(self) -> str:
        """Name of the instrument."""
        return str(self._card("INSTRUME"))

    @cache_translation
    def to_observing_day(self) -> int:
        """day_obs as the integer YYYYMMDD."""
        return int(self._card("DAYOBS"))

    @cache_translation
    def to_exposure_id(self) -> int:
        """Id of the exposure: day_obs followed by five digits of the sequence number."""
        return self.to_observing_day() * 100_000 + int(self._card("SEQNUM"))

    def to_visit_id(self) -> int:
        """Id of the visit: visits and exposures are one to one."""
        return self.to_exposure_id()

    @cache_translation
    def to_group_counter_start(self) -> int:
        """Sequence number of the first exposure of the group."""
        return int(self._card("SEQNUM")) - int(self._card("CURINDEX")) + 1

    @cache_translation
    def to_group_counter_end(self) -> int:
        """Sequence number of the last exposure of the group."""
        return self.to_group_counter_start() + int(self._card("MAXINDEX")) - 1

    def to_detector_unique_name(self) -> str:
        """Raft and slot, such as ``"R22_S01"``."""
        return f"{self.to_detector_group()}_{self.to_detector_name()}"

    def to_detector_num(self) -> int:
        """Id of the detector."""
        return DETECTORS_BY_NAME[self.to_detector_unique_name()].id

    def to_detector_exposure_id(self) -> int:
        """Id of one detector's part of an exposure."""
        return self.to_exposure_id() * DETECTOR_EXPOSURE_FACTOR + self.to_detector_num()

    @cache_translation
    def to_observation_type(self) -> str:
        """Type of observation, in the words of the Butler's exposure records."""
        image_type = str(self._card("IMGTYPE")).lower()
        return "science" if image_type in {"object", "skyexp"} else image_type

    @cache_translation
    def to_datetime_begin(self) -> Time:
        """Time at which the shutter opened."""
        return Time(self._card("DATE-BEG"), format="isot", scale="tai")

    @cache_translation
    def to_datetime_end(self) -> Time:
        """Time at which the shutter closed."""
        return Time(self._card("DATE-END"), format="isot", scale="tai")

    @cache_translation
    def to_tracking_radec(self) -> SkyCoord:
        """Where the boresight pointed."""
        return tracking_from_degree_headers(self, ("RADESYS",), (("RA", "DEC"),))

    @cache_translation
    def to_altaz_begin(self) -> AltAz:
        """Where the telescope pointed at the start, above the horizon."""
        return altaz_from_degree_headers(self, (("ELSTART", "AZSTART"),), self.to_datetime_begin())

    @cache_translation
    def to_altaz_end(self) -> AltAz:
        """Where the telescope pointed at the end, above the horizon."""
        return altaz_from_degree_headers(self, (("ELEND", "AZEND"),), self.to_datetime_end())

    @cache_translation
    def to_has_simulated_content(self) -> bool:
        """Whether the pixels were simulated."""
        return bool(self._card("SIMULATE"))

    def to_can_see_sky(self) -> bool:
        """Whether the shutter saw the sky."""
        return self.to_observation_type() == "science"

    def _card(self, keyword: str) -> Any:
        self._used_these_cards(keyword)
        return self._header[keyword]
