"""Exposures as the Butler has them, and as raws' headers imply them.

Belongs here: looking exposures and detectors up, each once, and the records that a header stands for. Doesn't: reading
headers or inserting records (`arrivals.raws`), or dimensions that come as files (`arrivals.dimensions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import astropy.units as u
from astro_metadata_translator import ObservationInfo
from astropy.time import Time, TimeDelta
from lsst.daf.butler import Butler, DataCoordinate, DimensionRecord, Timespan

from resources.errors import SiteFault

SECONDS_A_DAY = 86400.0


class KnownExposures:
    """The Butler's exposures and detectors of one instrument, each looked up once."""

    def __init__(self, butler: Butler, instrument: str) -> None:
        self._butler = butler
        self._instrument = instrument
        self._expanded: dict[int, DataCoordinate] = {}
        self._detectors: dict[int, DimensionRecord] = {}

    @property
    def detectors(self) -> Mapping[int, DimensionRecord]:
        """Records of all detectors, by id.

        Raises
        ------
        resources.errors.SiteFault
            The Butler doesn't know the instrument.
        """
        if not self._detectors:
            # `Butler.query_dimension_records` would build a parser of expressions, which costs as much as 1,000 raws.
            with self._butler.query() as query:
                records = query.where(instrument=self._instrument).dimension_records("detector")
                self._detectors = {record.id: record for record in records}
            if not self._detectors:
                raise SiteFault(
                    f"the Butler doesn't know the instrument {self._instrument}", "butler", "register it first"
                )
        return self._detectors

    def require_instrument(self) -> None:
        """Make sure that the Butler knows the instrument, without which what is right would be refused.

        Raises
        ------
        resources.errors.SiteFault
            It doesn't.
        """
        _ = self.detectors

    def look_up(self, exposures: Iterable[int]) -> dict[int, DataCoordinate]:
        """Expanded data IDs of those exposures that the Butler knows, with one query for all that are new here."""
        wanted = set(exposures)
        unknown = wanted - self._expanded.keys()
        if unknown and self.detectors:
            with self._butler.query() as query:
                chosen = query.expression_factory.exposure.in_iterable(sorted(unknown))
                found = query.where(chosen, instrument=self._instrument).data_ids(["exposure"])
                for data_id in found.with_dimension_records():
                    self._expanded[int(cast(int, data_id["exposure"]))] = data_id
        return {exposure: self._expanded[exposure] for exposure in wanted & self._expanded.keys()}

    def forget(self, exposures: Iterable[int]) -> None:
        """Look these exposures up anew: their records were corrected."""
        for exposure in exposures:
            self._expanded.pop(exposure, None)

    def record(self, exposure: int) -> DimensionRecord | None:
        """The exposure's record, or nothing."""
        data_id = self._expanded.get(exposure) or self.look_up([exposure]).get(exposure)
        return None if data_id is None else data_id.records["exposure"]


def exposure_records(info: ObservationInfo) -> dict[str, dict[str, Any]]:
    """Rows of ``day_obs``, ``group`` and ``exposure`` that an observation implies, in the order of insertion.

    The columns are filled as obs_base's ``makeExposureRecordFromObsInfo`` fills them: angles in degrees, times in TAI,
    and nulls where an exposure that doesn't see the sky has no pointing.
    """
    day = str(info.observing_day)
    midnight = Time(f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00", format="isot", scale="tai")
    start = midnight + (info.observing_day_offset or TimeDelta(0.0, format="sec", scale="tai"))
    pointing = None if info.tracking_radec is None else info.tracking_radec.icrs
    horizontal = info.altaz_begin
    counter = info.observation_counter
    exposure_time = info.exposure_time if info.exposure_time_requested is None else info.exposure_time_requested
    return {
        "day_obs": {
            "instrument": info.instrument,
            "id": info.observing_day,
            "timespan": Timespan(start, start + TimeDelta(SECONDS_A_DAY, format="sec", scale="tai")),
        },
        "group": {"instrument": info.instrument, "name": info.exposure_group},
        "exposure": {
            "instrument": info.instrument,
            "id": info.exposure_id,
            "obs_id": info.observation_id,
            "physical_filter": info.physical_filter,
            "group": info.exposure_group,
            "day_obs": info.observing_day,
            "timespan": Timespan(info.datetime_begin, info.datetime_end),
            "exposure_time": _value(exposure_time, u.s),
            "dark_time": _value(info.dark_time, u.s),
            "observation_type": info.observation_type,
            "observation_reason": info.observation_reason,
            "seq_num": counter,
            "seq_start": counter if info.group_counter_start is None else info.group_counter_start,
            "seq_end": counter if info.group_counter_end is None else info.group_counter_end,
            "target_name": info.object,
            "science_program": info.science_program,
            "tracking_ra": None if pointing is None else float(pointing.ra.deg),
            "tracking_dec": None if pointing is None else float(pointing.dec.deg),
            "sky_angle": _value(info.boresight_rotation_angle, u.deg),
            "azimuth": None if horizontal is None else float(horizontal.az.deg),
            "zenith_angle": None if horizontal is None else float(90.0 - horizontal.alt.deg),
            "has_simulated": info.has_simulated_content,
            "can_see_sky": info.can_see_sky,
        },
    }


def _value(quantity: Any, unit: u.Unit) -> float | None:
    return None if quantity is None else float(quantity.to_value(unit))
