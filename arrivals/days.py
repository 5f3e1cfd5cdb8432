"""What the ledger's rows say of each day_obs and each exposure, summed up by the database.

Belongs here: the sums. Doesn't: what should have come (`arrivals.completeness`), or sums over anything but the sky's
calendar (`arrivals.overview`).
"""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from sqlalchemy import ColumnElement, Connection, func, select

from arrivals.announcement import Kind
from arrivals.records import DayObsSummary, ExposureRows
from arrivals.states import State
from arrivals.tables import MESSAGES, due_since, is_due, is_of


def day_obs_summaries(
    connection: Connection, rows: ColumnElement[bool], now: datetime
) -> dict[int | None, DayObsSummary]:
    """Sum up rows by their day_obs.

    Parameters
    ----------
    connection
        To the ledger's database.
    rows
        Which rows.
    now
        What is due is due by this time.

    Returns
    -------
    summaries
        By day_obs; the key none holds what belongs to no day_obs.
    """
    time, due = MESSAGES.c.received_at.type, is_due(now)
    counted = (
        MESSAGES.c.day_obs,
        MESSAGES.c.state,
        func.count(),
        func.count().filter(due),
        func.coalesce(func.sum(MESSAGES.c.bytes), 0),
        func.max(MESSAGES.c.received_at, type_=time),
        func.max(MESSAGES.c.id),
        func.min(due_since(), type_=time).filter(due),
    )
    summaries: dict[int | None, DayObsSummary] = {}
    query = select(*counted).where(rows).group_by(MESSAGES.c.day_obs, MESSAGES.c.state)
    for day_obs, state, count, due_count, size, last_received_at, newest, oldest_due_at in connection.execute(query):
        counts = dict.fromkeys(State, 0) | {State(state): count}
        one = DayObsSummary(day_obs, counts, due_count, int(size), last_received_at, newest, oldest_due_at)
        summaries[day_obs] = summaries[day_obs].merged(one) if day_obs in summaries else one
    return summaries


def exposure_rows(connection: Connection, day_obs: int, instrument: str) -> list[ExposureRows]:
    """Sum up what was announced for each exposure of a day_obs, in the order of exposures.

    Parameters
    ----------
    connection
        To the ledger's database.
    day_obs
        Which.
    instrument
        Whose: what was refused because it is another's makes no exposure.
    """
    last_received_at = func.max(MESSAGES.c.received_at, type_=MESSAGES.c.received_at.type)
    query = (
        select(MESSAGES.c.exposure, MESSAGES.c.state, func.count(), last_received_at)
        .where(MESSAGES.c.day_obs == day_obs, MESSAGES.c.exposure.is_not(None))
        .where(MESSAGES.c.kind.in_({Kind.DIMENSIONS, Kind.RAW, Kind.ZIP}), is_of(instrument))
        .group_by(MESSAGES.c.exposure, MESSAGES.c.state)
        .order_by(MESSAGES.c.exposure)
    )
    found: dict[int, ExposureRows] = {}
    for exposure, state, count, received_at in connection.execute(query):
        before = found.get(exposure, ExposureRows(exposure, dict.fromkeys(State, 0), received_at))
        counts = MappingProxyType({**before.counts, State(state): count})
        found[exposure] = ExposureRows(exposure, counts, max(before.last_received_at, received_at))
    return list(found.values())
