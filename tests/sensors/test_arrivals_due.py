"""When a day_obs is ingested: quiet, or waited for too long; and once more when all is over."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from types import MappingProxyType

from arrivals.records import DayObsSummary
from arrivals.states import State
from sensors.due import PRODUCTS, Decision, DueIngest, Pace, due_ingests

NOW = dt.datetime(2026, 11, 2, 9, tzinfo=dt.UTC)
NIGHT = 20261101
TAG = str(NIGHT)
PACE = Pace(quiescent_s=60.0, longest_wait_s=300.0)
NOBODY: frozenset[str] = frozenset()


def summary(
    day_obs: int | None, due: int, quiet_s: float = 60.0, waited_s: float | None = None, now: dt.datetime = NOW
) -> DayObsSummary:
    """Of rows that came lastly so long ago; the first that is due came a while before, if that is said."""
    counts = MappingProxyType(defaultdict(int, {State.RECEIVED: due}))
    last = now - dt.timedelta(seconds=quiet_s)
    since = None if not due else last if waited_s is None else now - dt.timedelta(seconds=waited_s)
    return DayObsSummary(day_obs, counts, due, 0, last, 1, since)


def tags(decision: Decision) -> list[str]:
    return [one.tag for one in decision.due]


def test_day_obs_with_rows_due_is_ingested() -> None:
    assert tags(due_ingests([summary(NIGHT, 3), summary(None, 1)], NOBODY, NOW, PACE)) == [TAG, PRODUCTS]


def test_day_obs_that_still_receives_waits_to_be_quiet() -> None:
    assert tags(due_ingests([summary(NIGHT, 3, quiet_s=59.0)], NOBODY, NOW, PACE)) == []


def test_nothing_is_ingested_twice_at_a_time() -> None:
    both = [summary(NIGHT, 3), summary(20261102, 3, quiet_s=1.0, waited_s=1_000.0)]

    assert tags(due_ingests(both, frozenset({TAG, "20261102"}), NOW, PACE)) == []


def test_nothing_due_starts_nothing() -> None:
    assert due_ingests([summary(NIGHT, 0)], NOBODY, NOW, PACE) == Decision((), {})


def test_a_message_waits_no_longer_than_the_longest_wait_for_its_day_obs_to_be_quiet() -> None:
    almost = due_ingests([summary(NIGHT, 8, quiet_s=5.0, waited_s=299.0)], NOBODY, NOW, PACE)
    enough = due_ingests([summary(NIGHT, 8, quiet_s=5.0, waited_s=300.0)], NOBODY, NOW, PACE)

    assert almost == Decision((), {})
    assert enough.due == (DueIngest(TAG, arriving=True),)
    assert enough.arriving == {TAG: NOW.timestamp() - 5.0}


def test_a_day_obs_that_is_quiet_is_not_said_to_be_arriving_however_long_it_waited() -> None:
    decision = due_ingests([summary(NIGHT, 8, quiet_s=61.0, waited_s=900.0)], NOBODY, NOW, PACE)

    assert decision == Decision((DueIngest(TAG),), {})


def test_what_has_no_partition_is_ingested_after_the_longest_wait_and_not_remembered() -> None:
    busy = [summary(None, 1, quiet_s=1.0, waited_s=400.0), summary(20190101, 1, quiet_s=1.0, waited_s=400.0)]

    decision = due_ingests(busy, NOBODY, NOW, PACE, has_partition=lambda tag: tag == TAG)

    assert decision == Decision((DueIngest(PRODUCTS),), {})


def test_a_day_obs_that_was_ingested_while_arriving_is_asked_for_once_more_when_it_is_quiet() -> None:
    heard_at = NOW.timestamp()
    still, over = NOW + dt.timedelta(seconds=59), NOW + dt.timedelta(seconds=60)

    waiting = due_ingests([], NOBODY, still, PACE, arriving={TAG: heard_at})
    working = due_ingests([], frozenset({TAG}), over, PACE, arriving={TAG: heard_at})
    last = due_ingests([], NOBODY, over, PACE, arriving=working.arriving)

    assert waiting == working == Decision((), {TAG: heard_at})
    assert last == Decision((DueIngest(TAG),), {})
    assert due_ingests([], NOBODY, over, PACE, arriving=last.arriving) == Decision((), {})


def test_old_rows_that_wait_for_dimensions_do_not_make_a_day_obs_quiet() -> None:
    waiting_for_long = summary(NIGHT, 0, quiet_s=5_000.0)

    decision = due_ingests([waiting_for_long], NOBODY, NOW, PACE, arriving={TAG: NOW.timestamp() - 10.0})

    assert decision == Decision((), {TAG: NOW.timestamp() - 10.0})


def test_a_night_with_an_exposure_every_40_s_is_ingested_every_few_minutes_and_once_at_its_end() -> None:
    """Each message is asked for within the longest wait and a tick; runs take a minute; the night lasts an hour."""
    end_s, tick_s, run_s, between_s = 3_600, 30, 60, 40
    unasked: list[int] = []
    remembered: dict[str, float] = {}
    asked: list[tuple[int, bool]] = []
    running_until, longest = 0, 0
    for second in range(0, end_s + 600, 10):
        if second < end_s and second % between_s == 0:
            unasked.append(second)
        if second % tick_s:
            continue
        now = NOW + dt.timedelta(seconds=second)
        ages = [second - at for at in unasked]
        found = [summary(NIGHT, len(ages), quiet_s=min(ages), waited_s=max(ages), now=now)] if ages else []
        running = frozenset({TAG}) if second < running_until else NOBODY
        decision = due_ingests(found, running, now, PACE, arriving=remembered)
        remembered = dict(decision.arriving)
        for one in decision.due:
            asked.append((second, one.arriving))
            longest = max([longest, *ages])
            unasked, running_until = [], second + run_s

    assert unasked == []
    assert longest <= PACE.longest_wait_s + tick_s
    assert [arriving for _, arriving in asked] == [True] * (len(asked) - 1) + [False]
    assert 10 <= len(asked) <= 13
