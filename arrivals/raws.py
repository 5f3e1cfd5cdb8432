"""Raws into the Butler: from a file's header to dimension records and a dataset.

Belongs here: the interface that an instrument offers, exposure records made from headers, and the ingest of single
files.
Doesn't: zips (`arrivals.zips`), visits (`arrivals.visits`), or which rows are ingested (`arrivals.ingest`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import astropy.units as u
from astro_metadata_translator import ObservationInfo
from astropy.time import Time, TimeDelta
from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    DimensionRecord,
    FileDataset,
    Timespan,
)
from lsst.pipe.base import Instrument
from lsst.resources import ResourcePath
from lsst.sphgeom import ConvexPolygon

from arrivals.announcement import Sidecar
from arrivals.outcomes import ingest_in_bulk
from resources.errors import Rejected, Retriable, SiteFault

SECONDS_A_DAY = 86400.0


class Observation(Protocol):
    """What the header of one raw tells."""

    @property
    def info(self) -> ObservationInfo:
        """Who, when, where and how."""

    def footprint(self) -> ConvexPolygon:
        """The region of the sky that the detector saw, a little more than less."""


@runtime_checkable
class HeaderReader(Protocol):
    """What an instrument offers beyond `lsst.pipe.base.Instrument`, so that its raws are ingested by their headers."""

    def read_observation(self, raw: ResourcePath) -> Observation:
        """Read a raw's header; ValueError or OSError if that is no raw of this instrument."""


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw to be ingested, and what was announced about it."""

    file: ResourcePath
    sidecar: Sidecar | None = None


@dataclass(frozen=True, slots=True)
class IngestedRaw:
    """A raw that is in the Butler.

    Parameters
    ----------
    exposure, detector, day_obs
        Its data ID.
    observation
        Its header, where that was read on the way.
    """

    exposure: int
    detector: int
    day_obs: int
    observation: Observation | None = None


class RawIngest(Protocol):
    """How raws get into the Butler: by `HeaderRawIngest`, or by obs_base's task at a site that has it."""

    def ingest(self, raws: Sequence[RawFile]) -> list[IngestedRaw | Exception]:
        """Ingest a batch; the answer has one entry a file, in their order, and a second call changes nothing."""


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
            records = self._butler.query_dimension_records(
                "detector", instrument=self._instrument, limit=None, explain=False
            )
            if not records:
                raise SiteFault(
                    f"the Butler doesn't know the instrument {self._instrument}", "butler", "register it first"
                )
            self._detectors = {record.id: record for record in records}
        return self._detectors

    def look_up(self, exposures: Iterable[int]) -> dict[int, DataCoordinate]:
        """Expanded data IDs of those exposures that the Butler knows, with one query for all that are new here."""
        wanted = set(exposures)
        unknown = wanted - self._expanded.keys()
        if unknown and self.detectors:
            with self._butler.query() as query:
                found = (
                    query.where("exposure IN (:ids)", bind={"ids": sorted(unknown)}, instrument=self._instrument)
                    .data_ids(["exposure"])
                    .with_dimension_records()
                )
                self._expanded |= {int(cast(int, data_id["exposure"])): data_id for data_id in found}
        return {exposure: self._expanded[exposure] for exposure in wanted & self._expanded.keys()}

    def record(self, exposure: int) -> DimensionRecord | None:
        """The exposure's record, or nothing."""
        data_id = self.look_up([exposure]).get(exposure)
        return None if data_id is None else data_id.records["exposure"]


def header_reader(instrument: Instrument) -> HeaderReader:
    """The instrument as a reader of headers.

    Raises
    ------
    resources.errors.SiteFault
        It doesn't read headers by itself.
    """
    candidate: object = instrument
    if not isinstance(candidate, HeaderReader):
        raise SiteFault(
            f"{instrument.getName()} doesn't offer read_observation, and obs_base is not installed",
            "arrivals.instrument",
            "use the site's stack, or an instrument that reads its headers",
        )
    return candidate


class HeaderRawIngest:
    """Raw ingest that needs only the header and what the instrument offers (`HeaderReader`).

    Parameters
    ----------
    butler
        Where to.
    instrument
        Whose raws; it has to be a `HeaderReader` and to have a ``raw_definition``.
    known
        The exposures that the Butler knows.
    """

    def __init__(self, butler: Butler, instrument: Instrument, known: KnownExposures) -> None:
        self._butler = butler
        self._instrument = instrument
        self._reader = header_reader(instrument)
        self._known = known
        self._run: str = instrument.makeDefaultRawIngestRunName()

    def ingest(self, raws: Sequence[RawFile]) -> list[IngestedRaw | Exception]:
        """Ingest a batch of files of any mix of exposures; see `RawIngest`."""
        results: list[IngestedRaw | Exception] = [self._read(raw) for raw in raws]
        self._insert_exposures(results)
        ready = {i: result for i, result in enumerate(results) if isinstance(result, IngestedRaw)}
        datasets: dict[int, FileDataset] = {}
        for index, raw in ready.items():
            try:
                datasets[index] = self._dataset(raws[index], raw)
            except Rejected as error:
                results[index] = error
        indexes = list(datasets)
        errors = ingest_in_bulk([datasets[index] for index in indexes], self._ingest_datasets)
        for position, cause in errors.items():
            results[indexes[position]] = cause
        return results

    def _read(self, raw: RawFile) -> IngestedRaw | Exception:
        try:
            observation = self._reader.read_observation(raw.file)
            read = _identify(observation, str(raw.file))
        except FileNotFoundError:
            return Retriable("file is not there", str(raw.file))
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            return Rejected(f"the header can't be read: {' '.join(str(error).split())}", str(raw.file))
        except Rejected as rejected:
            return rejected
        announced = raw.sidecar
        if announced is None:
            return read
        for dimension, value in (("exposure", read.exposure), ("detector", read.detector)):
            if announced.number(dimension) not in {None, value}:
                return Rejected(
                    f"the header says {dimension} {value}, the message {announced.number(dimension)}", str(raw.file)
                )
        return read

    def _insert_exposures(self, results: list[IngestedRaw | Exception]) -> None:
        """Insert the records that are missing, and turn raws whose header contradicts the Butler into errors."""
        raws = [result for result in results if isinstance(result, IngestedRaw)]
        known = self._known.look_up(raw.exposure for raw in raws)
        firsts = {raw.exposure: raw for raw in reversed(raws) if raw.exposure not in known}
        errors = ingest_in_bulk(list(firsts.values()), self._insert_records)
        failed = {list(firsts)[position]: error for position, error in errors.items()}
        for index, result in enumerate(results):
            if not isinstance(result, IngestedRaw):
                continue
            if result.exposure in failed:
                results[index] = failed[result.exposure]
            elif (contradiction := self._contradiction(result)) is not None:
                results[index] = contradiction

    def _insert_records(self, raws: Sequence[IngestedRaw]) -> None:
        records: dict[str, list[dict[str, Any]]] = {}
        for raw in raws:
            assert raw.observation is not None  # _read gives it
            for element, record in exposure_records(raw.observation.info).items():
                records.setdefault(element, []).append(record)
        with self._butler.transaction():
            for element, rows in records.items():
                self._butler.registry.insertDimensionData(element, *rows, skip_existing=True)

    def _contradiction(self, raw: IngestedRaw) -> Rejected | None:
        record = self._known.record(raw.exposure)
        if record is None or raw.observation is None:
            return None
        info = raw.observation.info
        pairs = {
            "obs_id": (record.obs_id, info.observation_id),
            "physical_filter": (record.physical_filter, info.physical_filter),
            "day_obs": (record.day_obs, info.observing_day),
        }
        for name, (known, read) in pairs.items():
            if known != read:
                return Rejected(
                    f"the header says {name} {read!r}, the Butler's record {known!r}",
                    f"exposure {raw.exposure}",
                    "one of the two is wrong: a correction of the dimensions may be due",
                )
        return None

    def _dataset(self, raw: RawFile, read: IngestedRaw) -> FileDataset:
        detector = self._known.detectors.get(read.detector)
        if detector is None:
            raise Rejected(f"{self._instrument.getName()} has no detector {read.detector}", str(raw.file))
        exposure = self._known.look_up([read.exposure])[read.exposure]
        dataset_type = self._dataset_type()
        records = {element: exposure.records[element] for element in exposure.dimensions.elements}
        data_id = DataCoordinate.standardize(
            exposure, detector=read.detector, dimensions=dataset_type.dimensions
        ).expanded({**records, "detector": detector})
        ref = DatasetRef(dataset_type, data_id, self._run, id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN)
        if raw.sidecar is not None and raw.sidecar.dataset_id != str(ref.id):
            raise Rejected(
                f"was announced as dataset {raw.sidecar.dataset_id} of run {raw.sidecar.run}, "
                f"but as a raw of {self._instrument.getName()} in {self._run} it is {ref.id}",
                str(raw.file),
            )
        return FileDataset(path=raw.file, refs=[ref], formatter=self._instrument.getRawFormatter(data_id))

    def _dataset_type(self) -> DatasetType:
        definition = self._instrument.raw_definition
        if definition is None:
            raise SiteFault(f"{self._instrument.getName()} has no raw_definition", "arrivals.instrument")
        name, dimensions, storage_class = definition
        return DatasetType(name, dimensions, storage_class, universe=self._butler.dimensions)

    def _ingest_datasets(self, datasets: Sequence[FileDataset]) -> None:
        self._butler.ingest(*datasets, transfer="split", skip_existing=True)


def _identify(observation: Observation, where: str) -> IngestedRaw:
    info = observation.info
    numbers = {"exposure": info.exposure_id, "detector": info.detector_num, "day_obs": info.observing_day}
    unknown = [name for name, number in numbers.items() if number is None]
    if unknown:  # the translator leaves out what it can't make sense of
        raise Rejected(f"the header doesn't tell the {' and the '.join(unknown)} of a known instrument", where)
    return IngestedRaw(**{name: int(number) for name, number in numbers.items()}, observation=observation)


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
