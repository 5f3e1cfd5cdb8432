"""Zips into the Butler: all detectors of an exposure at once.

Belongs here: reading a zip's index and its members' headers, and the ingest of the whole. Doesn't: single files
(`arrivals.raws`), or visits (`arrivals.visits`).
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import cast

from lsst.daf.butler import Butler, DatasetRef
from lsst.daf.butler.datastores.file_datastore.retrieve_artifacts import ZipIndex
from lsst.resources import ResourcePath

from arrivals.dimensions import dimension_key
from arrivals.files import zip_transfer
from arrivals.raws import HeaderReader, IngestedRaw, KnownExposures, Observation
from resources.errors import Rejected, Waiting

_HEADER_BYTES = 256 * 2**10
"""How much of a member is read for its headers."""


def ingest_zip(butler: Butler, file: ResourcePath, instrument: str, known: KnownExposures) -> list[IngestedRaw]:
    """Ingest a zip that ``Butler.retrieve_artifacts_zip`` made; a second call changes nothing.

    Parameters
    ----------
    butler
        Where to.
    file
        The zip.
    instrument
        Name of the site's instrument.
    known
        The exposures that the Butler knows.

    Returns
    -------
    raws
        What is in it, without headers (`member_observations` reads them).

    Raises
    ------
    resources.errors.Waiting
        The dimension records of its exposure haven't come.
    resources.errors.Rejected
        It is no Butler zip, or holds what doesn't belong to this instrument.
    """
    refs = read_refs(butler, file)
    if not refs:
        raise Rejected("holds no datasets", str(file))
    raws = []
    for ref in refs:
        _check(ref, instrument, known.detectors)
        exposure = int(cast(int, ref.dataId["exposure"]))
        data_id = known.look_up([exposure]).get(exposure)
        if data_id is None:
            raise Waiting("waits for its dimensions", dimension_key({"instrument": instrument, "exposure": exposure}))
        day_obs = int(cast(int, data_id["day_obs"]))
        raws.append(IngestedRaw(exposure, int(cast(int, ref.dataId["detector"])), day_obs))
    # The Butler's own root needs no transfer, which its signature forbids and its datastore expects.
    transfer = cast(str, zip_transfer(butler, file))
    butler.ingest_zip(file, transfer=transfer, skip_existing=True)
    return raws


def read_refs(butler: Butler, file: ResourcePath) -> list[DatasetRef]:
    """The datasets that a zip's index lists.

    Raises
    ------
    resources.errors.Rejected
        It has no index, or isn't a zip.
    """
    try:
        return ZipIndex.from_zip_file(file).refs.to_refs(universe=butler.dimensions)
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError) as error:
        raise Rejected(f"is no Butler zip: {' '.join(str(error).split())}", str(file)) from error


def member_observations(
    butler: Butler, file: ResourcePath, reader: HeaderReader, wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Observation]:
    """Read the headers of a zip's members, and nothing else of them.

    Parameters
    ----------
    butler, file
        The zip.
    reader
        Whose raws these are.
    wanted
        Exposures and detectors whose headers are of interest.

    Returns
    -------
    observations
        By exposure and detector.
    """
    index = ZipIndex.from_zip_file(file)
    by_id = {ref.id: ref for ref in index.refs.to_refs(universe=butler.dimensions)}
    observations: dict[tuple[int, int], Observation] = {}
    with (
        file.open("rb") as stream,
        zipfile.ZipFile(stream) as members,
        tempfile.TemporaryDirectory(prefix="headers-") as folder,
    ):
        head = Path(folder) / "head.fits"
        for path, information in index.artifact_map.items():
            for ref in (by_id[dataset_id] for dataset_id in information.ids):
                key = (int(cast(int, ref.dataId["exposure"])), int(cast(int, ref.dataId["detector"])))
                if key not in wanted:
                    continue
                with members.open(path) as member:
                    head.write_bytes(member.read(_HEADER_BYTES))
                observations[key] = reader.read_observation(ResourcePath(head))
    return observations


def _check(ref: DatasetRef, instrument: str, detectors: Collection[int]) -> None:
    if not {"exposure", "detector"} <= ref.dimensions.required:
        raise Rejected(f"holds {ref.datasetType.name}, which is no raw", f"zip with {ref.id}")
    if ref.dataId["instrument"] != instrument:
        raise Rejected(f"holds raws of {ref.dataId['instrument']}, but this site takes {instrument}", f"{ref.dataId}")
    if ref.dataId["detector"] not in detectors:
        raise Rejected(f"{instrument} has no detector {ref.dataId['detector']}", f"{ref.dataId}")
