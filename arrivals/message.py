"""A Hermes message: what Rucio says about one transfer, read strictly where it matters and tolerantly elsewhere.

Belongs here: the pure function from the bytes of a Kafka message to a frozen value, with every oddity that facilities
have seen. Doesn't: the values (`arrivals.announcement`), reading Kafka (`arrivals.drain`), remembering messages
(`arrivals.ledger`), or looking at the files they announce.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from arrivals.announcement import HermesMessage, Kind, Sidecar
from resources.errors import Rejected

ARRIVAL_EVENT = "transfer-done"
"""The only event that announces a file; all others are counted."""

MAX_MESSAGE_BYTES = 2**20
"""Anything larger is no Hermes message: real ones have about 2 kB."""

MAX_TEXT_BYTES = 1_024
"""Longest scope, name or URL that is believed, in UTF-8: a DID's two make an entry of a database's index."""

MAX_LABEL_BYTES = 256
"""Longest name of an RSE or type of event, likewise: two and one of them make an entry."""

MAX_DATA_ID_BYTES = 1_024
"""Longest data ID, written as ``name=value,…``: what a row waits for is a part of it, and is looked up."""

MAX_COUNT = 2**43
"""Largest number of bytes or seconds that is believed: 8 TiB, so that a night's sum fits in a database's integer."""

_INT64 = 2**63
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Times before it come from clocks and fields that were never set."""

_ABSENT = frozenset({"", "None", "none", "null", "NULL"})
_DECLARED = {
    "data_product": Kind.PRODUCT,
    "raw_file": Kind.RAW,
    "zip_file": Kind.ZIP,
    "dim_file": Kind.DIMENSIONS,
}
_UNDECLARED = (None, 1, "1", *_ABSENT)
_DIMENSIONS_NAME = re.compile(r"_dimensions(\.\d+)?\.ya?ml$")
_DAY = r"(?<!\d)((?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))"
_EXPOSURE_IN_NAME = re.compile(_DAY + r"(?:[_-]0?)?(\d{5})(?!\d)")
_DAY_OF_NUMBER = re.compile(_DAY + r"\d{5}$")
_DATETIME_CALL = re.compile(r"^datetime\.datetime\(([\d, ]{1,60}?)(?:,\s*tzinfo=[\w.]+)?\)$")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ADLER32 = re.compile(r"^[0-9a-fA-F]{1,8}$")
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def parse_message(value: bytes | None) -> HermesMessage:
    """Read one message.

    Parameters
    ----------
    value
        The message as Kafka carries it; none is a tombstone.

    Returns
    -------
    message
        What it announces; events that announce no file come back with the kind ``OTHER_EVENT``.

    Raises
    ------
    resources.errors.Rejected
        It can't be understood, and the one line says why. Nothing else is ever raised.
    """
    event = _json_object(value)
    event_type = _text(event, "event_type", needed=True, most=MAX_LABEL_BYTES).lower()
    payload = event.get("payload")
    if isinstance(payload, str):
        payload = _loads(payload, "payload")
    if not isinstance(payload, dict):
        raise Rejected(f"payload is {_named(payload)}, not an object", "payload")
    is_arrival = event_type == ARRIVAL_EVENT
    name = _text(payload, "name", needed=is_arrival)
    kind, sidecar = _kind_and_sidecar(payload, name) if is_arrival else (Kind.OTHER_EVENT, None)
    day_obs, exposure, detector = _when_and_where(kind, name, sidecar)
    rse = _text(payload, "rse", most=MAX_LABEL_BYTES)
    return HermesMessage(
        event_type=event_type,
        kind=kind,
        scope=_text(payload, "scope", needed=is_arrival),
        name=name,
        src_rse=_text(payload, "src-rse", most=MAX_LABEL_BYTES) or rse,
        dst_rse=_text(payload, "dst-rse", most=MAX_LABEL_BYTES),
        url=_text(payload, "dst-url", needed=is_arrival),
        bytes=_count(payload, "bytes") if "bytes" in payload else _count(payload, "file-size"),
        adler32=_adler32(payload),
        duration_s=_count(payload, "duration"),
        created_at=_time(event.get("created_at")) or _time(payload.get("created_at")),
        submitted_at=_time(payload.get("submitted_at")),
        started_at=_time(payload.get("started_at")),
        transferred_at=_time(payload.get("transferred_at")),
        day_obs=day_obs,
        exposure=exposure,
        detector=detector,
        sidecar=sidecar,
    )


def parse_sidecar(value: object) -> Sidecar | None:
    """Read what ``rubin_sidecar`` holds: a dataset reference, as an object or as JSON in a string; or nothing.

    Raises
    ------
    resources.errors.Rejected
        Something is there that is no dataset reference.
    """
    if isinstance(value, str):
        if value.strip() in _ABSENT:
            return None
        value = _loads(value, "rubin_sidecar")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Rejected(f"is {_named(value)}, not an object", "rubin_sidecar")
    dataset_type = value.get("datasetType")
    if not isinstance(dataset_type, dict):
        raise Rejected("lacks the object 'datasetType'", "rubin_sidecar")
    data_id = value.get("dataId")
    if isinstance(data_id, dict) and isinstance(data_id.get("dataId"), dict):
        data_id = data_id["dataId"]
    if not isinstance(data_id, dict):
        raise Rejected("lacks the object 'dataId'", "rubin_sidecar")
    return Sidecar(
        dataset_id=_uuid(value),
        dataset_type=_text(dataset_type, "name", needed=True),
        storage_class=_text(dataset_type, "storageClass", needed=True),
        dimensions=_dimensions(dataset_type),
        is_calibration=dataset_type.get("isCalibration") is True,
        data_id=_data_id(data_id),
        run=_text(value, "run", needed=True),
    )


def disbelief(message: HermesMessage, now: datetime, tolerance_s: float) -> str:
    """Why a message can't be true at this time, or nothing.

    Its file may be as good as any other. But a clock that is wrong, here or there, would make days of the future into
    partitions that nobody gets rid of, so a person looks first, and has it tried again.

    Parameters
    ----------
    message
        What was understood.
    now
        The time here.
    tolerance_s
        How far clocks may differ.
    """
    latest = now + timedelta(seconds=tolerance_s)
    times = (message.created_at, message.submitted_at, message.started_at, message.transferred_at)
    told = max((time for time in times if time is not None), default=None)
    if told is not None and told > latest:
        return f"comes from the future: it tells of {told:%Y-%m-%d %H:%M:%S} UTC; is a clock wrong, there or here?"
    # A day_obs begins at noon UTC, and is named after the day before midnight in Chile: never later than UTC's date.
    if message.day_obs is not None and message.day_obs > int(f"{latest:%Y%m%d}"):
        return f"is of day_obs {message.day_obs}, which has not begun yet; is a clock wrong, there or here?"
    return ""


def day_obs_of(number: int) -> int | None:
    """day_obs of an exposure or visit whose number begins with its date (YYYYMMDD and five digits), else nothing."""
    found = _DAY_OF_NUMBER.match(str(number))
    return int(found[1]) if found else None


def _json_object(value: bytes | None) -> dict[str, Any]:
    if not value:
        raise Rejected("message is empty")
    if len(value) > MAX_MESSAGE_BYTES:
        raise Rejected(f"message has {len(value):,} bytes, and no Hermes message is larger than {MAX_MESSAGE_BYTES:,}")
    event = _loads(value, "message")
    if not isinstance(event, dict):
        raise Rejected(f"message is {_named(event)}, not an object")
    return event


def _loads(text: str | bytes, what: str) -> Any:
    """Read JSON; what the fast library refuses, the patient one may still read, or else explain."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Rejected(f"{what} is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise Rejected("is nested too deeply to be read", what) from error
    except ValueError as error:
        raise Rejected(f"is not JSON: {_printable(str(error))}", what) from error


def _kind_and_sidecar(payload: dict[str, Any], name: str) -> tuple[Kind, Sidecar | None]:
    declared = payload.get("rubin_butler")
    if not isinstance(declared, str | int | None):
        raise Rejected(f"is {_named(declared)}", "rubin_butler", f"known: {', '.join(_DECLARED)}")
    kind = _DECLARED.get(declared) if isinstance(declared, str) else None
    if kind is None and declared not in _UNDECLARED:
        raise Rejected(f"unknown value {_printable(str(declared))!r}", "rubin_butler", f"known: {', '.join(_DECLARED)}")
    if kind is None and _DIMENSIONS_NAME.search(name):
        kind = Kind.DIMENSIONS
    if kind is None and name.endswith(".zip"):
        kind = Kind.ZIP
    if kind in {Kind.DIMENSIONS, Kind.ZIP}:
        return kind, None
    sidecar = parse_sidecar(payload.get("rubin_sidecar"))
    if kind is None and sidecar is not None:
        kind = Kind.RAW if sidecar.dataset_type == "raw" else Kind.PRODUCT
    if kind is None:
        raise Rejected("rubin_butler doesn't say what this is, and there is no rubin_sidecar", name)
    if kind is Kind.PRODUCT and sidecar is None:
        raise Rejected("a product without rubin_sidecar can't be named in the Butler", name)
    return kind, sidecar


def _when_and_where(kind: Kind, name: str, sidecar: Sidecar | None) -> tuple[int | None, int | None, int | None]:
    """day_obs, exposure and detector, from the data ID where there is one, else from the file's name."""
    if sidecar is not None:
        numbers = {key: value for key, value in sidecar.data_id if isinstance(value, int)}
        exposure, detector, day_obs = numbers.get("exposure"), numbers.get("detector"), numbers.get("day_obs")
        dated = exposure if exposure is not None else numbers.get("visit")
        if day_obs is None and dated is not None:
            day_obs = day_obs_of(dated)
        return day_obs, exposure, detector
    found = None if kind is Kind.OTHER_EVENT else _EXPOSURE_IN_NAME.search(name.rsplit("/", maxsplit=1)[-1])
    if found is None:
        return None, None, None
    return int(found[1]), int(found[1] + found[2]), None


def _text(values: dict[str, Any], key: str, *, needed: bool = False, most: int = MAX_TEXT_BYTES) -> str:
    value = values.get(key)
    if isinstance(value, str) and value not in _ABSENT:
        trouble = _trouble_with(value, most)
        if not trouble:
            return value
        if needed:
            raise Rejected(trouble, key)
        return ""
    if needed:
        raise Rejected("is missing" if value is None or isinstance(value, str) else f"is {_named(value)}", key)
    return ""


def _count(payload: dict[str, Any], key: str) -> int | None:
    value = payload.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < MAX_COUNT else None


def _adler32(payload: dict[str, Any]) -> str | None:
    value = payload.get("checksum-adler")
    if not isinstance(value, str) or value in _ABSENT:
        return None
    if not _ADLER32.match(value):
        raise Rejected(f"{_printable(value)!r} is no adler32", "checksum-adler")
    return value.lower().zfill(8)


def _time(value: object) -> datetime | None:
    """A time in UTC that can be true; Hermes writes ISO, and in places Python's own ``datetime.datetime(…)``."""
    if not isinstance(value, str):
        return None
    call = _DATETIME_CALL.match(value) if value.startswith("datetime") else None
    try:
        numbers: Any = map(int, call[1].split(",")) if call else None
        time = datetime(*numbers) if numbers else datetime.fromisoformat(value)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        return time if time >= _EARLIEST else None
    except (ValueError, TypeError, OverflowError):
        return None


def _uuid(sidecar: dict[str, Any]) -> str:
    text = _text(sidecar, "id", needed=True).lower()
    if not _UUID.match(text):
        raise Rejected(f"{text!r} is no dataset id", "rubin_sidecar")
    return text


def _dimensions(dataset_type: dict[str, Any]) -> tuple[str, ...]:
    value = dataset_type.get("dimensions")
    if isinstance(value, dict):
        value = value.get("names")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Rejected("datasetType lacks its list of dimensions", "rubin_sidecar")
    return tuple(_key(item) for item in value)


@lru_cache(maxsize=1_024)  # there are few dimensions, and they are named in every message
def _key(value: str) -> str:
    if _size(value) > MAX_LABEL_BYTES or not value.isidentifier():
        raise Rejected(f"{_printable(value)!r} is no dimension", "rubin_sidecar")
    return value


def _data_id(values: dict[str, object]) -> tuple[tuple[str, int | str], ...]:
    data_id = tuple(sorted((_key(key), _data_id_value(key, value)) for key, value in values.items()))
    size = sum(_size(f"{key}={value},") for key, value in data_id)
    if size > MAX_DATA_ID_BYTES:
        raise Rejected(f"the data ID has {size:,} bytes, more than {MAX_DATA_ID_BYTES:,}", "rubin_sidecar")
    return data_id


def _data_id_value(key: str, value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64:
        return value
    if not isinstance(value, str):
        raise Rejected(f"the data ID's {key} is {_named(value)}", "rubin_sidecar")
    if not _is_clean(value):
        raise Rejected(f"the data ID's {key} is unprintable: {_printable(value)}", "rubin_sidecar")
    return value


def _named(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "a truth value"}
    return names.get(type(value), "a number out of range")


def _trouble_with(text: str, most: int) -> str:
    """Why a text isn't believed, or nothing."""
    size = _size(text)
    if size > most:
        return f"has {size:,} bytes, more than {most:,}: {_printable(text)}"
    return "" if _is_clean(text) else f"is unprintable: {_printable(text)}"


def _size(text: str) -> int:
    """Bytes in UTF-8, which is what indexes of databases have room for."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _is_clean(text: str) -> bool:
    """Whether a text is safe in databases, logs and terminals; ``isprintable`` decides nearly all of them, and fast."""
    return text.isprintable() or not _UNPRINTABLE.search(text)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text[:80])
