"""Questions of operators to a ledger: by cause, by time, by kind; many messages of one cause are one line."""

from datetime import UTC, datetime, timedelta

import pytest

from arrivals.announcement import Kind
from arrivals.health import Observation
from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.overview import Overview, Selection
from arrivals.records import Partition, Reception, Settlement
from arrivals.states import State
from resources.errors import Rejected
from tests.arrivals.hermes import encoded

NOW = datetime(2026, 11, 2, 3, tzinfo=UTC)
PLACE = Partition("cluster", "LAPTOP-raw", 0)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


@pytest.fixture
def overview(ledger):
    return Overview(ledger)


def receive(ledger: Ledger, values: list[bytes], now: datetime = NOW) -> None:
    start = max(ledger.offsets("cluster").values(), default=0)
    receptions = []
    for offset, value in enumerate(values, start):
        try:
            receptions.append(Reception(PLACE, offset, parse_message(value)))
        except Rejected as rejected:
            receptions.append(Reception(PLACE, offset, None, str(rejected)))
    ledger.record_batch(receptions, {PLACE: start + len(values)}, now=now)


def settle(ledger: Ledger, state: State, reason: str = "", *, after_s: float = 10.0, which=slice(None)) -> None:
    rows = [row for row in ledger.find(limit=10_000) if row.state is State.RECEIVED][which]
    now = NOW + timedelta(seconds=after_s)
    ledger.settle(
        [Settlement(row.row_id, state, reason.format(name=row.name, number=row.offset)) for row in rows], now=now
    )


def raws(count: int) -> list[bytes]:
    return [encoded(name=f"raw/AT_O_20250113_{number:06d}_R00_S00.fits") for number in range(count)]


def test_a_thousand_rows_of_one_cause_are_one_group(ledger, overview):
    receive(ledger, raws(1000))
    settle(ledger, State.QUARANTINED, "/data/{name}: has {number} bytes, but 1,000,000 were announced")

    [group] = overview.causes({State.QUARANTINED})

    assert (group.rows, group.reasons, group.kind) == (1000, 1000, Kind.RAW)
    assert group.cause == "…: has N bytes, but N were announced"
    assert group.example.startswith("/data/raw/AT_O_2025")
    assert group.bytes == 1000 * 14912640


def test_groups_come_by_their_size_and_know_what_was_never_understood(ledger, overview):
    receive(ledger, [b"no json", *raws(3)])
    settle(ledger, State.QUARANTINED, "something else")

    found = overview.causes({State.QUARANTINED})

    assert [(group.rows, group.kind) for group in found] == [(3, Kind.RAW), (1, None)]


def test_a_cause_copied_from_the_list_chooses_its_rows(ledger, overview):
    receive(ledger, raws(4))
    settle(ledger, State.QUARANTINED, "/data/{name}: has {number} bytes", which=slice(0, 3))
    settle(ledger, State.QUARANTINED, "100 % _odd_")

    assert len(overview.row_ids(State.QUARANTINED, Selection(reason="…: has N bytes"))) == 3
    assert len(overview.row_ids(State.QUARANTINED, Selection(reason="has 2 bytes"))) == 1
    assert len(overview.row_ids(State.QUARANTINED, Selection(reason="0 % _o"))) == 1
    assert overview.row_ids(State.QUARANTINED, Selection(reason="has N dogs")) == []
    assert len(overview.row_ids(State.QUARANTINED, Selection())) == 4


def test_messages_are_chosen_by_time_exposure_and_kind(ledger, overview):
    receive(ledger, raws(2))
    receive(ledger, [b"broken"], now=NOW + timedelta(hours=1))
    settle(ledger, State.QUARANTINED, "reason")

    def chosen(**values) -> int:
        return len(overview.row_ids(State.QUARANTINED, Selection(**values)))

    assert (chosen(), chosen(since=NOW), chosen(until=NOW)) == (3, 3, 0)
    assert (chosen(since=NOW + timedelta(minutes=1)), chosen(until=NOW + timedelta(minutes=1))) == (1, 2)
    assert (chosen(kind=Kind.RAW), chosen(kind=Kind.ZIP), chosen(day_obs=20250113)) == (2, 0, 2)
    assert chosen(exposure=2025011300004) == 2


def test_counts_tell_the_oldest_of_each_state(ledger, overview):
    receive(ledger, raws(1), now=NOW - timedelta(hours=2))
    receive(ledger, raws(2))

    seen = Observation(NOW, overview.states(), {})

    assert (seen.rows(State.RECEIVED), seen.oldest_s(State.RECEIVED)) == (3, 7200.0)
    assert seen.oldest_s(State.WAITING) is None
    assert seen.last_received_at == NOW


def test_what_was_woken_or_replayed_is_due_since_then_and_not_since_it_came(ledger, overview):
    receive(ledger, raws(3), now=NOW - timedelta(hours=5))
    first, second, third = ledger.find()
    ledger.settle(
        [
            Settlement(first.row_id, State.WAITING, "dimensions", waits_for="x", retry_at=NOW),
            Settlement(second.row_id, State.QUARANTINED, "no"),
            Settlement(third.row_id, State.WAITING, "dimensions", waits_for="y", retry_at=NOW),
        ]
    )
    ledger.replay([second.row_id], now=NOW - timedelta(minutes=2))
    ledger.wake(["x"], now=NOW - timedelta(minutes=3))

    seen = Observation(NOW, overview.states(), {})

    assert (seen.oldest_s(State.RECEIVED), seen.oldest_s(State.WAITING)) == (180.0, 5 * 3600.0)
    assert ledger.by_day_obs(now=NOW)[20250113].oldest_due_at == NOW - timedelta(minutes=3)
    assert [row.since for row in ledger.find()[:2]] == [NOW - timedelta(minutes=3), NOW - timedelta(minutes=2)]


def test_pace_tells_how_long_messages_took(ledger, overview):
    receive(ledger, raws(20))
    settle(ledger, State.INGESTED, after_s=10.0, which=slice(0, 18))
    settle(ledger, State.INGESTED, after_s=100.0)

    pace = overview.pace(NOW + timedelta(minutes=10), NOW - timedelta(minutes=10))

    assert (pace.received, pace.ingested, pace.window_s) == (20, 20, 1200.0)
    assert (pace.median_s, pace.p95_s) == (10.0, 100.0)
    nothing = overview.pace(NOW + timedelta(hours=2), NOW + timedelta(hours=1))
    assert (nothing.ingested, nothing.median_s) == (0, None)


def test_days_of_transfers_change_with_every_event(ledger, overview):
    receive(ledger, raws(2))
    before = overview.transfer_days(NOW - timedelta(days=1000))
    receive(ledger, [encoded("transfer-failed")])

    assert before == {"2025-03-20": 2}
    assert overview.transfer_days(NOW - timedelta(days=1000)) == {"2025-03-20": 3}
    assert overview.transfer_days(NOW) == {}


def test_asking_changes_nothing(ledger, overview):
    receive(ledger, [b"broken", *raws(3)])
    before = ledger.find()
    overview.states()
    overview.causes(set(State))
    overview.pace(NOW, NOW)
    overview.unarrived_detectors(20250113, "LATISS")

    assert ledger.find() == before
