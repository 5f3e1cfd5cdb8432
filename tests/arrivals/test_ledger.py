"""The ledger accounts for every message once, and moves rows only along the table of states."""

import multiprocessing
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from sqlalchemy import select

from arrivals.announcement import Kind
from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.records import Partition, Reception, Settlement
from arrivals.states import TRANSITIONS, State
from arrivals.tables import OFFSETS
from resources.errors import Retriable
from tests.arrivals.hermes import encoded

PARTITION = Partition("cluster", "SITE-raw", 0)
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


def received(offset: int, event_type: str = "transfer-done", partition: Partition = PARTITION, **payload) -> Reception:
    payload.setdefault("name", f"file-{offset}.fits")
    return Reception(partition, offset, parse_message(encoded(event_type, **payload)))


def record(ledger: Ledger, *receptions: Reception, now: datetime = NOW):
    return ledger.record_batch(receptions, {PARTITION: receptions[-1].offset + 1}, now=now)


def test_a_message_becomes_a_row_with_what_it_announced(ledger):
    record(ledger, received(7))

    [row] = ledger.find()
    assert (row.topic, row.partition, row.offset) == ("SITE-raw", 0, 7)
    assert (row.kind, row.did, row.bytes, row.adler32) == (Kind.RAW, "test:file-7.fits", 14912640, "8b1bdc93")
    assert (row.day_obs, row.exposure, row.detector) == (20250113, 2025011300004, 0)
    assert (row.state, row.reason, row.attempts, row.received_at) == (State.RECEIVED, "", 0, NOW)
    assert row.sidecar is not None


def test_a_message_that_was_not_understood_is_a_row_in_quarantine(ledger):
    record(ledger, Reception(PARTITION, 0, None, "message is not JSON", "{oops"))

    [row] = ledger.find()
    assert (row.state, row.reason, row.excerpt, row.kind) == (
        State.QUARANTINED, "message is not JSON", "{oops", None,
    )  # fmt: skip


def test_rows_and_offsets_are_recorded_together(ledger):
    record(ledger, received(0), received(1))

    assert ledger.offsets("cluster") == {PARTITION: 2}
    assert ledger.offsets("another cluster") == {}


def test_messages_that_were_read_before_change_nothing(ledger):
    record(ledger, received(0), received(1, "transfer-failed"))

    again = record(ledger, received(0), received(1, "transfer-failed"), received(2))

    assert (again.rows, again.events, again.known_before) == (1, 0, 2)
    assert ledger.counts()[State.RECEIVED] == 2
    assert [(count.event_type, count.count) for count in ledger.transfers()] == [
        ("transfer-done", 2),
        ("transfer-failed", 1),
    ]


def test_a_cluster_that_was_built_anew_is_read_anew(ledger):
    anew = Partition("another cluster", PARTITION.topic, PARTITION.number)
    record(ledger, received(0))

    ledger.record_batch([received(0, partition=anew)], {anew: 1})

    assert ledger.counts()[State.RECEIVED] == 2


def test_a_topic_that_was_made_anew_is_read_anew(ledger):
    anew = replace(PARTITION, incarnation=2, topic_id="second-id")
    record(ledger, received(0))

    ledger.record_batch([received(0, partition=anew)], {anew: 1})

    assert [(row.topic, row.partition, row.offset) for row in ledger.find()] == [("SITE-raw", 0, 0)] * 2
    [(latest, offset)] = ledger.offsets("cluster").items()
    assert (latest, latest.topic_id, offset) == (anew, "second-id", 1)


def test_the_leader_epoch_is_that_of_the_furthest_offset(ledger):
    first, second = (replace(PARTITION, leader_epoch=epoch) for epoch in (1, 2))

    for partition, offset in ((first, 5), (second, 9), (first, 7), (replace(first, leader_epoch=None), 9)):
        ledger.record_batch([], {partition: offset})

    [(latest, offset)] = ledger.offsets("cluster").items()
    assert (latest.leader_epoch, offset) == (2, 9)


def test_what_expired_unread_is_added_up(ledger):
    ledger.record_batch([], {PARTITION: 110}, expired_before={PARTITION: 100})
    ledger.record_batch([], {PARTITION: 160}, expired_before={PARTITION: 150})

    with ledger.engine.connect() as connection:
        assert connection.execute(select(OFFSETS.c.next_offset, OFFSETS.c.expired)).one() == (160, 140)


def test_what_two_drains_find_expired_is_lost_once(ledger):
    record(ledger, received(2))

    lost = [ledger.record_batch([], {PARTITION: 12}, expired_before={PARTITION: 10}).expired for _ in range(2)]

    assert lost == [7, 0]


def test_a_message_that_is_not_believed_waits_in_quarantine_for_an_operator(ledger):
    record(ledger, replace(received(0), rejection="comes from the future"))

    [row] = ledger.find()
    assert (row.state, row.reason, row.kind) == (State.QUARANTINED, "comes from the future", Kind.RAW)
    assert ledger.pending([Kind.RAW], now=NOW) == []
    assert ledger.replay([row.row_id]) == 1
    assert len(ledger.pending([Kind.RAW], now=NOW)) == 1


def test_rates_divide_the_bytes_of_those_that_told_their_duration(ledger):
    record(ledger, received(0, bytes=10, duration=5), received(1, bytes=1000, duration=None))

    [count] = ledger.transfers()
    assert (count.count, count.bytes, count.duration_s, count.timed_bytes) == (2, 1010, 5, 10)


def test_counts_of_events_are_asked_for_by_time(ledger):
    hours = [datetime(2026, 11, 1, hour, tzinfo=UTC) for hour in (3, 4, 5)]
    for offset, hour in enumerate(hours):
        message = received(offset).message
        assert message is not None
        record(ledger, Reception(PARTITION, offset, replace(message, created_at=hour)))

    assert [count.hour for count in ledger.transfers(since=hours[1])] == hours[1:]
    assert [count.hour for count in ledger.transfers(since=hours[1], until=hours[2])] == [hours[1]]


def test_an_event_from_the_future_is_counted_now(ledger):
    message = received(0).message
    assert message is not None
    record(ledger, Reception(PARTITION, 0, replace(message, created_at=NOW + timedelta(days=400))))

    assert [count.hour for count in ledger.transfers()] == [NOW]


def test_events_are_counted_by_hour_and_pair_of_rses(ledger):
    done = {"src-rse": "USDF", "dst-rse": "LANCS", "bytes": 10, "duration": 3}

    record(ledger, received(0, **done), received(1, **done), received(2, "transfer-failed", **done))

    counts = {(count.event_type, count.src_rse, count.dst_rse): count for count in ledger.transfers()}
    assert counts["transfer-done", "USDF", "LANCS"].count == 2
    assert counts["transfer-done", "USDF", "LANCS"].bytes == 20
    assert counts["transfer-failed", "USDF", "LANCS"].duration_s == 3
    assert counts["transfer-done", "USDF", "LANCS"].hour == datetime(2025, 3, 20, 20, tzinfo=UTC)


def test_pending_rows_come_in_the_order_of_messages_by_kind_and_day_obs(ledger):
    other_day = {"rubin_butler": "zip_file", "rubin_sidecar": "", "name": "MC_O_20250520_000123.zip"}
    undated = {"rubin_butler": "dim_file", "rubin_sidecar": "", "name": "filters_dimensions.yaml"}
    record(ledger, received(0), received(1), received(2, **other_day), received(3, **undated))

    def offsets(*kinds: Kind, day_obs: int | None = None, undated: bool = False) -> list[int]:
        return [row.offset for row in ledger.pending(kinds, day_obs=day_obs, undated=undated, now=NOW)]

    assert offsets(Kind.RAW) == [0, 1]
    assert offsets(*Kind) == [0, 1, 2, 3]
    assert offsets(*Kind, day_obs=20250520) == [2]
    assert offsets(*Kind, undated=True) == [3]


def test_what_waits_is_not_pending_until_its_time_has_come(ledger):
    record(ledger, received(0))
    [row] = ledger.find()
    ledger.settle([Settlement(row.row_id, State.WAITING, "a while", retry_at=NOW + timedelta(minutes=1))], now=NOW)

    assert ledger.pending([Kind.RAW], now=NOW) == []
    assert len(ledger.pending([Kind.RAW], now=NOW + timedelta(minutes=2))) == 1


def test_what_waits_is_woken_by_what_it_waits_for(ledger):
    record(ledger, received(0), received(1))
    for row, key in zip(ledger.find(), ("exposure=1", "exposure=2"), strict=True):
        ledger.settle([Settlement(row.row_id, State.WAITING, "dimensions", waits_for=key)], now=NOW)

    assert ledger.wake(["exposure=2", "exposure=3"]) == 1
    assert [row.offset for row in ledger.pending([Kind.RAW], now=NOW)] == [1]


def test_settling_counts_attempts_and_keeps_what_was_learned(ledger):
    record(ledger, received(0, rubin_butler="zip_file", rubin_sidecar=""))
    [row] = ledger.find()

    ledger.settle([Settlement(row.row_id, State.WAITING, "later", day_obs=20261101, exposure=2026110100001)], now=NOW)
    ledger.settle([Settlement(row.row_id, State.INGESTED)], now=NOW)

    [row] = ledger.find()
    assert (row.state, row.attempts, row.reason, row.settled_at) == (State.INGESTED, 2, "", NOW)
    assert (row.day_obs, row.exposure) == (20261101, 2026110100001)


def test_waiting_for_something_is_no_attempt(ledger):
    record(ledger, received(0))
    [row] = ledger.find()
    attempts = []

    for waits_for in (None, None, "exposure=1", "exposure=1", None):
        ledger.settle([Settlement(row.row_id, State.WAITING, "later", waits_for=waits_for)], now=NOW)
        attempts += [row.attempts for row in ledger.find()]

    assert attempts == [1, 2, 0, 0, 1]


def test_thousands_are_settled_at_once_each_to_its_own_state(ledger):
    record(ledger, *(received(offset) for offset in range(3_000)))
    rows = ledger.find(limit=3_000)
    states = [State.INGESTED, State.WAITING, State.QUARANTINED]

    moved = ledger.settle([Settlement(row.row_id, states[row.offset % 3], f"of {row.offset}") for row in rows], now=NOW)

    assert moved == 3_000
    assert all(
        (row.state, row.reason) == (states[row.offset % 3], f"of {row.offset}") for row in ledger.find(limit=3_000)
    )


def test_a_row_is_settled_once_in_a_call(ledger):
    record(ledger, received(0))
    [row] = ledger.find()

    with pytest.raises(ValueError, match="settled twice"):
        ledger.settle([Settlement(row.row_id, State.WAITING), Settlement(row.row_id, State.INGESTED)])

    assert ledger.find()[0].state is State.RECEIVED


def test_contents_of_many_dids_are_known_from_what_was_ingested(ledger):
    record(ledger, *(received(offset) for offset in range(2_500)))
    rows = ledger.find(limit=2_500)
    ledger.settle([Settlement(row.row_id, State.INGESTED) for row in rows if row.offset % 2])

    contents = ledger.ingested_contents({(row.scope, row.name) for row in rows} | {("test", "never-announced")})

    assert contents == {("test", f"file-{offset}.fits"): (14912640, "8b1bdc93") for offset in range(1, 2_500, 2)}


def test_a_row_that_another_process_settled_first_stays_as_it_is(ledger):
    record(ledger, received(0))
    [row] = ledger.find()
    ledger.settle([Settlement(row.row_id, State.INGESTED)])

    assert ledger.settle([Settlement(row.row_id, State.QUARANTINED, "too late")]) == 0
    assert ledger.find()[0].state is State.INGESTED


def test_replay_takes_out_of_quarantine_what_was_once_understood(ledger):
    record(ledger, received(0), Reception(PARTITION, 1, None, "message is empty"))
    first, second = ledger.find()
    ledger.settle([Settlement(first.row_id, State.QUARANTINED, "truncated")])

    assert ledger.replay([first.row_id, second.row_id]) == 1
    assert [(row.state, row.reason) for row in ledger.find()] == [
        (State.RECEIVED, ""),
        (State.QUARANTINED, "message is empty"),
    ]


def test_ingested_contents_are_found_by_did(ledger):
    record(ledger, received(0), received(1))
    ledger.settle([Settlement(ledger.find()[0].row_id, State.INGESTED)])

    contents = ledger.ingested_contents({("test", "file-0.fits"), ("test", "file-1.fits")})

    assert contents == {("test", "file-0.fits"): (14912640, "8b1bdc93")}


def test_days_are_summed_up_with_what_is_due(ledger):
    record(ledger, received(0), received(1))
    later = NOW + timedelta(hours=1)
    record(ledger, received(2, rubin_sidecar="", rubin_butler="zip_file", name="x.zip"), now=later)
    rows = ledger.find()
    ledger.settle([Settlement(rows[0].row_id, State.INGESTED)])

    days = ledger.by_day_obs(now=later)

    assert set(days) == {20250113, None}
    day = days[20250113]
    assert (day.counts[State.INGESTED], day.counts[State.RECEIVED], day.due, day.unfinished) == (1, 1, 1, 1)
    assert (day.bytes, day.newest_row, day.last_received_at) == (2 * 14912640, rows[1].row_id, NOW)
    assert days[None].last_received_at == later
    assert (day.oldest_due_at, days[None].oldest_due_at) == (NOW, later)
    assert ledger.of_day_obs(20250113) == replace(day, due=1)
    assert ledger.of_day_obs(None) == days[None]
    assert ledger.of_day_obs(20250114) is None


def test_what_waits_is_due_since_it_may_be_tried_again(ledger):
    record(ledger, received(0), received(1))
    first, second = ledger.find()
    soon, later = NOW + timedelta(minutes=1), NOW + timedelta(hours=1)
    ledger.settle(
        [
            Settlement(first.row_id, State.WAITING, "dimensions", waits_for="x", retry_at=later),
            Settlement(second.row_id, State.WAITING, "file", retry_at=soon),
        ]
    )

    assert ledger.by_day_obs(now=NOW)[20250113].oldest_due_at is None
    assert ledger.by_day_obs(now=soon)[20250113].oldest_due_at == soon
    assert ledger.by_day_obs(now=later)[20250113].due == 2


def test_what_is_finished_need_not_be_counted(ledger):
    record(ledger, received(0), received(1), received(2, rubin_butler="dim_file", rubin_sidecar="", name="a.yaml"))
    first, _, undated = ledger.find()
    ledger.settle([Settlement(first.row_id, State.INGESTED), Settlement(undated.row_id, State.QUARANTINED, "no")])

    days = ledger.by_day_obs(unfinished_only=True, now=NOW)

    assert set(days) == {20250113}
    assert (days[20250113].due, days[20250113].counts[State.INGESTED]) == (1, 0)


def test_rows_are_found_by_kind_reason_and_time(ledger):
    later = NOW + timedelta(hours=1)
    record(ledger, received(0), Reception(PARTITION, 1, None, "100% wrong"))
    record(ledger, received(2, rubin_butler="dim_file", rubin_sidecar="", name="a.yaml"), now=later)

    def offsets(**wanted: object) -> list[int]:
        return [row.offset for row in ledger.find(**wanted)]

    assert offsets(kind=Kind.DIMENSIONS) == [2]
    assert offsets(reason="0% w") == [1]
    assert offsets(reason="0_ w") == []
    assert offsets(since=later) == [2]
    assert offsets(until=later, state=State.QUARANTINED) == [1]


def test_rows_are_found_by_did_exposure_day_and_state(ledger):
    record(ledger, received(0), received(1, rubin_butler="zip_file", rubin_sidecar="", name="MC_O_20250520_000123.zip"))

    assert [row.offset for row in ledger.find(scope="test", name="file-0.fits")] == [0]
    assert [row.offset for row in ledger.find(exposure=2025052000123)] == [1]
    assert [row.offset for row in ledger.find(day_obs=20250113, state=State.RECEIVED)] == [0]
    assert ledger.find(state=State.INGESTED) == []


def _hold(url: str, held, release) -> None:
    with Ledger(url).exclusive("ingest"):
        held.set()
        release.wait(30)


def test_only_one_process_at_a_time_ingests_and_death_lets_go(ledger):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(ledger.url, held, release))
    holder.start()
    assert held.wait(30)

    with pytest.raises(Retriable, match="busy with ingest"), ledger.exclusive("ingest", wait_s=0):
        pass
    holder.kill()
    holder.join()

    with ledger.exclusive("ingest", wait_s=5):
        pass


def test_who_waits_for_another_process_can_be_told_to_stop(ledger):
    asked = iter([False, True])

    with (
        ledger.exclusive("ingest"),
        pytest.raises(Retriable, match="busy with ingest"),
        Ledger(ledger.url).exclusive("ingest", stopping=lambda: next(asked)),
    ):
        pass

    assert list(asked) == []


def _record_many(url: str, number: int) -> None:
    ledger = Ledger(url)
    partition = Partition("cluster", "SITE-raw", number)
    for offset in range(0, 200, 20):
        batch = [received(offset + i, partition=partition) for i in range(20)]
        ledger.record_batch(batch, {partition: offset + 20})


def test_several_processes_write_at_once(ledger):
    context = multiprocessing.get_context("fork")
    # Two of them read the same partition, as two drains would.
    writers = [context.Process(target=_record_many, args=(ledger.url, number)) for number in (0, 1, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert ledger.counts()[State.RECEIVED] == 400
    assert sum(count.count for count in ledger.transfers()) == 400


class LedgerLife(RuleBasedStateMachine):
    """Whatever is asked of the ledger, rows move only along the table, and none is lost or made."""

    rows = Bundle("rows")

    def url(self) -> str:
        return f"sqlite:///{Path(self.folder.name)}/ledger.sqlite3"

    @initialize()
    def open_ledger(self):
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(self.url())
        self.expected: dict[int, State] = {}
        self.next_offset = 0

    @rule(target=rows, count=st.integers(1, 3), again=st.booleans())
    def receive(self, count, again):
        start = self.next_offset
        batch = [received(start + i) for i in range(count)]
        self.next_offset += count
        record(self.ledger, *batch)
        if again:
            record(self.ledger, *batch)
        new = [row.row_id for row in self.ledger.find() if row.offset >= start]
        self.expected |= dict.fromkeys(new, State.RECEIVED)
        return multiple(*new)

    @rule(row=rows, state=st.sampled_from(State))
    def settle(self, row, state):
        moved = self.ledger.settle([Settlement(row, state, waits_for="key" if state is State.WAITING else None)])

        allowed = state in TRANSITIONS[self.expected[row]]
        assert moved == allowed
        if allowed:
            self.expected[row] = state

    @rule(state=st.sampled_from(State), share=st.integers(1, 3))
    def settle_many(self, state, share):
        chosen = sorted(self.expected)[::share]
        allowed = [row for row in chosen if state in TRANSITIONS[self.expected[row]]]
        settlements = [Settlement(row, state, waits_for="key" if state is State.WAITING else None) for row in chosen]

        assert self.ledger.settle(settlements) == len(allowed)
        self.expected |= dict.fromkeys(allowed, state)

    @rule()
    def wake(self):
        waiting = [row for row, state in self.expected.items() if state is State.WAITING]
        assert self.ledger.wake(["key"]) == len(waiting)
        self.expected |= dict.fromkeys(waiting, State.RECEIVED)

    @rule(row=rows)
    def replay(self, row):
        quarantined = self.expected[row] is State.QUARANTINED
        assert self.ledger.replay([row]) == quarantined
        if quarantined:
            self.expected[row] = State.RECEIVED

    @invariant()
    def all_is_accounted_for(self):
        if hasattr(self, "ledger"):
            assert {row.row_id: row.state for row in self.ledger.find()} == self.expected
            assert Counter({state: n for state, n in self.ledger.counts().items() if n}) == Counter(
                self.expected.values()
            )

    def teardown(self):
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()


LedgerLife.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
test_the_ledger_lives_by_the_table = LedgerLife.TestCase
