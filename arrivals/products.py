"""Products into the Butler: any single file that names its dataset in a sidecar, calibrations among them.

Belongs here: from a sidecar to a dataset reference that this Butler agrees with, ingest, and certification.
Doesn't: raws (`arrivals.raws`, `arrivals.zips`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from lsst.daf.butler import (
    Butler,
    CollectionType,
    DataCoordinate,
    DatasetRef,
    DatasetType,
    FileDataset,
    MissingDatasetTypeError,
    StorageClassFactory,
    Timespan,
)
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.resources import ResourcePath

from arrivals.announcement import Sidecar
from arrivals.dimensions import dimension_key
from arrivals.outcomes import ingest_in_bulk
from resources.errors import Rejected, SiteFault, Waiting

_OF_THE_INSTRUMENT = frozenset({"detector", "physical_filter"})
"""Dimensions that come with the instrument: if that is known and one of these is not, it doesn't exist."""


@dataclass(frozen=True, slots=True)
class ProductFile:
    """A product to be ingested."""

    file: ResourcePath
    sidecar: Sidecar


class ProductIngest:
    """Ingests products; what is already there is left as it is.

    Parameters
    ----------
    butler
        Where to.
    instrument
        Name of the site's instrument.
    register_dataset_types
        Whether unknown dataset types are registered as their sidecars define them.
    calibration_collection
        Where calibration products are certified, for all times; none: they aren't.
    """

    def __init__(
        self, butler: Butler, instrument: str, *, register_dataset_types: bool, calibration_collection: str | None
    ) -> None:
        self._butler = butler
        self._instrument = instrument
        self._may_register = register_dataset_types
        self._calibration_collection = calibration_collection
        self._dataset_types: dict[str, DatasetType] = {}
        self._known_records: set[str] = set()

    def ingest(self, products: Sequence[ProductFile]) -> list[Exception | None]:
        """Ingest a batch; the answer has one entry a file: nothing, or what is wrong with it."""
        results: list[Exception | None] = [None] * len(products)
        datasets: dict[int, FileDataset] = {}
        for index, product in enumerate(products):
            try:
                datasets[index] = FileDataset(path=product.file, refs=[self._reference(product.sidecar)])
            except SiteFault:
                raise
            except Exception as error:  # sidecars are not ours: whatever one does to the Butler is its own trouble
                results[index] = error
        indexes = list(datasets)
        for position, cause in ingest_in_bulk(list(datasets.values()), self._ingest_datasets).items():
            results[indexes[position]] = cause
        if self._calibration_collection is not None:
            ingested = [i for i in indexes if results[i] is None and products[i].sidecar.is_calibration]
            refs = [datasets[index].refs[0] for index in ingested]
            for position, cause in ingest_in_bulk(refs, self._certify).items():
                results[ingested[position]] = Rejected(
                    f"is in the Butler, but was not certified: {cause}", self._calibration_collection
                )
        return results

    def _reference(self, sidecar: Sidecar) -> DatasetRef:
        values = dict(sidecar.data_id)
        if values.get("instrument", self._instrument) != self._instrument:
            raise Rejected(f"is of {values['instrument']}, but this site takes {self._instrument}", "rubin_sidecar")
        dataset_type = self._agreed(sidecar)
        missing = sorted(dataset_type.dimensions.required - values.keys())
        if missing:
            raise Rejected(f"the data ID lacks {', '.join(missing)}", "rubin_sidecar")
        try:
            data_id = DataCoordinate.standardize(
                {name: values[name] for name in dataset_type.dimensions.required}, dimensions=dataset_type.dimensions
            )
        except (ValueError, TypeError, LookupError) as error:
            raise Rejected(f"the data ID is wrong: {error}", "rubin_sidecar") from error
        self._look_for_records(data_id)
        # From now on others have to agree with this one, which Butler.ingest registers if it is new.
        self._dataset_types.setdefault(dataset_type.name, dataset_type)
        return DatasetRef(dataset_type, data_id, run=sidecar.run, id=UUID(sidecar.dataset_id))

    def _agreed(self, sidecar: Sidecar) -> DatasetType:
        """The Butler's own dataset type, with which the sidecar's has to agree; the sidecar's if it is a new one."""
        announced = self._announced(sidecar)
        known = self._dataset_types.get(sidecar.dataset_type)
        if known is None:
            try:
                known = self._butler.get_dataset_type(sidecar.dataset_type)
            except MissingDatasetTypeError as error:
                if self._may_register:
                    return announced
                raise Rejected(
                    "unknown dataset type", announced.name, "register it, or set arrivals.register_dataset_types"
                ) from error
        if announced.dimensions != known.dimensions or announced.isCalibration() != known.isCalibration():
            raise Rejected(f"dataset type was announced as {announced}, but is registered as {known}", known.name)
        if announced.storageClass_name != known.storageClass_name and not announced.is_compatible_with(known):
            raise Rejected(
                f"storage class {announced.storageClass_name} was announced, "
                f"which is no {known.storageClass_name} as registered",
                known.name,
            )
        return known

    def _announced(self, sidecar: Sidecar) -> DatasetType:
        if sidecar.storage_class not in StorageClassFactory():
            raise Rejected(f"unknown storage class {sidecar.storage_class}", sidecar.dataset_type)
        try:
            return DatasetType(
                sidecar.dataset_type,
                sidecar.dimensions,
                sidecar.storage_class,
                universe=self._butler.dimensions,
                isCalibration=sidecar.is_calibration,
            )
        except (ValueError, KeyError, TypeError, LookupError) as error:
            raise Rejected(f"dataset type can't be: {error}", sidecar.dataset_type) from error

    def _look_for_records(self, data_id: DataCoordinate) -> None:
        """Make sure that the Butler has the records that a data ID needs; each is looked for once."""
        universe = self._butler.dimensions
        for name in data_id.dimensions.required:
            dimension = universe.dimensions[name]
            if not dimension.has_own_table:
                continue
            values = {key: data_id[key] for key in dimension.required.names}
            key = dimension_key(values)
            if key in self._known_records:
                continue
            if not self._butler.query_dimension_records(name, data_id=values, limit=1, explain=False):
                if name in _OF_THE_INSTRUMENT:
                    raise Rejected(f"{self._instrument} has no {name} {data_id[name]}", "rubin_sidecar")
                raise Waiting("waits for its dimensions", key)
            self._known_records.add(key)

    def _ingest_datasets(self, datasets: Sequence[FileDataset]) -> None:
        self._butler.ingest(*datasets, transfer="split", skip_existing=True)

    def _certify(self, refs: Sequence[DatasetRef]) -> None:
        collection = self._calibration_collection
        if collection is None:
            raise SiteFault("no collection for calibrations is named", "arrivals.calibration_collection")
        self._butler.collections.register(collection, CollectionType.CALIBRATION)
        certified = self._certified({ref.datasetType.name for ref in refs}, collection)
        for ref in refs:
            other = certified.get((ref.datasetType.name, ref.dataId), ref.id)
            if other != ref.id:
                raise ConflictingDefinitionError(f"{other} is certified for {ref.dataId} already")
        new = [ref for ref in refs if (ref.datasetType.name, ref.dataId) not in certified]
        if new:
            self._butler.registry.certify(collection, new, Timespan(None, None))

    def _certified(self, dataset_types: set[str], collection: str) -> Mapping[tuple[str, Any], UUID]:
        return {
            (name, association.ref.dataId): association.ref.id
            for name in dataset_types
            for association in self._butler.registry.queryDatasetAssociations(name, collections=[collection])
        }
