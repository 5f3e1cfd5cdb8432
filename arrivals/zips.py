"""Zips into the Butler: all detectors of an exposure at once.

A zip goes in whole or not at all: not if its index is no good, lists files that aren't in it, or names what this
Butler can't have. A member whose header can't be read keeps nothing out: it was so where the zip was made, the zip is
what was announced, and 204 good detectors have nothing to wait for. The zip's row is ingested, its reason names the
member, and the visit lacks that detector's region.

Belongs here: reading a zip's index and its members' headers, and the ingest of the whole. Doesn't: single files
(`arrivals.raws`), or visits (`arrivals.visits`).
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lsst.daf.butler import Butler, DatasetRef
from lsst.daf.butler.datastore import DatasetRefURIs
from lsst.daf.butler.datastores.file_datastore.retrieve_artifacts import ZipIndex
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.pipe.base import Instrument
from lsst.resources import ResourcePath

from arrivals.dimensions import dimension_key
from arrivals.exposures import KnownExposures
from arrivals.files import HEAD_BYTES, transfer_mode
from arrivals.instruments import raw_dataset_type
from arrivals.outcomes import AlreadyThere
from arrivals.raws import HeaderReader, IngestedRaw, Observation
from resources.errors import Rejected, Waiting


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A raw in a zip: its reference, and the name of its file in there."""

    ref: DatasetRef
    path: str

    @property
    def is_of_a_detector(self) -> bool:
        """Whether it is of one detector of one exposure."""
        return {"exposure", "detector"} <= self.ref.dimensions.required

    @property
    def exposure(self) -> int:
        """Its exposure."""
        return int(cast(int, self.ref.dataId["exposure"]))

    @property
    def detector(self) -> int:
        """Its detector."""
        return int(cast(int, self.ref.dataId["detector"]))


def read_members(butler: Butler, file: ResourcePath) -> list[ZipMember]:
    """What a zip's index lists.

    Raises
    ------
    resources.errors.Rejected
        It has no index, isn't a zip, holds nothing, or lacks what its index lists.
    """
    try:
        with file.open("rb") as stream, zipfile.ZipFile(stream) as members:
            index = ZipIndex.from_open_zip(members)
            names = set(members.namelist())
        refs = {ref.id: ref for ref in index.refs.to_refs(universe=butler.dimensions)}
        found = [
            ZipMember(refs[id_], path) for path, information in index.artifact_map.items() for id_ in information.ids
        ]
    except (zipfile.BadZipFile, EOFError, LookupError, ValueError, TypeError) as error:
        cause = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        raise Rejected(f"is no Butler zip: {' '.join(cause.split())}", str(file)) from error
    if not found:
        raise Rejected("holds no datasets", str(file))
    lacking = sorted({member.path for member in found} - names)
    if lacking:
        raise Rejected(f"lacks {len(lacking)} of the files that its index lists, such as {lacking[0]}", str(file))
    return found


def ingest_zip(
    butler: Butler, file: ResourcePath, members: Sequence[ZipMember], instrument: Instrument, known: KnownExposures
) -> list[IngestedRaw]:
    """Ingest a zip that ``Butler.retrieve_artifacts_zip`` made, whole or not at all; a second call changes nothing.

    Parameters
    ----------
    butler
        Where to.
    file
        The zip.
    members
        What is in it (`read_members`).
    instrument
        The site's.
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
        It holds what doesn't belong to this instrument, or what the Butler has in part from other files.
    arrivals.outcomes.AlreadyThere
        All of it is in the Butler from other files.
    """
    name: str = instrument.getName()
    as_raws = raw_dataset_type(instrument), instrument.makeDefaultRawIngestRunName()
    for member in members:
        _check(member, name, *as_raws, known.detectors)
    exposures = known.look_up({member.exposure for member in members})
    for member in members:
        if member.exposure not in exposures:
            key = dimension_key({"instrument": name, "exposure": member.exposure})
            raise Waiting("waits for its dimensions", key)
    # The Butler's own root needs no transfer, which its signature forbids and its datastore expects.
    transfer = cast(str, transfer_mode(butler, [file]))
    try:
        butler.ingest_zip(file, transfer=transfer)
    except (ConflictingDefinitionError, ValueError):
        there = butler.get_many_uris([member.ref for member in members], allow_missing=True)
        if not there:
            raise
        _compare_with(there.values(), file, len(members))
    return [
        IngestedRaw(member.exposure, member.detector, int(cast(int, exposures[member.exposure]["day_obs"])))
        for member in members
    ]


def member_observations(
    file: ResourcePath, reader: HeaderReader, members: Sequence[ZipMember]
) -> tuple[dict[tuple[int, int], Observation], dict[tuple[int, int], str]]:
    """Read the headers of some of a zip's members, and nothing else of them.

    Parameters
    ----------
    file
        The zip.
    reader
        Whose raws these are.
    members
        Whose headers are of interest.

    Returns
    -------
    observations, unreadable
        Headers, and what is wrong with those that can't be read, by exposure and detector.
    """
    observations: dict[tuple[int, int], Observation] = {}
    unreadable: dict[tuple[int, int], str] = {}
    with (
        file.open("rb") as stream,
        zipfile.ZipFile(stream) as archive,
        tempfile.TemporaryDirectory(prefix="headers-") as folder,
    ):
        head = Path(folder) / "head.fits"
        for member in members:
            key = member.exposure, member.detector
            try:
                with archive.open(member.path) as content:
                    head.write_bytes(content.read(HEAD_BYTES))
                observations[key] = reader.read_observation(ResourcePath(head))
            except Exception as error:  # whatever a damaged file does, it is this member's trouble
                unreadable[key] = " ".join(str(error).split()) or type(error).__name__
    return observations, unreadable


def _compare_with(there: Collection[DatasetRefURIs], file: ResourcePath, count: int) -> None:
    """Raise unless all datasets of a zip, of which the Butler has some, are there from this very zip."""
    zips = [str(uris.primaryURI.replace(fragment="")) for uris in there]
    others = [uri for uri in zips if uri != str(file)]
    if len(there) < count:
        raise Rejected(
            f"the Butler has {len(there)} of its {count} datasets from other files, such as {zips[0]}",
            str(file),
            "a zip goes in whole or not at all",
        )
    if others:
        raise AlreadyThere(f"the Butler has these datasets from other files, such as {others[0]}", str(file))


def _check(member: ZipMember, instrument: str, dataset_type: str, run: str, detectors: Collection[int]) -> None:
    ref = member.ref
    if ref.datasetType.name != dataset_type or not member.is_of_a_detector:
        raise Rejected(f"holds {ref.datasetType.name}, which is no raw", f"zip with {ref.id}")
    if ref.dataId["instrument"] != instrument:
        raise Rejected(f"holds raws of {ref.dataId['instrument']}, but this site takes {instrument}", f"{ref.dataId}")
    if ref.run != run:
        raise Rejected(f"holds raws of the run {ref.run}, but those of {instrument} belong in {run}", f"{ref.dataId}")
    if member.detector not in detectors:
        raise Rejected(f"{instrument} has no detector {member.detector}", f"{ref.dataId}")
