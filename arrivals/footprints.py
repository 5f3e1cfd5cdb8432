"""Raws that are in the Butler, with those of their headers that the definition of their visits asks for.

Belongs here: which headers of raws in a zip, or of raws that came before, are read, and what is said of those that
can't be. Doesn't: reading one (`arrivals.raws`, `arrivals.zips`), or what is made of it (`arrivals.visits`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from lsst.daf.butler import Butler, DatasetRef, MissingCollectionError, MissingDatasetTypeError
from lsst.pipe.base import Instrument
from lsst.resources import ResourcePath

from arrivals.files import Arrived
from arrivals.instruments import raw_dataset_type
from arrivals.raws import IngestedRaw, Observation, header_reader, read_header, unreadable
from arrivals.zips import ZipMember, member_observations
from resources.errors import Retriable

_NAMED_MEMBERS = 5
"""So many raws whose headers can't be read are named in a remark."""

_IN_ZIP = "zip-path="

type Pair = tuple[int, int]
"""An exposure and a detector."""

type Needs = Callable[[Collection[Pair]], Collection[Pair]]
"""Of pairs of exposure and detector, those whose headers are asked for (`arrivals.visits.VisitDefinition`)."""


def in_zip(
    file: ResourcePath, raws: list[IngestedRaw], members: Sequence[ZipMember], instrument: Instrument, needs: Needs
) -> tuple[list[IngestedRaw], str]:
    """Read those headers of a zip's members that are asked for.

    Parameters
    ----------
    file, raws, members
        The zip, what is in the Butler because of it, and where that is in it.
    instrument
        The site's.
    needs
        Says which headers.

    Returns
    -------
    raws, remark
        With their headers, and which of these can't be read.
    """
    wanted = needs({(raw.exposure, raw.detector) for raw in raws})
    if not wanted:
        return raws, ""
    asked = [member for member in members if (member.exposure, member.detector) in wanted]
    observations, unread = member_observations(file, header_reader(instrument), asked)
    with_headers = [replace(raw, observation=observations.get((raw.exposure, raw.detector))) for raw in raws]
    return with_headers, _remark(unread, f"its {len(raws)} members")


def in_butler(
    butler: Butler, instrument: Instrument, exposures: Mapping[int, int], needs: Needs
) -> tuple[list[IngestedRaw], str]:
    """Find the raws of some exposures that came before, and read those of their headers that are asked for.

    Parameters
    ----------
    butler
        Where they are.
    instrument
        The site's.
    exposures
        day_obs by exposure.
    needs
        Says which headers.

    Returns
    -------
    raws, remark
        With their headers, and which of these can't be read.

    Raises
    ------
    resources.errors.Retriable
        A header can't be read now.
    """
    refs = {_pair(ref): ref for ref in _raws_of(butler, instrument, exposures)}
    wanted = needs(refs.keys())
    observations, unread = _read(butler, instrument, [refs[pair] for pair in wanted]) if wanted else ({}, {})
    raws = [IngestedRaw(*pair, exposures[pair[0]], observations.get(pair)) for pair in sorted(refs)]
    return raws, _remark(unread, f"the {len(raws)} raws that came before")


def _raws_of(butler: Butler, instrument: Instrument, exposures: Iterable[int]) -> list[DatasetRef]:
    name, run = raw_dataset_type(instrument), instrument.makeDefaultRawIngestRunName()
    try:
        with butler.query() as query:
            chosen = query.expression_factory.exposure.in_iterable(exposures)
            return list(query.where(chosen, instrument=instrument.getName()).datasets(name, run))
    except (MissingDatasetTypeError, MissingCollectionError):
        return []


def _read(
    butler: Butler, instrument: Instrument, refs: Sequence[DatasetRef]
) -> tuple[dict[Pair, Observation], dict[Pair, str]]:
    reader = header_reader(instrument)
    observations: dict[Pair, Observation] = {}
    unread: dict[Pair, str] = {}
    zips: dict[ResourcePath, list[ZipMember]] = {}
    for ref, uris in butler.get_many_uris(refs).items():
        uri = cast(ResourcePath, uris.primaryURI)
        if uri.unquoted_fragment.startswith(_IN_ZIP):
            member = ZipMember(ref, uri.unquoted_fragment.removeprefix(_IN_ZIP))
            zips.setdefault(uri.replace(fragment=""), []).append(member)
            continue
        try:
            observations[_pair(ref)] = read_header(reader, Arrived(uri))
        except Exception as error:  # whatever a damaged file does, it is this raw's trouble
            cause = unreadable(uri, error)
            if isinstance(cause, Retriable):
                raise cause from error
            unread[_pair(ref)] = cause.what
    for file, members in zips.items():
        found, lost = member_observations(file, reader, members)
        observations |= found
        unread |= lost
    return observations, unread


def _pair(ref: DatasetRef) -> Pair:
    return int(cast(int, ref.dataId["exposure"])), int(cast(int, ref.dataId["detector"]))


def _remark(unread: Mapping[Pair, str], of_what: str) -> str:
    if not unread:
        return ""
    named = ", ".join(f"{detector} ({why})" for (_, detector), why in sorted(unread.items())[:_NAMED_MEMBERS])
    return f"the headers of {len(unread)} of {of_what} can't be read: detector {named}"
