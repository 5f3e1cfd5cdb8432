"""Dimension records that come as files of their own, and the names by which others wait for them.

Belongs here: reading a dimensions YAML into the Butler, and keys such as ``instrument=SimCam,exposure=2026110100001``.
Doesn't: records that are made from raws' headers (`arrivals.raws`, `arrivals.visits`).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import yaml
from lsst.daf.butler import Butler, DataCoordinate, DataIdValue, Dimension, DimensionElement, DimensionRecord, Timespan
from lsst.daf.butler.transfers import YamlRepoImportBackend
from sqlalchemy.exc import IntegrityError

from arrivals.files import Arrived
from arrivals.outcomes import ingest_in_bulk
from resources.errors import Rejected, Waiting

MAX_CORRECTIONS = 20
"""So many later corrections of a file are looked for."""

_NEXT_NAME = re.compile(r",(?=\w+=)")
"""Between a value and the next name in a key."""

_NEXT_NAME = re.compile(r",(?=\w+=)")
"""What stands in a key before each name but the first."""

_NUMBERED = re.compile(r"_dimensions(\.(?P<number>\d{1,4}))?\.(?P<ending>ya?ml)$")
_MAX_FILE_BYTES = 64 * 2**20

_MAY_COME = frozenset({"day_obs", "group", "exposure", "visit"})
"""Dimensions whose records come with the data; the others' are registered with the instrument and the skymap."""

_REL_TOLERANCE = 1e-6
_TOLERANCE_NS = 1_000_000

type _Records = Mapping[DimensionElement, list[DimensionRecord]]
type _Kept = Mapping[tuple[str, DataCoordinate], DimensionRecord]


class LacksRegistered(Rejected):
    """Records need others that no file brings: those are registered with the instrument or the skymap."""


@dataclass(frozen=True, slots=True)
class LoadedDimensions:
    """What a dimensions file brought.

    Parameters
    ----------
    keys
        Keys of all its records: what waits for one of them can be tried again.
    exposures
        day_obs by exposure.
    remark
        Which of the Butler's records differ from it and stay as they are.
    """

    keys: frozenset[str]
    exposures: Mapping[int, int]
    remark: str = ""


def dimension_key(values: Mapping[str, object]) -> str:
    """The name of a dimension record by its required values, in their order."""
    return ",".join(f"{name}={value}" for name, value in values.items())


def lacking(butler: Butler, keys: Collection[str]) -> frozenset[str]:
    """Of the keys by which something waits, those whose records the Butler lacks, with one query a dimension.

    Parameters
    ----------
    butler
        Where to look.
    keys
        As `dimension_key` makes them; what is no such key isn't in the answer.
    """
    wanted: dict[str, dict[str, DataCoordinate]] = {}
    for key in keys:
        values = dict(part.partition("=")[::2] for part in _NEXT_NAME.split(key))
        element = next(reversed(values))
        if element in butler.dimensions.dimensions.names:
            wanted.setdefault(element, {})[key] = _data_id(butler.dimensions.dimensions[element], values)
    there = {key for element, data_ids in wanted.items() for key in known_keys(butler, element, data_ids.values())}
    return frozenset(key for data_ids in wanted.values() for key in data_ids if key not in there)


def known_keys(butler: Butler, dimension: str, data_ids: Iterable[DataCoordinate]) -> frozenset[str]:
    """Keys of all these data IDs of a dimension whose records the Butler has, and maybe of some others.

    A query of the data IDs themselves would not ask the Butler for a dimension that has no more columns than they.
    """
    governors = butler.dimensions.governor_dimensions.names
    wanted: dict[tuple[tuple[str, DataIdValue], ...], dict[str, set[DataIdValue]]] = {}
    for data_id in data_ids:
        pairs = data_id.required.items()
        values = wanted.setdefault(tuple(pair for pair in pairs if pair[0] in governors), {})
        for name, value in pairs:
            if name not in governors:
                values.setdefault(name, set()).add(value)
    keys: set[str] = set()
    for governor, values in wanted.items():
        with butler.query() as query:
            x = query.expression_factory
            chosen = [getattr(x, name).in_iterable(some) for name, some in values.items()]
            found = query.where(*chosen, **dict(governor)).dimension_records(dimension)
            keys |= {dimension_key(dict(record.dataId.required)) for record in found}
    return frozenset(keys)


def _data_id(dimension: Dimension, values: Mapping[str, str]) -> DataCoordinate:
    types = {each.name: each.primaryKey.getPythonType() for each in dimension.required}
    typed = {name: python_type(values[name]) for name, python_type in types.items()}
    return DataCoordinate.standardize(typed, dimensions=dimension.minimal_group)


def correction_number(name: str) -> int:
    """Which correction a file of this name is: 1 for ``…_dimensions.1.yaml``, 0 for what it corrects."""
    found = _NUMBERED.search(name)
    return int(found["number"]) if found and found["number"] else 0


def later_corrections(name: str) -> list[str]:
    """Names that files with later corrections of the same dimensions would have, as many as are ever looked for."""
    found = _NUMBERED.search(name)
    if found is None:
        return []
    stem, number = name[: found.start()], correction_number(name)
    return [f"{stem}_dimensions.{later}.{found['ending']}" for later in range(number + 1, number + 1 + MAX_CORRECTIONS)]


def load_dimensions(butler: Butler, files: Sequence[Arrived]) -> list[LoadedDimensions | Exception]:
    """Put the dimension records of exported YAML files into the Butler; records that are there stay as they are.

    Parameters
    ----------
    butler
        Where to.
    files
        YAMLs, as ``Butler.export`` writes them. Only their dimension records are read.

    Returns
    -------
    loaded
        For each file what it brought, or what is wrong with it: then nothing of it is in, and all of the others is.
    """
    results: dict[int, LoadedDimensions | Exception] = {}
    records: dict[int, _Records] = {}
    for index, file in enumerate(files):
        try:
            records[index] = _read(butler, file)
        except Exception as error:  # the file is not ours: whatever it does to the reader is its own trouble
            results[index] = error
    errors = _insert_all(butler, list(records.values()))
    loaded = [found for position, found in enumerate(records.values()) if position not in errors]
    there = _there(butler, loaded, come_with_data=True)
    for position, (index, found) in enumerate(records.items()):
        cause = errors.get(position)
        results[index] = _loaded(found, there) if cause is None else _explained(cause, butler, files[index], found)
    return [results[index] for index in range(len(files))]


def correct_dimensions(butler: Butler, file: Arrived) -> LoadedDimensions:
    """Change the Butler's dimension records to a correction's, all of them or none; what is missing is added.

    Records that are registered with the instrument or the skymap are the site's, and stay as they are.

    Raises
    ------
    resources.errors.Waiting
        They need others that haven't come.
    resources.errors.Rejected
        The file is no export of dimension records.
    """
    records = _read(butler, file)
    try:
        with butler.transaction():
            for element in butler.dimensions.sorted(records):
                if not _comes_with_data(element):
                    butler.registry.insertDimensionData(element.name, *records[element], skip_existing=True)
                    continue
                for record in records[element]:
                    butler.registry.syncDimensionData(element.name, record, update=True)
    except IntegrityError as error:
        raise _explained(error, butler, file, records) from error
    return _loaded(records, _there(butler, [records], come_with_data=False))


def _insert_all(butler: Butler, files: Sequence[_Records]) -> dict[int, Exception]:
    """What is wrong with each file that isn't in, by its index, whatever the order of those that need each other."""
    errors = ingest_in_bulk(files, partial(_insert, butler))
    if not errors or len(errors) == len(files):
        return errors
    failed = list(errors)  # what they lacked may have come with those that are in
    again = _insert_all(butler, [files[index] for index in failed])
    return {failed[position]: error for position, error in again.items()}


def _insert(butler: Butler, files: Sequence[_Records]) -> None:
    merged: dict[DimensionElement, dict[DataCoordinate, DimensionRecord]] = {}
    for records in files:
        for element, some in records.items():
            first = merged.setdefault(element, {})
            for record in some:
                first.setdefault(record.dataId, record)
    with butler.transaction():
        for element in butler.dimensions.sorted(merged):
            butler.registry.insertDimensionData(element.name, *merged[element].values(), skip_existing=True)


def _explained(error: Exception, butler: Butler, file: Arrived, records: _Records) -> Exception:
    if not isinstance(error, IntegrityError):
        return error
    cause = " ".join(str(error.orig).split())
    if "foreign key" in cause.lower():
        if key := _lacking(butler, records):
            return Waiting("waits for dimensions that its own need", key)
        return LacksRegistered(f"needs records that neither it nor the Butler has: {cause}", str(file.uri))
    return Rejected(f"contradicts records that the Butler has: {cause}", str(file.uri))


def _lacking(butler: Butler, records: _Records) -> str | None:
    """The key of a record that may still come, that these need, and that neither they nor the Butler have."""
    given = _keys(records)
    for element, found in records.items():
        for needed in (element.required | element.implied) - {element}:
            if needed.name not in _MAY_COME:
                continue
            data_ids = [{name: getattr(record, name) for name in needed.required.names} for record in found]
            for key, data_id in {dimension_key(data_id): data_id for data_id in data_ids}.items():
                if key not in given and not butler.query_dimension_records(needed.name, data_id=data_id, explain=False):
                    return key
    return None


def _keys(records: _Records) -> frozenset[str]:
    return frozenset(dimension_key(dict(record.dataId.required)) for found in records.values() for record in found)


def _comes_with_data(element: DimensionElement) -> bool:
    return not _MAY_COME.isdisjoint(element.required.names)


def _there(butler: Butler, files: Iterable[_Records], *, come_with_data: bool) -> _Kept:
    """The Butler's records where files have some, of those dimensions that come with data, or of the site's."""
    wanted: dict[str, set[DataCoordinate]] = {}
    for records in files:
        for element, found in records.items():
            if _comes_with_data(element) == come_with_data:
                wanted.setdefault(element.name, set()).update(record.dataId for record in found)
    there: dict[tuple[str, DataCoordinate], DimensionRecord] = {}
    for name, data_ids in wanted.items():
        with butler.query() as query:
            some = query.join_data_coordinates(data_ids).dimension_records(name)
            there |= {(name, record.dataId): record for record in some}
    return there


def _loaded(records: _Records, there: _Kept) -> LoadedDimensions:
    exposures = {r.id: r.day_obs for element, found in records.items() if element.name == "exposure" for r in found}
    return LoadedDimensions(_keys(records), exposures, _differences(records, there))


def _differences(records: _Records, there: _Kept) -> str:
    """What is to be said of the Butler's records that differ from a file's."""
    said = []
    for element, found in records.items():
        for record in found:
            kept = there.get((element.name, record.dataId))
            if kept is not None and kept != record and (columns := _differing(kept, record)):
                said.append(f"the Butler's {dimension_key(dict(record.dataId.required))} stays as it is: {columns}")
    more = f", and so do {len(said) - 1} others" if len(said) > 1 else ""
    return f"{said[0]}{more}" if said else ""


def _differing(kept: DimensionRecord, given: DimensionRecord) -> str:
    pairs = {name: (getattr(kept, name), value) for name, value in given.toDict().items()}
    return "; ".join(f"{name} {has!r}, not {value!r}" for name, (has, value) in pairs.items() if not _agree(has, value))


def _agree(kept: object, given: object) -> bool:
    """Whether two values of a record are the same but for how exactly headers tell them."""
    if isinstance(kept, float) and isinstance(given, float):
        return math.isclose(kept, given, rel_tol=_REL_TOLERANCE)
    if isinstance(kept, Timespan) and isinstance(given, Timespan):
        return all(abs(a - b) <= _TOLERANCE_NS for a, b in zip(kept.nsec, given.nsec, strict=True))
    return kept == given


def _read(butler: Butler, file: Arrived) -> _Records:
    try:
        backend = YamlRepoImportBackend(io.StringIO(file.read(_MAX_FILE_BYTES).decode("utf-8")), butler)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Rejected(f"is not YAML: {' '.join(str(error).split())}", str(file.uri)) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Rejected(f"is no export of dimension records ({' '.join(str(error).split())})", str(file.uri)) from error
    if not backend.dimensions:
        raise Rejected("holds no dimension records", str(file.uri))
    return backend.dimensions
