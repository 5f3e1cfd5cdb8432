"""Ids of rows tell their month and only grow; old months are retired whole, and what they held is still recognised."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrivals.ledger import Ledger
from arrivals.months import ROWS_A_MONTH, Retired, RetiredFile, month_after, month_at, month_of, next_id
from arrivals.records import Partition, Reception, Settlement
from arrivals.states import State
from tests.arrivals.test_ledger import PARTITION, received

TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


def record_at(ledger: Ledger, offset: int, time: datetime, state: State = State.INGESTED) -> int:
    """Record a message, settle it, and give its row's id."""
    ledger.record_batch([received(offset)], {PARTITION: offset + 1}, now=time)
    row = ledger.find()[-1]
    if state is not State.RECEIVED:
        ledger.settle([Settlement(row.row_id, state, "because")], now=time)
    return row.row_id


def test_a_month_is_that_of_universal_time():
    assert month_at(datetime(2026, 12, 31, 20, tzinfo=timezone(timedelta(hours=-5)))) == 202701


def test_after_december_comes_january():
    assert [month_after(month) for month in (202601, 202611, 202612)] == [202602, 202612, 202701]


@given(TIMES)
def test_the_first_row_of_a_month_says_so(time):
    assert month_of(next_id(None, time)) == month_at(time)


@given(st.lists(TIMES, min_size=2, max_size=20))
def test_ids_only_grow_even_if_the_clock_is_put_back(times):
    newest, ids = None, []
    for time in times:
        newest = next_id(newest, time)
        ids.append(newest)

    assert ids == sorted(set(ids))
    assert all(month_of(row_id) >= month_at(time) for row_id, time in zip(ids, times, strict=True))


@given(TIMES)
def test_a_month_ends_before_the_next_begins(time):
    month = month_at(time)

    assert month_of(month_after(month) * ROWS_A_MONTH - 1) in range(month, month_after(month))


def test_rows_are_numbered_by_the_month_in_which_they_came(ledger):
    first = record_at(ledger, 0, datetime(2026, 9, 30, 23, 59, tzinfo=UTC))
    second = record_at(ledger, 1, datetime(2026, 10, 1, tzinfo=UTC))

    assert (first, second) == (202609000000001, 202610000000001)


def test_old_months_without_anything_to_do_are_retired(ledger):
    record_at(ledger, 0, datetime(2026, 8, 5, tzinfo=UTC))
    record_at(ledger, 1, datetime(2026, 8, 6, tzinfo=UTC), State.QUARANTINED)
    record_at(ledger, 2, datetime(2026, 9, 5, tzinfo=UTC), State.WAITING)
    record_at(ledger, 3, datetime(2026, 10, 5, tzinfo=UTC))

    end = datetime(2026, 10, 31, tzinfo=UTC)
    retired = ledger.retire(end, now=end)

    assert retired == Retired(months=(202608,), rows=2, quarantined=1, kept=((202609, 1),))
    assert [row.offset for row in ledger.find()] == [2, 3]
    assert ledger.retire(end, now=end).rows == 0


def test_the_present_month_stays_whatever_is_asked_for(ledger):
    record_at(ledger, 0, datetime(2026, 8, 5, tzinfo=UTC))
    record_at(ledger, 1, datetime(2026, 9, 5, tzinfo=UTC))

    retired = ledger.retire(datetime(2030, 1, 1, tzinfo=UTC), now=datetime(2026, 9, 6, tzinfo=UTC))

    assert retired.months == (202608,)
    assert [row.offset for row in ledger.find()] == [1]


def test_what_was_retired_is_recognised_when_it_is_announced_again(ledger):
    record_at(ledger, 0, datetime(2026, 8, 5, tzinfo=UTC))
    record_at(ledger, 1, datetime(2026, 8, 5, tzinfo=UTC), State.QUARANTINED)
    dids = {("test", "file-0.fits"), ("test", "file-1.fits")}
    before = ledger.ingested_contents(dids)

    ledger.retire(datetime(2026, 9, 1, tzinfo=UTC), now=datetime(2026, 9, 1, tzinfo=UTC))

    assert ledger.ingested_contents(dids) == before == {("test", "file-0.fits"): (14912640, "8b1bdc93")}
    remembered = [RetiredFile("test", "file-0.fits", 14912640, "8b1bdc93")]
    assert ledger.retired("test", "file-0.fits") == ledger.retired(None, "file-0.fits") == remembered
    assert ledger.retired("other", "file-0.fits") == ledger.retired(None, "file-1.fits") == []


def test_a_ledger_whose_rows_were_all_retired_goes_on(ledger):
    record_at(ledger, 0, datetime(2026, 8, 5, tzinfo=UTC))
    ledger.retire(datetime(2026, 9, 1, tzinfo=UTC), now=datetime(2026, 9, 1, tzinfo=UTC))

    assert record_at(ledger, 1, datetime(2026, 9, 2, tzinfo=UTC)) == 202609000000001
    assert ledger.offsets(PARTITION.cluster) == {PARTITION: 2}


def test_a_batch_is_of_one_month_whatever_its_messages_tell(ledger):
    receptions = [received(offset) for offset in range(3)]
    ledger.record_batch(
        [*receptions, Reception(PARTITION, 3, None, "no")], {PARTITION: 4}, now=datetime(2026, 5, 1, tzinfo=UTC)
    )

    assert [row.row_id for row in ledger.find()] == [202605000000001 + number for number in range(4)]


def test_partitions_do_not_share_offsets(ledger):
    other = Partition(PARTITION.cluster, PARTITION.topic, 1)
    ledger.record_batch([received(5), received(5, partition=other)], {PARTITION: 6, other: 6})

    assert [(row.partition, row.offset) for row in ledger.find()] == [(0, 5), (1, 5)]
