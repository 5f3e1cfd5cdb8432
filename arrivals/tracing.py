"""What became of messages in the Butler: the datasets that are there because of them, or are there no more.

Belongs here: looking up rows' datasets. Doesn't: the rows themselves (`arrivals.ledger`), or printing (`commands`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast
from uuid import UUID

from lsst.daf.butler import Butler, DatasetRef, MissingCollectionError, MissingDatasetTypeError
from lsst.pipe.base import Instrument

from arrivals.announcement import Kind, Sidecar
from arrivals.instruments import raw_dataset_type, site_instrument
from arrivals.message import parse_sidecar
from arrivals.records import LedgerRow
from resources.site import ArrivalSettings


def datasets_of(butler: Butler, settings: ArrivalSettings, row: LedgerRow) -> list[DatasetRef]:
    """Datasets in the Butler that a message announced, in the order of detectors.

    Parameters
    ----------
    butler, settings
        The site's.
    row
        The message's; dimension records are no datasets, so those have none.

    Raises
    ------
    resources.errors.SiteFault
        The instrument isn't to be had here.
    """
    sidecar = parse_sidecar(row.sidecar)
    if sidecar is not None:
        found = butler.get_dataset(UUID(sidecar.dataset_id))
        if found is not None:
            return [found]
    if row.kind not in {Kind.RAW, Kind.ZIP} or row.exposure is None:
        return []
    instrument = site_instrument(settings, butler.registry)
    wanted: dict[str, Any] = {"instrument": instrument.getName(), "exposure": row.exposure}
    if row.kind is Kind.RAW and row.detector is not None:
        wanted["detector"] = row.detector
    try:
        refs = butler.query_datasets(
            raw_dataset_type(instrument),
            collections=instrument.makeDefaultRawIngestRunName(),
            limit=None,
            explain=False,
            **wanted,
        )
    except (MissingDatasetTypeError, MissingCollectionError):
        return []
    return sorted(refs, key=lambda ref: ref.dataId["detector"])


def removed(butler: Butler, instrument: Instrument, rows: Collection[LedgerRow]) -> frozenset[int]:
    """Of messages whose files were ingested before, those whose datasets aren't in the Butler any more.

    What has a sidecar is looked up by its dataset's id; zips and other raws by the exposure in their name, if the
    Butler knows it, and nothing of it may be left. Everything else is believed to be there.

    Parameters
    ----------
    butler, instrument
        The site's.
    rows
        Which; the number of queries doesn't depend on theirs.

    Returns
    -------
    row_ids
        The rows'.
    """
    ids = {row.row_id: UUID(Sidecar.from_json(row.sidecar).dataset_id) for row in rows if row.sidecar}
    exposures = {
        row.row_id: row.exposure
        for row in rows
        if row.row_id not in ids and row.kind in {Kind.RAW, Kind.ZIP} and row.exposure is not None
    }
    present = {ref.id for ref in butler.get_many_datasets(set(ids.values()))} if ids else set()
    emptied = _without_raws(butler, instrument, set(exposures.values())) if exposures else set()
    return frozenset(
        [
            *(row_id for row_id, dataset_id in ids.items() if dataset_id not in present),
            *(row_id for row_id, exposure in exposures.items() if exposure in emptied),
        ]
    )


def _without_raws(butler: Butler, instrument: Instrument, exposures: Collection[int]) -> set[int]:
    """Those exposures that the Butler knows, and of which it has no raws."""
    of_run = raw_dataset_type(instrument), instrument.makeDefaultRawIngestRunName()
    with butler.query() as query:
        chosen = query.where(query.expression_factory.exposure.in_iterable(exposures), instrument=instrument.getName())
        known = {cast(int, data_id["exposure"]) for data_id in chosen.data_ids(["exposure"])}
        try:
            with_raws = chosen.join_dataset_search(*of_run).data_ids(["exposure"])
            return known - {cast(int, data_id["exposure"]) for data_id in with_raws}
        except (MissingDatasetTypeError, MissingCollectionError):
            return known
