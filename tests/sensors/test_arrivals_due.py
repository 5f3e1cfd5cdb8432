from __future__ import annotations

import datetime as dt
from collections import defaultdict
from types import MappingProxyType

from arrivals.records import DayObsSummary
from arrivals.states import State
from sensors.arrivals import due_ingests

NOW = dt.datetime(2026, 11, 2, 9, tzinfo=dt.UTC)


def summary(day_obs: int | None, due: int, quiet_s: float = 60.0) -> DayObsSummary:
    counts = MappingProxyType(defaultdict(int, {State.RECEIVED: due}))
    return DayObsSummary(day_obs, counts, due, 0, NOW - dt.timedelta(seconds=quiet_s), 1)


def test_day_obs_with_rows_due_is_ingested() -> None:
    assert due_ingests([summary(20261101, 3), summary(None, 1)], frozenset(), NOW, 10.0) == ["20261101", "products"]


def test_day_obs_that_still_receives_waits_to_be_quiet() -> None:
    assert due_ingests([summary(20261101, 3, quiet_s=2.0)], frozenset(), NOW, 10.0) == []


def test_nothing_is_ingested_twice_at_a_time() -> None:
    assert due_ingests([summary(20261101, 3)], frozenset({"20261101"}), NOW, 10.0) == []


def test_nothing_due_starts_nothing() -> None:
    assert due_ingests([summary(20261101, 0)], frozenset(), NOW, 10.0) == []
