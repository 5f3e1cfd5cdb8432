"""What a Hermes message announces, as frozen values.

Belongs here: the nouns that `arrivals.message` makes and everything after it uses.
Doesn't: how they are read from JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

import orjson


class Kind(StrEnum):
    """What has come."""

    RAW = "raw"
    """One detector of one exposure, a FITS file."""

    ZIP = "zip"
    """All detectors of one exposure in a Butler zip."""

    DIMENSIONS = "dimensions"
    """Dimension records that others need."""

    PRODUCT = "product"
    """Any other dataset, one file, named by its sidecar."""

    OTHER_EVENT = "other_event"
    """No file has come: a transfer was submitted or failed, a replica was deleted."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A dataset reference as it travels beside its file.

    Parameters
    ----------
    dataset_id
        UUID, as text.
    dataset_type, storage_class, dimensions, is_calibration
        The dataset type's definition where it was made.
    data_id
        Names and values, by name.
    run
        RUN collection.
    """

    dataset_id: str
    dataset_type: str
    storage_class: str
    dimensions: tuple[str, ...]
    is_calibration: bool
    data_id: tuple[tuple[str, int | str], ...]
    run: str

    def number(self, dimension: str) -> int | None:
        """Value of a numbered dimension in the data ID, or nothing."""
        for name, value in self.data_id:
            if name == dimension:
                return value if isinstance(value, int) else None
        return None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what `to_json` wrote, believing it; `arrivals.message.parse_sidecar` reads what others wrote."""
        values = orjson.loads(text)
        dataset_type = values["datasetType"]
        return cls(
            dataset_id=values["id"],
            dataset_type=dataset_type["name"],
            storage_class=dataset_type["storageClass"],
            dimensions=tuple(dataset_type["dimensions"]),
            is_calibration=dataset_type["isCalibration"],
            data_id=tuple(values["dataId"]["dataId"].items()),
            run=values["run"],
        )

    def to_json(self) -> str:
        """The reference in the form of ``DatasetRef.to_json``; `from_json` reads it back."""
        return orjson.dumps(
            {
                "id": self.dataset_id,
                "datasetType": {
                    "name": self.dataset_type,
                    "storageClass": self.storage_class,
                    "dimensions": list(self.dimensions),
                    "isCalibration": self.is_calibration,
                },
                "dataId": {"dataId": dict(self.data_id)},
                "run": self.run,
            }
        ).decode()


@dataclass(frozen=True, slots=True)
class HermesMessage:
    """One message that was understood.

    Parameters
    ----------
    event_type
        Such as ``"transfer-done"``.
    scope, name
        The DID; empty for events without one.
    src_rse, dst_rse
        Where it came from and went to; empty if unknown.
    url
        Where the new replica is, as Rucio names it.
    bytes, adler32
        Size and checksum (eight hex digits) of the file, if announced.
    duration_s, created_at, submitted_at, started_at, transferred_at
        The transfer's times, UTC, if announced.
    day_obs, exposure, detector
        From the sidecar's data ID or the file's name, if they tell.
    sidecar
        The dataset reference of products and raws.
    """

    event_type: str
    kind: Kind
    scope: str
    name: str
    src_rse: str
    dst_rse: str
    url: str
    bytes: int | None
    adler32: str | None
    duration_s: int | None
    created_at: datetime | None
    submitted_at: datetime | None
    started_at: datetime | None
    transferred_at: datetime | None
    day_obs: int | None
    exposure: int | None
    detector: int | None
    sidecar: Sidecar | None
