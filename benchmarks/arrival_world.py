"""A camera of 205 detectors whose files are tiny: what the benchmark of arrivals has arrive.

Files are valid in all that an ingest looks at, and no more: headers without pixels, zips that a Butler takes, and
dimensions. One exposure is made by the Butler's own means, and all others are its text with other numbers.

Belongs here: the instrument, its files and their messages. Doesn't: what is measured (`benchmarks.arrivals`).
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astro_metadata_translator import ObservationInfo
from astropy.io import fits
from astropy.wcs import WCS
from lsst.daf.butler import (
    Butler,
    Config,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    DimensionUniverse,
    FileDataset,
)
from lsst.daf.butler.transfers import YamlRepoExportBackend
from lsst.pipe.base import Instrument
from lsst.resources import ResourcePath

from arrivals.exposures import exposure_records
from drp_tasks.raw_formatter import SimCamRawFormatter, sky_polygon
from drp_tasks.translator import SimCamTranslator

if TYPE_CHECKING:
    from lsst.daf.butler import Registry
    from lsst.sphgeom import ConvexPolygon

NAME = "BenchCam"
DETECTORS = 205
DAY_OBS = 20261101
RUN = f"{NAME}/raw/all"
PREFIX = "root://xrootd.example:1094//rucio"
SCOPE = "raw"
_WCS_KEYWORDS = tuple(f"{name}{axis}" for name in ("CTYPE", "CRVAL", "CRPIX", "CDELT") for axis in (1, 2))
_COLUMNS = 15
_DETECTOR_DEG = 0.22
_DIMENSIONS = ("instrument", "physical_filter", "detector", "day_obs", "group", "exposure")


class BenchTranslator(SimCamTranslator):
    """SimCam's keywords, with the detector as a number."""

    name = NAME
    supported_instrument = NAME

    def to_detector_num(self) -> int:
        """Id of the detector."""
        return int(self._card("DETNUM"))


@dataclass(frozen=True)
class BenchObservation:
    """A header, of which no more is worked out than is asked for."""

    header: fits.Header

    @cached_property
    def info(self) -> ObservationInfo:
        """Who, when, where and how."""
        return ObservationInfo(self.header, translator_class=BenchTranslator)

    def footprint(self) -> ConvexPolygon:
        """Where on the sky."""
        wcs = WCS(fits.Header({key: self.header[key] for key in _WCS_KEYWORDS}))
        ra, dec = wcs.pixel_to_world_values([0, 4000, 4000, 0], [0, 0, 4000, 4000])
        return sky_polygon(ra, dec)


class BenchCam(Instrument):
    """An instrument of LSSTCam's size."""

    raw_definition = ("raw", ("instrument", "exposure", "detector"), "ImageV2")

    @classmethod
    def getName(cls) -> str:
        """Name of the instrument in data IDs."""
        return NAME

    def getRawFormatter(self, dataId: object) -> type[SimCamRawFormatter]:
        """Formatter of raws, which nobody reads."""
        return SimCamRawFormatter

    def read_observation(self, raw: ResourcePath) -> BenchObservation:
        """Read the header of a raw."""
        return BenchObservation(fits.Header.fromstring(Path(raw.ospath).read_bytes()))

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the instrument, its detectors and a filter."""
        most = {"detector_max": DETECTORS, "visit_max": 2**45, "exposure_max": 2**45, "visit_system": 0}
        with registry.transaction():
            registry.insertDimensionData(
                "instrument", {"name": NAME, "class_name": f"{__name__}.BenchCam", **most}, skip_existing=True
            )
            detectors = (
                {"instrument": NAME, "id": i, "full_name": f"D{i:03d}", "raft": "R", "name_in_raft": f"{i}"}
                for i in range(DETECTORS)
            )
            registry.insertDimensionData("detector", *detectors, skip_existing=True)
            registry.insertDimensionData(
                "physical_filter", {"instrument": NAME, "name": "r_57", "band": "r"}, skip_existing=True
            )


@dataclass(frozen=True, slots=True)
class File:
    """A file that lies at the site, and what is said about it."""

    kind: str
    name: str
    size: int
    adler32: str
    sidecar: str = ""


class Camera:
    """Makes files of exposures.

    Parameters
    ----------
    folder
        Where they lie, as ``<scope>/<name>``.
    on_sky
        Whether the exposures see the sky, and so become visits; flats don't.
    """

    def __init__(self, folder: Path, *, on_sky: bool) -> None:
        self.folder = folder / SCOPE
        self.on_sky = on_sky
        self.universe = DimensionUniverse()
        name, dimensions, storage_class = BenchCam.raw_definition
        self.raw_type = DatasetType(name, dimensions, storage_class, universe=self.universe)

    def records(self, exposures: Sequence[int]) -> Mapping[str, list[dict[str, Any]]]:
        """Dimension records of exposures, by element."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for exposure in exposures:
            info = BenchObservation(fits.Header.fromstring(self.header(exposure, 0))).info
            for element, row in exposure_records(info).items():
                rows.setdefault(element, []).append(row)
        return {"day_obs": rows["day_obs"][:1], "group": rows["group"], "exposure": rows["exposure"]}

    def header(self, exposure: int, detector: int) -> bytes:
        """A raw, which is but its header."""
        row, column = divmod(detector, _COLUMNS)
        number = exposure % 100_000
        ra, dec = 10.0 + number % 300, -40.0 + number % 60
        cards: dict[str, object] = {
            "SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "INSTRUME": NAME, "TELESCOP": "Simonyi Survey Telescope",
            "OBSID": _observation(exposure), "DAYOBS": str(DAY_OBS), "SEQNUM": number, "DETNUM": detector,
            "IMGTYPE": "OBJECT" if self.on_sky else "FLAT", "REASON": "science", "PROGRAM": "BENCH", "OBJECT": "FIELD",
            "GROUPID": _observation(exposure), "CURINDEX": 1, "MAXINDEX": 1, "RAFTBAY": "R22", "CCDSLOT": "S11",
            "LSST_NUM": f"B-{detector:03d}", "FILTER": "r_57", "EXPTIME": 30.0, "SHUTTIME": 30.0, "DARKTIME": 31.0,
            "MJD-BEG": 61346.1, "MJD-END": 61346.2, "DATE-BEG": "2026-11-02T03:00:00",
            "DATE-END": "2026-11-02T03:00:30", "TRACKSYS": "RADEC", "RADESYS": "ICRS", "RA": ra,
            "DEC": dec, "ROTPA": 0.0, "ELSTART": 60.0, "AZSTART": 0.0, "ELEND": 60.0, "AZEND": 0.0,
            "OBSGEO-X": 1818938.94, "OBSGEO-Y": -5208470.95, "OBSGEO-Z": -3195172.08,
            "SIMULATE": True, "AIRTEMP": 11.0, "PRESSURE": 74255.0, "HUMIDITY": 30.0, "FOCUSZ": 0.0,
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": 4000.0 * (7 - column),
            "CRPIX2": 4000.0 * (7 - row), "CDELT1": _DETECTOR_DEG / 4000, "CDELT2": _DETECTOR_DEG / 4000,
        }  # fmt: skip
        text = "".join(map(_card, cards, cards.values())) + "END".ljust(80)
        return text.ljust(-(-len(text) // 2880) * 2880).encode()

    def singles(self, exposures: Sequence[int]) -> list[File]:
        """Each raw as a file; what doesn't see the sky is the same bytes under all names."""
        made = []
        for exposure in exposures:
            folder = self.folder / _folder(exposure)
            folder.mkdir(parents=True, exist_ok=True)
            first: Path | None = None
            for detector in range(DETECTORS):
                path = folder / f"{_observation(exposure)}_{detector:03d}.fits"
                if first is None or self.on_sky:
                    content = self.header(exposure, detector)
                    path.write_bytes(content)
                    first = path
                else:
                    path.hardlink_to(first)
                name = str(path.relative_to(self.folder))
                sidecar = DatasetRef(self.raw_type, self.data_id(exposure, detector), RUN, id_generation_mode=_MODE)
                made.append(File("raw_file", name, len(content), f"{zlib.adler32(content):08x}", sidecar.to_json()))
        return made

    def data_id(self, exposure: int, detector: int) -> DataCoordinate:
        """The data ID of a raw, without records."""
        return DataCoordinate.standardize(
            {"instrument": NAME, "exposure": exposure, "detector": detector}, dimensions=self.raw_type.dimensions
        )

    def zips(self, exposures: Sequence[int], scratch: Path) -> list[File]:
        """Each exposure as a zip and a file of dimensions."""
        index, names, dimensions = self._model(exposures[0], scratch)
        model = str(exposures[0])
        ids = {d: str(self._ref(exposures[0], d).id) for d in range(DETECTORS)}
        made = []
        for exposure in exposures:
            folder = self.folder / _folder(exposure)
            folder.mkdir(parents=True, exist_ok=True)

            def renumbered(text: str, exposure: int = exposure) -> str:
                return text.replace(model, str(exposure)).replace(_observation(int(model)), _observation(exposure))

            new = {detector: str(self._ref(exposure, detector).id) for detector in range(DETECTORS)}
            text = renumbered(index)
            for detector, old in ids.items():
                text = text.replace(old, new[detector]).replace(f"{old[:8]}-", f"{new[detector][:8]}-")
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for detector, name in names.items():
                    member = renumbered(name).replace(f"{ids[detector][:8]}-", f"{new[detector][:8]}-")
                    archive.writestr(member, self.header(exposure, detector))
                archive.writestr("_butler_zip_index.json", text)
            for kind, ending, value in (
                ("zip_file", ".zip", content.getvalue()),
                ("dim_file", "_dimensions.yaml", renumbered(dimensions).encode()),
            ):
                path = folder / f"{_observation(exposure)}{ending}"
                path.write_bytes(value)
                name = str(path.relative_to(self.folder))
                made.append(File(kind, name, len(value), f"{zlib.adler32(value):08x}"))
        return made

    def _ref(self, exposure: int, detector: int) -> DatasetRef:
        return DatasetRef(self.raw_type, self.data_id(exposure, detector), RUN, id_generation_mode=_MODE)

    def _model(self, exposure: int, scratch: Path) -> tuple[str, dict[int, str], str]:
        """Index, names of members and dimensions of one exposure, as a Butler writes them."""
        Butler.makeRepo(str(scratch), Config())
        with Butler.from_config(str(scratch), writeable=True) as butler:
            BenchCam().register(butler.registry)
            insert(butler, self.records([exposure]))
            butler.registry.registerDatasetType(self.raw_type)
            path = scratch / "raw.fits"
            path.write_bytes(self.header(exposure, 0))
            refs = []
            for detector in range(DETECTORS):
                data_id = butler.registry.expandDataId(self.data_id(exposure, detector))
                refs.append(DatasetRef(self.raw_type, data_id, RUN, id_generation_mode=_MODE))
            butler.collections.register(RUN)
            butler.ingest(*(FileDataset(path, [ref], formatter=SimCamRawFormatter) for ref in refs), transfer="copy")
            made = butler.retrieve_artifacts_zip(refs, str(scratch))
            with zipfile.ZipFile(made.ospath) as archive:
                index = archive.read("_butler_zip_index.json").decode()
            by_id = {str(ref.id): int(ref.dataId["detector"]) for ref in refs}
            held = json.loads(index)["artifact_map"]
            names = {by_id[item["ids"][0]]: name for name, item in held.items()}
            stream = io.StringIO()
            backend = YamlRepoExportBackend(stream, universe=butler.dimensions)
            for element in _DIMENSIONS:
                records = {ref.dataId.records[element].dataId: ref.dataId.records[element] for ref in refs}
                backend.saveDimensionData(butler.dimensions[element], *records.values())
            backend.finish()
        return index, names, stream.getvalue()


_MODE = DatasetIdGenEnum.DATAID_TYPE_RUN


def exposure_numbers(first: int, count: int) -> list[int]:
    """Numbers of exposures of the night."""
    return [DAY_OBS * 100_000 + first + index for index in range(count)]


def insert(butler: Butler, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Insert dimension records that may be there."""
    with butler.transaction():
        for element, rows in records.items():
            butler.registry.insertDimensionData(element, *rows, skip_existing=True)


def messages(files: Sequence[File], now: str) -> Iterator[bytes]:
    """Announce files as Hermes does.

    Parameters
    ----------
    files
        What has come.
    now
        When the transfers ended, such as ``"2026-11-02 03:04:05"``.
    """
    for file in files:
        payload = {
            "activity": "Data Brokering", "duration": 4, "checksum-adler": file.adler32, "bytes": file.size,
            "file-size": file.size, "scope": SCOPE, "name": file.name, "src-rse": "SLAC_RAW_DISK",
            "dst-rse": "LANCS_RAW_DISK", "src-url": f"davs://source.example:1094/raw/{file.name}",
            "dst-url": f"{PREFIX}/{SCOPE}/{file.name}", "reason": "", "created_at": now, "submitted_at": now,
            "started_at": now, "transferred_at": now, "account": "root", "tool-id": "rucio-conveyor",
            "rubin_butler": file.kind, "rubin_sidecar": file.sidecar,
        }  # fmt: skip
        yield json.dumps({"event_type": "transfer-done", "payload": payload, "created_at": now}).encode()


def _card(keyword: str, value: object) -> str:
    if isinstance(value, bool):
        shown = ("T" if value else "F").rjust(20)
    elif isinstance(value, str):
        shown = f"'{value:<8}'"
    else:
        shown = repr(value).upper().rjust(20)
    return f"{keyword:<8}= {shown}".ljust(80)


def _observation(exposure: int) -> str:
    return f"BC_O_{DAY_OBS}_{exposure % 100_000:06d}"


def _folder(exposure: int) -> str:
    return f"{NAME}/{DAY_OBS}/{_observation(exposure)}"
