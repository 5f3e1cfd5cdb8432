"""Raws into the Butler: from a file's header or sidecar to a dataset.

Belongs here: the interface that an instrument offers, and the ingest of single files. Doesn't: records of exposures
(`arrivals.exposures`), zips (`arrivals.zips`), visits (`arrivals.visits`), or which rows are ingested
(`arrivals.ingest`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

from astro_metadata_translator import ObservationInfo
from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    DimensionRecord,
    FileDataset,
)
from lsst.pipe.base import Instrument
from lsst.resources import ResourcePath
from lsst.sphgeom import ConvexPolygon

from arrivals.announcement import Sidecar
from arrivals.datasets import ingest_files
from arrivals.exposures import KnownExposures, exposure_records
from arrivals.files import Arrived
from arrivals.outcomes import ingest_in_bulk, is_retriable
from resources.errors import OperatorError, Rejected, Retriable, SiteFault


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

    arrived: Arrived
    sidecar: Sidecar | None = None

    @property
    def file(self) -> ResourcePath:
        """Where it is."""
        return self.arrived.uri


@dataclass(frozen=True, slots=True)
class IngestedRaw:
    """A raw that is in the Butler.

    Parameters
    ----------
    exposure, detector, day_obs
        Its data ID.
    observation
        Its header, where that was read on the way.
    remark
        What an operator should know about it although it is in.
    """

    exposure: int
    detector: int
    day_obs: int
    observation: Observation | None = None
    remark: str = ""


class RawIngest(Protocol):
    """How raws get into the Butler: by `HeaderRawIngest`, or by obs_base's task at a site that has it."""

    def ingest(self, raws: Sequence[RawFile]) -> list[IngestedRaw | Exception]:
        """Ingest a batch; the answer has one entry a file, in their order, and a second call changes nothing."""


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


def read_header(reader: HeaderReader, file: Arrived) -> Observation:
    """Read a raw's header, of a file that isn't local from its beginning if that is enough."""
    if not file.uri.isLocal:
        try:
            with file.head() as head:
                return reader.read_observation(head)
        except Exception:  # the header may be longer than that, and the whole file tells
            pass
    return reader.read_observation(file.uri)


def foreign(raws: Sequence[RawFile], instrument: str) -> dict[int, Rejected]:
    """Those raws, by their index, whose sidecars name another instrument than the site's."""
    named = {i: dict(raw.sidecar.data_id).get("instrument", instrument) for i, raw in enumerate(raws) if raw.sidecar}
    return {
        index: Rejected(f"is of {name}, but this site takes {instrument}", "rubin_sidecar")
        for index, name in named.items()
        if name != instrument
    }


def contradiction(raw: RawFile, exposure: int, detector: int) -> Rejected | None:
    """How the header, which says these, contradicts what was announced."""
    for dimension, value in (("exposure", exposure), ("detector", detector)):
        told = None if raw.sidecar is None else raw.sidecar.number(dimension)
        if told not in {None, value}:
            return Rejected(f"the header says {dimension} {value}, the message {told}", str(raw.file))
    return None


def unreadable(file: ResourcePath, error: Exception) -> Rejected | Retriable:
    """What becomes of a file whose header can't be read for this error."""
    why = " ".join(str(error).split()) or type(error).__name__
    if is_retriable(error):
        return Retriable(f"can't be read now: {why}", str(file))
    return Rejected(f"the header can't be read: {why}", str(file))


class HeaderRawIngest:
    """Raw ingest that needs no more than the header and what the instrument offers (`HeaderReader`).

    A header is read where something has to be learned from it: which raw this is, if no sidecar tells or the Butler
    doesn't know the exposure yet, and where on the sky it lies, if its visit lacks that. Otherwise the sidecar is
    believed: the checksum says that this is the announced file, and the dataset's id that it is this raw.

    Parameters
    ----------
    butler
        Where to.
    instrument
        Whose raws; it has to be a `HeaderReader` and to have a ``raw_definition``.
    known
        The exposures that the Butler knows.
    needs_footprints
        Of pairs of exposure and detector, those whose place on the sky is asked for.
    """

    def __init__(
        self,
        butler: Butler,
        instrument: Instrument,
        known: KnownExposures,
        needs_footprints: Callable[[Collection[tuple[int, int]]], Collection[tuple[int, int]]],
    ) -> None:
        self._butler = butler
        self._instrument = instrument
        self._name: str = instrument.getName()
        self._reader = header_reader(instrument)
        self._known = known
        self._needs_footprints = needs_footprints
        self._run: str = instrument.makeDefaultRawIngestRunName()
        self._dataset_type = _raw_dataset_type(butler, instrument)
        self._keys = self._dataset_type.dimensions.data_coordinate_keys

    def ingest(self, raws: Sequence[RawFile]) -> list[IngestedRaw | Exception]:
        """Ingest a batch of files of any mix of exposures; see `RawIngest`."""
        known: dict[int, IngestedRaw | Rejected] = {**self._told(raws), **foreign(raws, self._name)}
        results: list[IngestedRaw | Exception] = [
            known[index] if index in known else self._read(raw) for index, raw in enumerate(raws)
        ]
        self._insert_exposures(results)
        ready = {i: result for i, result in enumerate(results) if isinstance(result, IngestedRaw)}
        exposures = self._known.look_up(raw.exposure for raw in ready.values())
        records = {exposure: _records(data_id) for exposure, data_id in exposures.items()}
        datasets: dict[int, FileDataset] = {}
        for index, raw in ready.items():
            try:
                datasets[index] = self._dataset(raws[index], raw, exposures[raw.exposure], records[raw.exposure])
            except Rejected as error:
                results[index] = error
        indexes = list(datasets)
        for position, cause in ingest_files(self._butler, list(datasets.values())).items():
            results[indexes[position]] = cause
        return results

    def _told(self, raws: Sequence[RawFile]) -> dict[int, IngestedRaw]:
        """Those raws of which the sidecar and the Butler's records tell everything that is needed."""
        named: dict[int, tuple[int, int]] = {}
        for index, raw in enumerate(raws):
            if raw.sidecar is not None:
                exposure, detector = raw.sidecar.number("exposure"), raw.sidecar.number("detector")
                if exposure is not None and detector is not None:
                    named[index] = exposure, detector
        known = self._known.look_up(exposure for exposure, _ in named.values())
        pairs = {pair for pair in named.values() if pair[0] in known}
        wanted = self._needs_footprints(pairs)
        return {
            index: IngestedRaw(*pair, int(cast(int, known[pair[0]]["day_obs"])))
            for index, pair in named.items()
            if pair in pairs and pair not in wanted
        }

    def _read(self, raw: RawFile) -> IngestedRaw | Exception:
        try:
            observation = read_header(self._reader, raw.arrived)
            read = self._identify(observation, str(raw.file))
        except FileNotFoundError:
            return Retriable("file is not there", str(raw.file))
        except OperatorError as error:
            return error
        except Exception as error:  # the file is not ours: whatever it does to its reader is its own trouble
            return unreadable(raw.file, error)
        return contradiction(raw, read.exposure, read.detector) or read

    def _identify(self, observation: Observation, where: str) -> IngestedRaw:
        info = observation.info
        if info.detector_num is None:  # the translator leaves out what it can't make sense of
            raise Rejected(f"the header names no detector of {self._name}", where)
        if info.exposure_id is None or info.observing_day is None:
            raise Rejected("the header doesn't tell the exposure and its day_obs", where)
        return IngestedRaw(int(info.exposure_id), int(info.detector_num), int(info.observing_day), observation)

    def _insert_exposures(self, results: list[IngestedRaw | Exception]) -> None:
        """Insert the records that are missing, and see whether headers contradict those that were there."""
        raws = [result for result in results if isinstance(result, IngestedRaw)]
        known = self._known.look_up(raw.exposure for raw in raws)
        firsts = {raw.exposure: raw for raw in reversed(raws) if raw.exposure not in known}
        errors = ingest_in_bulk(list(firsts.values()), self._insert_records)
        failed = {list(firsts)[position]: error for position, error in errors.items()}
        self._known.look_up(firsts)
        for index, result in enumerate(results):
            if isinstance(result, IngestedRaw):
                results[index] = failed.get(result.exposure) or self._compared(result)

    def _insert_records(self, raws: Sequence[IngestedRaw]) -> None:
        records: dict[str, list[dict[str, Any]]] = {}
        for raw in raws:
            assert raw.observation is not None  # _read gives it
            for element, record in exposure_records(raw.observation.info).items():
                records.setdefault(element, []).append(record)
        with self._butler.transaction():
            for element, rows in records.items():
                self._butler.registry.insertDimensionData(element, *rows, skip_existing=True)

    def _compared(self, raw: IngestedRaw) -> IngestedRaw | Rejected:
        """The raw if its header is of the exposure that the Butler's record is of, with a remark if they differ."""
        record = None if raw.observation is None else self._known.record(raw.exposure)
        if record is None or raw.observation is None:
            return raw
        info = raw.observation.info
        identity = {
            "obs_id": (record.obs_id, info.observation_id),
            "day_obs": (record.day_obs, info.observing_day),
        }
        for name, (known, read) in identity.items():
            if known != read:
                return Rejected(
                    f"the header says {name} {read!r}, the Butler's record {known!r}",
                    f"exposure {raw.exposure}",
                    "one of the two is wrong: have it announced again, or the dimensions corrected",
                )
        if record.physical_filter != info.physical_filter:  # as after a correction: records count, not headers
            remark = f"the header says physical_filter {info.physical_filter}, the Butler {record.physical_filter}"
            return replace(raw, remark=remark)
        return raw

    def _dataset(
        self,
        raw: RawFile,
        read: IngestedRaw,
        exposure: DataCoordinate,
        records: Mapping[str, DimensionRecord | None],
    ) -> FileDataset:
        detector = self._known.detectors.get(read.detector)
        if detector is None:
            raise Rejected(f"{self._name} has no detector {read.detector}", str(raw.file))
        values = tuple(read.detector if key == "detector" else exposure[key] for key in self._keys)
        data_id = DataCoordinate.from_full_values(self._dataset_type.dimensions, values).expanded(
            {**records, "detector": detector}
        )
        mode = DatasetIdGenEnum.DATAID_TYPE_RUN
        ref = DatasetRef(self._dataset_type, data_id, self._run, id_generation_mode=mode, conform=False)
        if raw.sidecar is not None and raw.sidecar.dataset_id != str(ref.id):
            raise Rejected(
                f"was announced as dataset {raw.sidecar.dataset_id} of run {raw.sidecar.run}, "
                f"but as a raw of {self._name} in {self._run} it is {ref.id}",
                str(raw.file),
            )
        return FileDataset(path=raw.file, refs=[ref], formatter=self._instrument.getRawFormatter(data_id))


def _records(data_id: DataCoordinate) -> dict[str, DimensionRecord | None]:
    return {element: data_id.records[element] for element in data_id.dimensions.elements}


def _raw_dataset_type(butler: Butler, instrument: Instrument) -> DatasetType:
    definition = instrument.raw_definition
    if definition is None:
        raise SiteFault(f"{instrument.getName()} has no raw_definition", "arrivals.instrument")
    name, dimensions, storage_class = definition
    return DatasetType(name, dimensions, storage_class, universe=butler.dimensions)
