"""Messages for tests, as Hermes writes them."""

from __future__ import annotations

import json
from typing import Any

SIDECAR = {
    "id": "bad79e54-31ae-5403-984b-22c992ff6eec",
    "datasetType": {"name": "raw", "storageClass": "Exposure", "dimensions": ["instrument", "detector", "exposure"]},
    "dataId": {"dataId": {"instrument": "LATISS", "detector": 0, "exposure": 2025011300004, "day_obs": 20250113}},
    "run": "LATISS/raw/all",
}

_HYPHENATED = {"dst_url", "checksum_adler", "src_rse", "dst_rse"}


def event(event_type: str = "transfer-done", **payload: Any) -> dict[str, Any]:
    """An event of a raw's transfer, with other values in its payload where given; ``...`` leaves a key out."""
    values = {
        "checksum-adler": "8b1bdc93",
        "duration": 4,
        "bytes": 14912640,
        "scope": "test",
        "name": "something/AT_O_20250113_000004_R00_S00.fits",
        "src-rse": "XRD1",
        "dst-rse": "XRD5",
        "dst-url": "root://xrd5:1098//rucio/AT_O_20250113_000004_R00_S00.fits",
        "created_at": "2025-03-20 20:14:31.396678",
        "submitted_at": "2025-03-20 20:14:56.715866",
        "started_at": "2025-03-20 20:15:05",
        "transferred_at": "2025-03-20 20:15:09",
        "rubin_butler": "raw_file",
        "rubin_sidecar": json.dumps(SIDECAR),
        **{key.replace("_", "-") if key in _HYPHENATED else key: v for key, v in payload.items()},
    }
    kept = {key: value for key, value in values.items() if value is not ...}
    return {"event_type": event_type, "payload": kept, "created_at": "2025-03-20 20:15:43.153695"}


def encoded(event_type: str = "transfer-done", **payload: Any) -> bytes:
    """`event`, as Kafka carries it."""
    return json.dumps(event(event_type, **payload)).encode()
