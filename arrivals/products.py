"""Products into the Butler: any single file that names its dataset in a sidecar, calibrations among them.

Belongs here: from a sidecar to a dataset reference that this Butler agrees with, ingest, and certification.
Doesn't: raws (`arrivals.raws`, `arrivals.zips`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from arrivals.datasets import ingest_files
from arrivals.dimensions import dimension_key, known_keys
from arrivals.outcomes import ingest_in_bulk
from resources.databases import is_database_trouble
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
        self._announced_types: dict[tuple[str, tuple[str, ...], str, bool], DatasetType] = {}
        self._known_records: set[str] = set()

    def ingest(self, products: Sequence[ProductFile]) -> list[Exception | None]:
        """Ingest a batch; the answer has one entry a file: nothing, or what is wrong with it."""
        results: dict[int, Exception] = {}
        refs: dict[int, DatasetRef] = {}
        for index, product in enumerate(products):
            try:
                refs[index] = self._reference(product.sidecar)
            except SiteFault:
                raise
            except Exception as error:  # sidecars are not ours: whatever one does to the Butler is its own trouble
                results[index] = error
        missing = self._look_for_records([ref.dataId for ref in refs.values()])
        results |= {index: error for index, error in zip(refs, missing, strict=True) if error is not None}
        results |= self._settle_new_types({index: ref for index, ref in refs.items() if index not in results})
        datasets = {i: FileDataset(products[i].file, [ref]) for i, ref in refs.items() if i not in results}
        indexes = list(datasets)
        for position, cause in ingest_files(self._butler, list(datasets.values())).items():
            results[indexes[position]] = cause
        if self._calibration_collection is not None:
            ingested = [i for i in indexes if i not in results and products[i].sidecar.is_calibration]
            for position, cause in ingest_in_bulk([refs[index] for index in ingested], self._certify).items():
                results[ingested[position]] = (
                    cause
                    if is_database_trouble(cause)
                    else Rejected(f"is in the Butler, but was not certified: {cause}", self._calibration_collection)
                )
        return [results.get(index) for index in range(len(products))]

    def _reference(self, sidecar: Sidecar) -> DatasetRef:
        values = dict(sidecar.data_id)
        if values.get("instrument", self._instrument) != self._instrument:
            raise Rejected(f"is of {values['instrument']}, but this site takes {self._instrument}", "rubin_sidecar")
        dataset_type = self._agreed(sidecar)
        missing = sorted(dataset_type.dimensions.required - values.keys())
        if missing:
            raise Rejected(f"the data ID lacks {', '.join(missing)}", "rubin_sidecar")
        for name in dataset_type.dimensions.required:
            expected = self._butler.dimensions.dimensions[name].primaryKey.getPythonType()
            if not isinstance(values[name], expected):
                raise Rejected(
                    f"the data ID's {name} is {values[name]!r}, not of type {expected.__name__}", "rubin_sidecar"
                )
        try:
            data_id = DataCoordinate.standardize(
                {name: values[name] for name in dataset_type.dimensions.required}, dimensions=dataset_type.dimensions
            )
        except (ValueError, TypeError, LookupError) as error:
            raise Rejected(f"the data ID is wrong: {error}", "rubin_sidecar") from error
        return DatasetRef(dataset_type, data_id, run=sidecar.run, id=UUID(sidecar.dataset_id))

    def _agreed(self, sidecar: Sidecar) -> DatasetType:
        """The Butler's own dataset type, with which the sidecar's has to agree; the sidecar's if it is a new one."""
        announced = self._announced(sidecar)
        known = self._dataset_types.get(announced.name)
        if known is None:
            try:
                known = self._butler.get_dataset_type(announced.name)
            except MissingDatasetTypeError as error:
                if self._may_register:
                    return announced
                raise Rejected(
                    "unknown dataset type", announced.name, "register it, or set arrivals.register_dataset_types"
                ) from error
            self._dataset_types[announced.name] = known
        return _agreement(announced, known)

    def _announced(self, sidecar: Sidecar) -> DatasetType:
        definition = (sidecar.dataset_type, sidecar.dimensions, sidecar.storage_class, sidecar.is_calibration)
        if definition in self._announced_types:
            return self._announced_types[definition]
        if sidecar.storage_class not in StorageClassFactory():
            raise Rejected(f"unknown storage class {sidecar.storage_class}", sidecar.dataset_type)
        try:
            dataset_type = DatasetType(
                sidecar.dataset_type,
                sidecar.dimensions,
                sidecar.storage_class,
                universe=self._butler.dimensions,
                isCalibration=sidecar.is_calibration,
            )
        except (ValueError, KeyError, TypeError, LookupError) as error:
            raise Rejected(f"dataset type can't be: {error}", sidecar.dataset_type) from error
        self._announced_types[definition] = dataset_type
        return dataset_type

    def _settle_new_types(self, refs: Mapping[int, DatasetRef]) -> dict[int, Exception]:
        """Let the first of those that can go in define what a new dataset type is, which `Butler.ingest` registers."""
        errors: dict[int, Exception] = {}
        for index, ref in refs.items():
            known = self._dataset_types.setdefault(ref.datasetType.name, ref.datasetType)
            try:
                _agreement(ref.datasetType, known)
            except Rejected as error:
                errors[index] = error
        return errors

    def _look_for_records(self, data_ids: Sequence[DataCoordinate]) -> list[Exception | None]:
        """What each data ID lacks in the Butler, with one query a dimension for all that is new here."""
        needed = [self._needed_records(data_id) for data_id in data_ids]
        unknown: dict[str, dict[str, DataCoordinate]] = {}
        for records in needed:
            for key, (dimension, subset) in records.items():
                if key not in self._known_records:
                    unknown.setdefault(dimension, {})[key] = subset
        errors: dict[str, Exception] = {}
        for dimension, subsets in unknown.items():
            keys = list(subsets)
            found = ingest_in_bulk(list(subsets.values()), partial(self._find_records, dimension))
            errors |= {keys[position]: error for position, error in found.items()}
        return [self._first_lack(records, errors) for records in needed]

    def _needed_records(self, data_id: DataCoordinate) -> dict[str, tuple[str, DataCoordinate]]:
        """By their keys, the records that have to be there before a dataset of this data ID."""
        needed = {}
        for name in data_id.dimensions.required:
            dimension = self._butler.dimensions.dimensions[name]
            if dimension.has_own_table:
                subset = data_id.subset(dimension.minimal_group)
                needed[dimension_key(dict(subset.required))] = name, subset
        return needed

    def _find_records(self, dimension: str, data_ids: Sequence[DataCoordinate]) -> None:
        self._known_records |= known_keys(self._butler, dimension, data_ids)

    def _first_lack(
        self, needed: Mapping[str, tuple[str, DataCoordinate]], errors: Mapping[str, Exception]
    ) -> Exception | None:
        for key, (name, data_id) in needed.items():
            if key in errors:
                return errors[key]
            if key not in self._known_records:
                if name in _OF_THE_INSTRUMENT:
                    return Rejected(f"{self._instrument} has no {name} {data_id[name]}", "rubin_sidecar")
                return Waiting("waits for its dimensions", key)
        return None

    def _certify(self, refs: Sequence[DatasetRef]) -> None:
        collection = self._calibration_collection
        if collection is None:
            raise SiteFault("no collection for calibrations is named", "arrivals.calibration_collection")
        self._butler.collections.register(collection, CollectionType.CALIBRATION)
        before = self._certified({ref.datasetType.name for ref in refs}, collection)
        certified = dict(before)
        for ref in refs:
            other = certified.setdefault((ref.datasetType.name, ref.dataId), ref.id)
            if other != ref.id:
                raise ConflictingDefinitionError(f"{other} is certified for {ref.dataId} already")
        new = [ref for ref in refs if (ref.datasetType.name, ref.dataId) not in before]
        if new:
            self._butler.registry.certify(collection, new, Timespan(None, None))

    def _certified(self, dataset_types: set[str], collection: str) -> Mapping[tuple[str, Any], UUID]:
        return {
            (name, association.ref.dataId): association.ref.id
            for name in dataset_types
            for association in self._butler.registry.queryDatasetAssociations(name, collections=[collection])
        }


def _agreement(announced: DatasetType, known: DatasetType) -> DatasetType:
    """The known dataset type, if what was announced can be one."""
    if announced == known:
        return known
    if announced.dimensions != known.dimensions or announced.isCalibration() != known.isCalibration():
        raise Rejected(f"dataset type was announced as {announced}, but is registered as {known}", known.name)
    if announced.storageClass_name != known.storageClass_name and not announced.is_compatible_with(known):
        raise Rejected(
            f"storage class {announced.storageClass_name} was announced, "
            f"which is no {known.storageClass_name} as registered",
            known.name,
        )
    return known
