"""Errors become states by who may retry, and one bad member of a batch is found without trying all."""

import errno
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, OperationalError

from arrivals.announcement import Kind
from arrivals.outcomes import LOOK_AGAIN_S, Outcome, ingest_in_bulk
from arrivals.records import LedgerRow
from arrivals.states import State
from resources.errors import Rejected, Retriable, SiteFault, Waiting

NOW = datetime(2026, 11, 2, tzinfo=UTC)
PATIENCE_S = 6 * 3600.0

failed = partial(Outcome.failed, patience_s=PATIENCE_S)


def denied(error: psycopg.Error) -> Exception:
    """An error of psycopg's as SQLAlchemy raises it."""
    return DBAPIError.instance("INSERT", {}, error, psycopg.Error)


def raising(error: Exception):
    def ingest(items):
        raise error

    return ingest


def row(attempts: int = 0) -> LedgerRow:
    empty = dict.fromkeys(LedgerRow.__dataclass_fields__)
    values = {"row_id": 1, "kind": Kind.RAW, "scope": "s", "name": "n", "state": State.RECEIVED, "attempts": attempts}
    return LedgerRow(**{**empty, **values})


def test_what_waits_names_what_wakes_it_and_is_looked_at_again_later():
    outcome = failed(row(), Waiting("waits for its dimensions", "exposure=1"))

    assert (outcome.state, outcome.waits_for) == (State.WAITING, "exposure=1")
    assert outcome.retry_s == pytest.approx(LOOK_AGAIN_S, rel=0.3)
    assert outcome.reason == "exposure=1: waits for its dimensions"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        FileNotFoundError("no such key"),
        TimeoutError("timed out"),
        ConnectionResetError("by peer"),
        EndpointConnectionError(endpoint_url="https://rgw"),
        ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject"),
        ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject"),
    ],
    ids=repr,
)
def test_trouble_of_the_storage_is_no_files_fault(error):
    assert failed(row(), error).state is State.WAITING


@pytest.mark.parametrize(
    "error",
    [
        OSError("Header missing END card"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        ClientError({"Error": {"Code": "InvalidRequest"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "GetObject"),
    ],
    ids=repr,
)
def test_a_file_that_is_no_good_is_not_the_storages_fault(error):
    assert failed(row(), error).state is State.QUARANTINED


@pytest.mark.parametrize(
    "error", [Retriable("busy"), FileNotFoundError(2, "gone"), OperationalError("SELECT", {}, Exception("locked"))]
)
def test_what_may_pass_is_retried_ever_more_slowly_until_an_operator_has_to_see_it(error):
    pauses: list[float] = []

    while (outcome := failed(row(len(pauses)), error)).state is State.WAITING:
        assert outcome.retry_s is not None
        pauses.append(outcome.retry_s)

    assert outcome.state is State.QUARANTINED
    assert sum(pauses) == pytest.approx(PATIENCE_S, rel=0.3)
    assert pauses[0] < 30
    assert max(pauses) == pytest.approx(LOOK_AGAIN_S, rel=0.3)


@pytest.mark.parametrize("error", [Rejected("no"), ValueError("bad\nheader"), OSError("no number: not the disk's")])
def test_what_repeating_cannot_change_is_quarantined_with_a_reason_on_one_line(error):
    outcome = failed(row(), error)

    assert outcome.state is State.QUARANTINED
    assert outcome.reason
    assert "\n" not in outcome.reason


def test_a_fault_of_the_site_is_no_rows_fault():
    with pytest.raises(SiteFault):
        failed(row(), SiteFault("instrument is not registered"))
    with pytest.raises(SiteFault, match=r"^Butler: database: permission denied for table raw; grant it"):
        failed(row(), denied(psycopg.errors.InsufficientPrivilege("permission denied for table raw")))


def test_a_database_that_is_read_only_for_now_is_no_rows_fault():
    error = denied(psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"))

    assert failed(row(), error).state is State.WAITING
    assert set(ingest_in_bulk(range(64), raising(error))) == set(range(64))


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "中"])
def test_whatever_a_reason_quotes_every_database_has_room_for_it(text):
    outcomes = [
        failed(row(), ValueError(text)),
        failed(row(), Rejected("is no number", text)),
        failed(row(), Waiting("waits", f"group={text}")),
        Outcome.quarantined(row(), text),
        Outcome.ingested(row(), 1, remarks=[text]),
    ]

    for outcome in outcomes:
        settlement = outcome.to_settlement(NOW)
        kept = f"{settlement.reason}{settlement.waits_for}".encode()
        assert b"\0" not in kept


def test_the_repetition_of_what_was_ingested_is_a_duplicate_and_else_shares_its_fate():
    waiting = failed(row(), Waiting("waits", "exposure=1"))

    assert Outcome.ingested(row(), 5).for_repetition(row()).state is State.DUPLICATE
    assert Outcome.ingested(row(), 5).for_repetition(row()).datasets == 0
    assert waiting.for_repetition(row()).waits_for == "exposure=1"


def test_a_settlement_says_when_to_try_again():
    outcome = Outcome(row(), State.WAITING, "later", retry_s=30.0)

    assert outcome.to_settlement(NOW).retry_at == NOW + timedelta(seconds=30)


@given(st.integers(1, 200), st.data())
def test_bad_members_are_found_and_all_others_are_ingested(count, data):
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    ingested: list[int] = []
    calls = 0

    def ingest(items):
        nonlocal calls
        calls += 1
        if bad & set(items):
            raise ValueError("bad member")
        ingested.extend(items)

    errors = ingest_in_bulk(range(count), ingest)

    assert set(errors) == bad
    assert sorted(ingested) == sorted(set(range(count)) - bad)
    assert calls <= 1 + 2 * len(bad) * count.bit_length()


def test_a_busy_database_blames_the_whole_batch_at_once():
    calls = 0

    def ingest(items):
        nonlocal calls
        calls += 1
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    assert len(ingest_in_bulk(range(64), ingest)) == 64
    assert calls == 1


def test_an_empty_batch_costs_nothing():
    assert ingest_in_bulk([], pytest.fail) == {}
