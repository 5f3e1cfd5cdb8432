"""Dimension records that come as files of their own, and the names by which others wait for them.

Belongs here: reading a dimensions YAML into the Butler, and keys such as ``instrument=SimCam,exposure=2026110100001``.
Doesn't: records that are made from raws' headers (`arrivals.raws`, `arrivals.visits`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml
from lsst.daf.butler import Butler, DimensionElement, DimensionRecord
from lsst.daf.butler.transfers import YamlRepoImportBackend
from lsst.resources import ResourcePath

from resources.errors import Rejected

_CORRECTION_NAME = re.compile(r"_dimensions\.\d+\.ya?ml$")
_MAX_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class LoadedDimensions:
    """What a dimensions file brought.

    Parameters
    ----------
    keys
        Keys of all its records: what waits for one of them can be tried again.
    exposures
        day_obs by exposure.
    """

    keys: frozenset[str]
    exposures: Mapping[int, int]


def dimension_key(values: Mapping[str, object]) -> str:
    """The name of a dimension record by its required values, in their order."""
    return ",".join(f"{name}={value}" for name, value in values.items())


def is_correction(name: str) -> bool:
    """Whether a file of this name corrects dimensions that came before (``…_dimensions.1.yaml``)."""
    return _CORRECTION_NAME.search(name) is not None


def load_dimensions(butler: Butler, file: ResourcePath, *, correction: bool) -> LoadedDimensions:
    """Put the dimension records of an exported YAML file into the Butler; all of them or none.

    Parameters
    ----------
    butler
        Where to.
    file
        The YAML, as ``Butler.export`` writes it. Only its dimension records are read.
    correction
        Whether records that are there already are changed to the file's; otherwise they stay as they are.

    Raises
    ------
    resources.errors.Rejected
        The file is no export of dimension records.
    """
    records = _read(butler, file)
    with butler.transaction():
        for element in butler.dimensions.sorted(records):
            if correction:
                for record in records[element]:
                    butler.registry.syncDimensionData(element.name, record, update=True)
            else:
                butler.registry.insertDimensionData(element.name, *records[element], skip_existing=True)
    keys = {dimension_key(dict(record.dataId.required)) for found in records.values() for record in found}
    exposures = {r.id: r.day_obs for element, found in records.items() if element.name == "exposure" for r in found}
    return LoadedDimensions(frozenset(keys), exposures)


def _read(butler: Butler, file: ResourcePath) -> Mapping[DimensionElement, list[DimensionRecord]]:
    if file.size() > _MAX_FILE_BYTES:
        raise Rejected(f"is larger than {_MAX_FILE_BYTES:,} bytes, too large for dimensions", str(file))
    try:
        backend = YamlRepoImportBackend(io.StringIO(file.read().decode("utf-8")), butler)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Rejected(f"is not YAML: {' '.join(str(error).split())}", str(file)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(
            f"is no export of dimension records: {type(error).__name__} {' '.join(str(error).split())}", str(file)
        ) from error
    if not backend.dimensions:
        raise Rejected("holds no dimension records", str(file))
    return backend.dimensions
