"""What is too much or too late is said with a number, a limit and what to do; what can't be known isn't called good."""

from datetime import UTC, datetime, timedelta

import pytest

from arrivals.announcement import Kind
from arrivals.health import (
    INGEST_DELAY,
    KAFKA_LAG,
    OLDEST_WAITING,
    QUARANTINE,
    Finding,
    Observation,
    counted,
    duration,
    judge,
)
from arrivals.overview import StateCount
from arrivals.states import State
from resources.site import ArrivalSettings, PathRule

NOW = datetime(2026, 11, 2, 3, tzinfo=UTC)
SETTINGS = ArrivalSettings(
    topics="^X",
    paths=(PathRule(announced="root://a", local="/a"),),
    instrument="x.Y",
    max_lag_messages=1_000,
    max_ingest_delay_s=900,
    max_waiting_s=3_600,
    max_quarantined=2,
)


def count(state: State, rows: int, age_s: float) -> StateCount:
    then = NOW - timedelta(seconds=age_s)
    return StateCount(Kind.RAW, state, rows, 10 * rows, then, then)


def findings(*states: StateCount, lag=None, trouble="") -> dict[str, Finding]:
    return {found.name: found for found in judge(Observation(NOW, states, lag, trouble), SETTINGS)}


def test_an_empty_ledger_is_well():
    assert all(found.passed for found in findings(lag={"X": 0}).values())


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (INGEST_DELAY, count(State.RECEIVED, 5, 900), count(State.RECEIVED, 1, 901)),
        (OLDEST_WAITING, count(State.WAITING, 5, 3_600), count(State.WAITING, 1, 3_601)),
        (QUARANTINE, count(State.QUARANTINED, 2, 9_999), count(State.QUARANTINED, 3, 1)),
    ],
)
def test_a_limit_is_passed_until_it_is_exceeded(name, good, bad):
    assert findings(good, lag={})[name].passed
    found = findings(bad, lag={})[name]
    assert not found.passed
    assert "drp ingest" in found.message
    assert [other.name for other in findings(bad, lag={}).values() if not other.passed] == [name]


def test_too_much_lag_names_the_topic():
    assert findings(lag={"X": 600, "Y": 400})[KAFKA_LAG].passed
    found = findings(lag={"X": 600, "Y": 401})[KAFKA_LAG]
    assert (found.passed, found.value) == (False, 1_001)
    assert "1,001 messages still in Kafka, most of them in X" in found.message


def test_a_lag_that_nobody_knows_is_not_well_and_says_why():
    found = findings(trouble="localhost:1: Kafka: down; is the broker up?")[KAFKA_LAG]
    assert (found.passed, found.value) == (False, None)
    assert found.message == "what is still in Kafka is unknown: localhost:1: Kafka: down; is the broker up?"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h 00 min"), (200_000, "2 d 7 h")],
)
def test_spans_are_said_as_people_do(seconds, said):
    assert duration(seconds) == said


def test_one_is_not_many():
    assert (counted(1, "message"), counted(1_234, "message")) == ("1 message", "1,234 messages")
