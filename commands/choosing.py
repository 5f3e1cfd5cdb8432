"""How operators choose messages: by DID, exposure, day_obs, kind, reason and time; the same for every command.

Belongs here: options and how their values are read. Doesn't: what is done with the messages (`commands.ingest`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from arrivals.announcement import Kind
from arrivals.overview import Selection
from resources.errors import Rejected

LATEST_DAY_OBS = 99991231
LARGEST = 2**63 - 1
"""The largest number that the ledger's database knows."""

DayObs = Annotated[
    int | None, typer.Option("--day-obs", min=0, max=LATEST_DAY_OBS, help="only of this day_obs, YYYYMMDD")
]
Exposure = Annotated[int | None, typer.Option("--exposure", min=0, max=LARGEST, help="only of this exposure")]
OfKind = Annotated[Kind | None, typer.Option("--kind", help="only of this kind")]
Reason = Annotated[str | None, typer.Option("--reason", help="only with this in the reason, or in the cause as listed")]
Since = Annotated[str | None, typer.Option("--since", help="only received since: 2026-11-01, 2026-11-01T09:30, or 2h")]
Until = Annotated[str | None, typer.Option("--until", help="only received before, as for --since")]
Json = Annotated[bool, typer.Option("--json", help="for scripts")]

_PLACE = re.compile(r"([\w.-]+)\[(\d{1,9})\]@(\d{1,18})", re.ASCII)
_AGO = re.compile(r"(\d+)\s*(s|min|h|d|w)")
_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def choose(
    *,
    did: str | None = None,
    exposure: int | None = None,
    day_obs: int | None = None,
    kind: Kind | None = None,
    reason: str | None = None,
    since: str | None = None,
    until: str | None = None,
    now: datetime | None = None,
) -> Selection:
    """Make a selection of what an operator wrote.

    Parameters
    ----------
    did
        ``scope:name``, or a name alone.
    exposure, day_obs, kind, reason
        As written.
    since, until
        Times, or spans before now.
    now
        The time.
    """
    scope, name = split_did(did) if did is not None else (None, None)
    now = now or datetime.now(UTC)
    return Selection(
        scope=scope,
        name=name,
        exposure=exposure,
        day_obs=day_obs,
        kind=kind,
        reason=reason or None,
        since=time_of(since, now, "--since") if since else None,
        until=time_of(until, now, "--until") if until else None,
    )


def split_did(did: str) -> tuple[str | None, str]:
    """Scope and name of a DID; no scope where only a name was written.

    Parameters
    ----------
    did
        As Rucio writes it, or its name.

    Raises
    ------
    resources.errors.Rejected
        There is no name.
    """
    scope, colon, name = did.partition(":")
    if not colon:
        scope, name = "", scope
    if not name:
        raise Rejected("not a DID", did or "(empty)", "write it as scope:name, or the name alone")
    return scope or None, name


def place_in(text: str) -> tuple[str, int, int] | None:
    """Topic, partition and offset of a message's place in Kafka as lists show it, or nothing if it is none.

    Parameters
    ----------
    text
        Such as ``LANCS-raw[0]@17``.
    """
    found = _PLACE.fullmatch(text)
    return None if found is None else (found[1], int(found[2]), int(found[3]))


def time_of(text: str, now: datetime, option: str = "") -> datetime:
    """Read a time, in UTC unless it says otherwise.

    Parameters
    ----------
    text
        ISO 8601, or a span before now: 90s, 15min, 2h, 3d, 1w.
    now
        The time.
    option
        Where it was written.

    Raises
    ------
    resources.errors.Rejected
        It is neither.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return now - timedelta(seconds=int(ago[1]) * _UNITS_S[ago[2]])
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Rejected(f"{text!r} is no time", option, "write 2026-11-01, 2026-11-01T09:30 (UTC), or 2h") from error
