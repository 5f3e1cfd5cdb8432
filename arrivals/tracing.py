"""What became of one message in the Butler: the datasets that are there because of it.

Belongs here: looking up a row's datasets. Doesn't: the row itself (`arrivals.ledger`), or printing (`commands`).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from lsst.daf.butler import Butler, DatasetRef, MissingCollectionError, MissingDatasetTypeError
from lsst.pipe.base import Instrument

from arrivals.announcement import Kind
from arrivals.instruments import site_instrument
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


def raw_dataset_type(instrument: Instrument) -> str:
    """Name of an instrument's raws.

    Parameters
    ----------
    instrument
        Whose.
    """
    return instrument.raw_definition[0] if instrument.raw_definition else "raw"
