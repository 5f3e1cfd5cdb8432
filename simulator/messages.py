"""Hermes messages: how Rucio tells a site that a file has arrived.

Belongs here: the message's format, and the disorder in which messages come. Doesn't: the files
(`simulator.delivery`), or Kafka.
"""

from __future__ import annotations

import enum
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

TRANSFER_DONE = "transfer-done"
TRANSFER_SUBMITTED = "transfer-submitted"

TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"
FIRST_TRANSFER = datetime(2026, 11, 2, 3, 1)
TRANSFER_S = 4
QUEUE_S = 30


class FileKind(enum.StrEnum):
    """What a file is to the Butler: the values of ``rubin_butler``."""

    PRODUCT = "data_product"
    RAW = "raw_file"
    ZIP = "zip_file"
    DIMENSIONS = "dim_file"


@dataclass(frozen=True)
class DeliveredFile:
    """A file that was transferred.

    Parameters
    ----------
    kind
        What it is.
    scope, name
        Its Rucio data identifier; it lies at ``<scope>/<name>`` below the site's Rucio folder.
    size
        Bytes.
    adler32, md5
        Checksums in hexadecimal digits.
    sidecar
        JSON of its DatasetRef; empty for zips and dimensions.
    """

    kind: FileKind
    scope: str
    name: str
    size: int
    adler32: str
    md5: str
    sidecar: str = ""


@dataclass(frozen=True)
class Announcement:
    """How a delivery is announced.

    Parameters
    ----------
    destination_rse
        Name of the site's storage; with the scope it makes the topic.
    prefix
        URL below which the site stores ``<scope>/<name>``.
    source_rse, source_prefix
        The same at the far side.
    duplicate_share
        Share of messages that come twice.
    submitted_share
        Share of files for which the submission of the transfer is announced too.
    """

    destination_rse: str = "LAPTOP"
    prefix: str = "root://xrootd.laptop:1094//rucio"
    source_rse: str = "SIMSOURCE"
    source_prefix: str = "root://xrootd.simsource:1094//rucio"
    duplicate_share: float = 0.05
    submitted_share: float = 0.05


class Message(NamedTuple):
    """One Kafka message."""

    topic: str
    key: bytes
    value: bytes


def announce(files: Sequence[DeliveredFile], how: Announcement, rng: np.random.Generator) -> Iterator[Message]:
    """Announce files in disorder, some of them twice, among events that are no arrivals.

    Parameters
    ----------
    files
        What was transferred.
    how
        Names and shares.
    rng
        Source of the disorder.

    Yields
    ------
    message : `Message`
        At least one ``transfer-done`` for each file.
    """
    count = len(files)
    events = [(TRANSFER_DONE, index) for index in range(count)]
    for event, share in ((TRANSFER_DONE, how.duplicate_share), (TRANSFER_SUBMITTED, how.submitted_share)):
        chosen = rng.choice(count, size=int(np.ceil(share * count)), replace=False)
        events += [(event, int(index)) for index in chosen]
    for position in rng.permutation(len(events)):
        event, index = events[position]
        file = files[index]
        yield Message(
            topic=f"{how.destination_rse}-{file.scope}",
            key=f"{file.scope}:{file.name}".encode(),
            value=json.dumps(_event(event, file, how, index)).encode(),
        )


def _event(event: str, file: DeliveredFile, how: Announcement, index: int) -> dict[str, object]:
    """One event in Hermes' format; a file's events differ in nothing but what they tell."""
    done = event == TRANSFER_DONE
    created = FIRST_TRANSFER + timedelta(seconds=index)
    submitted = created + timedelta(seconds=QUEUE_S)
    started = submitted + timedelta(seconds=1)
    transferred = started + timedelta(seconds=TRANSFER_S)
    request = _identifier("request", file)
    transfer = str(uuid.UUID(_identifier("transfer", file)))
    payload = {
        "activity": "User Subscriptions",
        "request-id": request,
        "duration": TRANSFER_S if done else None,
        "checksum-adler": file.adler32,
        "checksum-md5": file.md5,
        "file-size": file.size,
        "bytes": file.size,
        "guid": None,
        "previous-request-id": None,
        "protocol": "root",
        "scope": file.scope,
        "name": file.name,
        "dataset": None,
        "datasetScope": None,
        "src-type": "DISK",
        "src-rse": how.source_rse,
        "src-url": f"{how.source_prefix}/{file.scope}/{file.name}",
        "dst-type": "DISK",
        "dst-rse": how.destination_rse,
        "dst-url": f"{how.prefix}/{file.scope}/{file.name}",
        "reason": "",
        "transfer-endpoint": "https://fts:8446",
        "transfer-id": transfer,
        "transfer-link": None,
        "created_at": created.strftime(TIME_FORMAT),
        "submitted_at": submitted.strftime(TIME_FORMAT),
        "started_at": str(started) if done else None,
        "transferred_at": str(transferred) if done else None,
        "tool-id": "rucio-conveyor",
        "account": "root",
        "datatype": None,
        "transfer_link": f"https://fts:8449/fts3/ftsmon/#/job/{transfer}",
        "rubin_butler": file.kind.value,
        "rubin_sidecar": file.sidecar,
    }
    announced = (transferred if done else submitted) + timedelta(seconds=QUEUE_S)
    return {"event_type": event, "payload": payload, "created_at": announced.strftime(TIME_FORMAT)}


def _identifier(purpose: str, file: DeliveredFile) -> str:
    """Thirty-two hexadecimal digits that depend on the file's name and purpose alone."""
    return hashlib.blake2s(f"{purpose}\0{file.scope}:{file.name}".encode(), digest_size=16).hexdigest()
