"""The far side of a delivery: the facility that took the data, with a Butler of its own.

Belongs here: the scratch repository from which zips, dimension records and products are made, with the dataset ids
and runs that the survey's names promise.
Doesn't: which files are made and announced (`simulator.delivery`), or how (`simulator.messages`).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import astropy.units as u
import lsst.images as li
import numpy as np
from astropy.table import Table
from lsst.daf.butler import (
    Butler,
    CollectionType,
    Config,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
)
from lsst.daf.butler.transfers import YamlRepoExportBackend

from drp_tasks.camera import INSTRUMENT
from drp_tasks.image_formatter import UncompressedImageFormatter
from drp_tasks.instrument import SimCam
from drp_tasks.raw_formatter import SimCamRawFormatter, dimension_records, read_observation
from drp_tasks.skymap import TangentSkyMap, register_skymap
from simulator.tables import HTM_LEVEL

RAW_RUN = f"{INSTRUMENT}/raw/all"
CALIBRATION_RUN = f"{INSTRUMENT}/calib/gen"
REFERENCE_RUN = "refcats"
TRUTH_RUN = f"{INSTRUMENT}/truth"

DETECTOR_DIMENSIONS = ("instrument", "detector")
FLAT_DIMENSIONS = ("instrument", "detector", "physical_filter")
CALIBRATION_TYPES = frozenset({"bias", "dark", "flat", "defects"})
REFERENCE_CATALOGUE = "simulated_refcat"

DIMENSIONS_ANNOUNCED = ("instrument", "physical_filter", "detector", "day_obs", "group", "exposure")
"""Elements of an exposure's dimensions file: all that its raws need, and no visits, which a site defines itself."""

ZIP_TIME = (2026, 11, 1, 0, 0, 0)
"""Time that all members of a zip bear, so that the same raws give the same zip."""


class SourceFacility:
    """The Butler of the facility where the survey was taken.

    Parameters
    ----------
    folder
        Folder for the repository; what an interrupted run left there is removed.
    skymap
        Skymap on which truth tables are given.
    """

    def __init__(self, folder: Path, skymap: TangentSkyMap) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        Butler.makeRepo(str(folder), config=_without_compression())
        self.butler = Butler.from_config(str(folder), writeable=True)
        self.skymap = skymap
        self._staging = folder / "staging"
        self._staging.mkdir()
        SimCam().register(self.butler.registry)
        register_skymap(self.butler, skymap)
        self.raw_type = self._dataset_type(*SimCam.raw_definition)
        self.butler.collections.register(RAW_RUN, CollectionType.RUN)

    def close(self) -> None:
        """Let go of the repository's files."""
        self.butler.close()

    def take(self, raws: Sequence[Path]) -> list[DatasetRef]:
        """Ingest the raws of one exposure.

        Returns
        -------
        refs : `list` [`lsst.daf.butler.DatasetRef`]
            In the order of ``raws``, with deterministic ids and dimension records.
        """
        registry = self.butler.registry
        observations = [read_observation(str(path)).info for path in raws]
        for element, row in dimension_records(observations[0]).items():
            registry.insertDimensionData(element, row, skip_existing=True)
        refs = [
            self._ref(self.raw_type, RAW_RUN, exposure=info.exposure_id, detector=info.detector_num)
            for info in observations
        ]
        self.butler.ingest(
            *(
                FileDataset(path=str(path), refs=[ref], formatter=SimCamRawFormatter)
                for path, ref in zip(raws, refs, strict=True)
            ),
            # In the repository raws have names of their own, which go into zips in place of this machine's paths.
            transfer="copy",
            skip_existing=True,
        )
        return refs

    def write_zip(self, refs: Iterable[DatasetRef], path: Path) -> None:
        """Write a Butler zip of raws at once or not at all; the same raws give the same bytes."""
        refs = list(refs)
        made = Path(self.butler.retrieve_artifacts_zip(refs, str(self._staging)).ospath)
        unfinished = path.with_suffix(".part")
        with zipfile.ZipFile(made) as source, zipfile.ZipFile(unfinished, "w") as target:
            for member in sorted(source.infolist(), key=lambda info: info.filename):
                entry = zipfile.ZipInfo(member.filename, date_time=ZIP_TIME)
                entry.compress_type = member.compress_type
                target.writestr(entry, source.read(member))
        made.unlink()
        unfinished.rename(path)

    def write_dimensions(self, refs: Iterable[DatasetRef], path: Path) -> None:
        """Write the dimension records that raws need, in the Butler's export format."""
        data_ids = [ref.dataId for ref in refs]
        unfinished = path.with_suffix(".part")
        with unfinished.open("w") as stream:
            backend = YamlRepoExportBackend(stream, universe=self.butler.dimensions)
            for element in DIMENSIONS_ANNOUNCED:
                records = {record.dataId: record for data_id in data_ids if (record := data_id.records[element])}
                backend.saveDimensionData(self.butler.dimensions[element], *records.values())
            backend.finish()
        unfinished.rename(path)

    def put_detector_image(
        self, name: str, image: np.ndarray, unit: u.UnitBase | None, detector: int, physical_filter: str | None = None
    ) -> DatasetRef:
        """Put a calibration of one detector, or of one detector and filter."""
        data_id: dict[str, int | str] = {"detector": detector}
        dimensions: tuple[str, ...] = DETECTOR_DIMENSIONS
        if physical_filter is not None:
            data_id["physical_filter"] = physical_filter
            dimensions = FLAT_DIMENSIONS
        return self._put(li.Image(image, unit=unit), name, dimensions, "ImageV2", CALIBRATION_RUN, data_id)

    def put_reference_catalogue(self, tables: Mapping[int, Table]) -> list[DatasetRef]:
        """Put the reference catalogue, a dataset a trixel."""
        trixel = f"htm{HTM_LEVEL}"
        return [
            self._put(table, REFERENCE_CATALOGUE, (trixel,), "ArrowAstropy", REFERENCE_RUN, {trixel: index})
            for index, table in tables.items()
        ]

    def put_tract_truth(self, name: str, table: Table) -> DatasetRef:
        """Put a truth table of the tract."""
        where: dict[str, int | str] = {"skymap": self.skymap.name, "tract": 0}
        return self._put(table, name, ("skymap", "tract"), "ArrowAstropy", TRUTH_RUN, where)

    def put_instrument_truth(self, name: str, table: Table) -> DatasetRef:
        """Put a truth table of the whole survey."""
        return self._put(table, name, ("instrument",), "ArrowAstropy", TRUTH_RUN, {})

    def path_of(self, ref: DatasetRef) -> Path:
        """File of a dataset."""
        return Path(self.butler.getURI(ref).ospath)

    def _put(
        self,
        dataset: object,
        name: str,
        dimensions: tuple[str, ...],
        storage_class: str,
        run: str,
        data_id: Mapping[str, int | str],
    ) -> DatasetRef:
        dataset_type = self._dataset_type(name, dimensions, storage_class)
        self.butler.collections.register(run, CollectionType.RUN)
        return self.butler.put(dataset, self._ref(dataset_type, run, **data_id))

    def _dataset_type(self, name: str, dimensions: Iterable[str], storage_class: str) -> DatasetType:
        dataset_type = DatasetType(
            name,
            tuple(dimensions),
            storage_class,
            universe=self.butler.dimensions,
            isCalibration=name in CALIBRATION_TYPES,
        )
        self.butler.registry.registerDatasetType(dataset_type)
        return dataset_type

    def _ref(self, dataset_type: DatasetType, run: str, **values: int | str) -> DatasetRef:
        if "instrument" in dataset_type.dimensions:
            values["instrument"] = INSTRUMENT
        data_id = self.butler.registry.expandDataId(dimensions=dataset_type.dimensions, **values)
        mode = DatasetIdGenEnum.DATAID_TYPE_RUN
        return DatasetRef(dataset_type, data_id, run=run, id_generation_mode=mode)


def _without_compression() -> Config:
    """Return a configuration by which images are written plain: calibrations are read often, plain in half the time."""
    name = f"{UncompressedImageFormatter.__module__}.{UncompressedImageFormatter.__qualname__}"
    return Config({"datastore": {"formatters": {"ImageV2": name}}})


def sidecar(ref: DatasetRef) -> str:
    """JSON that travels with a single file and says which dataset it is, without dimension records."""
    data_id = DataCoordinate.standardize(ref.dataId.mapping, dimensions=ref.datasetType.dimensions)
    return DatasetRef(ref.datasetType, data_id, run=ref.run, id=ref.id).to_json()
