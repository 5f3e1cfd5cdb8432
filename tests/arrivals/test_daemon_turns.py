"""The daemon's loop by itself: it says what it did, waits for what is away, and stops when told."""

import logging
import threading
from types import MappingProxyType, SimpleNamespace

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from arrivals import daemon
from arrivals.announcement import Kind
from arrivals.daemon import Turn, lines_of, patiently, run_daemon
from arrivals.drain import DrainResult
from arrivals.ingest_report import IngestReport, Problem, Problems
from arrivals.states import State
from arrivals.visits import VisitConflict
from resources.errors import Retriable, SiteFault

AWAY = OperationalError("SELECT 1", {}, Exception("server closed the connection"))


def report(ingested: int = 0, problems: tuple[Problem, ...] = ()) -> IngestReport:
    outcomes = {(Kind.RAW, State.INGESTED): ingested, (Kind.RAW, State.QUARANTINED): len(problems)}
    kept = MappingProxyType({key: count for key, count in outcomes.items() if count})
    return IngestReport(kept, datasets=ingested, bytes=1_000_000 * ingested, problems=problems, elapsed_s=2.0)


@pytest.fixture
def loop(monkeypatch):
    """Run the loop over scripted drains and ingests; what is scripted last stops it."""

    def run(drains: list, ingests: list) -> tuple[list[Turn], daemon.Totals]:
        stop, turns = threading.Event(), []
        script = {"drain": iter(drains), "ingest_pending": iter(ingests)}

        def scripted(name):
            def call(*_, **__):
                made = next(script[name])
                if isinstance(made, Exception):
                    raise made
                return made

            return call

        scripted_drain = SimpleNamespace(drain=scripted("drain"), close=lambda: None)
        monkeypatch.setattr(daemon, "Drain", lambda *_: scripted_drain)
        monkeypatch.setattr(daemon, "ingest_pending", scripted("ingest_pending"))

        def on_turn(turn: Turn) -> None:
            turns.append(turn)
            if len(turns) == len(drains):
                stop.set()

        nothing = SimpleNamespace()
        totals = run_daemon(nothing, nothing, nothing, nothing, stop, poll_s=0.001, on_turn=on_turn)
        return turns, totals

    return run


def test_a_turn_that_did_something_is_one_line_and_an_idle_one_is_none():
    turn = Turn(DrainResult(rows=3, events=1, lag=7, elapsed_s=0.5), report(3))
    assert list(lines_of(turn)) == [
        (
            logging.INFO,
            "4 messages read (7 left in Kafka, 0.5 s); 3 ingested; 3 datasets, 3.0 MB (2.0 s)",
        )
    ]
    assert list(lines_of(Turn(DrainResult(), IngestReport()))) == []


def test_a_notice_is_said_once_and_not_at_every_turn():
    turn = Turn(DrainResult(notices=("no topic matches ^X", "another")))

    assert list(lines_of(turn, told=("no topic matches ^X",))) == [(logging.WARNING, "another")]


def test_what_was_quarantined_is_one_line_a_cause():
    problems = Problems()
    for number in range(3):
        problems.add(State.QUARANTINED, f"raw:{number}", f"/data/{number}.fits: has {number} bytes")
    problems.add(State.WAITING, "raw:w", "for its dimensions")
    lines = list(lines_of(Turn(DrainResult(), report(0, problems.all()))))
    assert [line for level, line in lines if level == logging.WARNING] == [
        "quarantined raw:0 and 2 more like it: /data/0.fits: has 0 bytes"
    ]


def test_visits_in_conflict_are_one_line_a_cause():
    conflicts = (
        *(VisitConflict(n, f"the Butler has name 'A_{n:04d}'") for n in range(3)),
        VisitConflict(9, "no header"),
    )
    lines = list(lines_of(Turn(DrainResult(), IngestReport(conflicts=conflicts))))
    assert [line for level, line in lines if level == logging.WARNING] == [
        "visit 0 and 2 more like it: the Butler has name 'A_0000'",
        "visit 9: no header",
    ]


def test_with_kafka_away_what_has_come_is_ingested_still(loop):
    turns, totals = loop([Retriable("Kafka: down"), DrainResult(rows=2)], [report(1), report(2)])
    assert turns[0].trouble == "Kafka: down"
    assert turns[0].ingested is not None
    assert (totals.read, totals.ingested, totals.datasets) == (2, 3, 3)


def test_with_the_database_away_it_waits_and_says_so_once(loop, caplog):
    caplog.set_level(logging.INFO, logger="arrivals.daemon")
    turns, _ = loop([AWAY, DrainResult()], [AWAY, report(1)])
    assert turns[0].trouble == "ledger or Butler: database: server closed the connection; is it up?"
    assert not turns[1].trouble
    assert [record.message for record in caplog.records if "trouble is over" in record.message]


def test_an_error_of_ours_is_no_weather(loop):
    with pytest.raises(ProgrammingError):
        loop([ProgrammingError("SELECT", {}, Exception("no such column"))], [report()])


def test_the_sites_fault_ends_it(loop):
    with pytest.raises(SiteFault, match="certificate"):
        loop([SiteFault("the certificate has expired")], [report()])


def test_opening_is_tried_until_it_works():
    answers = iter([Retriable("not yet"), AWAY, "opened"])

    def attempt():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(attempt, threading.Event(), pause_s=0.001) == "opened"


def test_a_butler_whose_database_is_away_is_waited_for_and_one_that_is_not_there_is_not():
    away = SiteFault("the registry doesn't answer")
    away.__cause__ = AWAY
    answers = iter([away, SiteFault("no Butler repository")])

    def attempt():
        raise next(answers)

    with pytest.raises(SiteFault, match="no Butler repository"):
        patiently(attempt, threading.Event(), pause_s=0.001)


def test_a_database_that_refuses_us_is_not_waited_for():
    def attempt():
        refused = OperationalError("SELECT 1", {}, Exception('FATAL:  database "ledger" does not exist'))
        raise SiteFault("the registry doesn't answer") from refused

    with pytest.raises(SiteFault, match="the registry doesn't answer"):
        patiently(attempt, threading.Event(), pause_s=0.001)


def test_a_database_that_is_read_only_for_now_is_waited_for(loop):
    error = psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")
    read_only = DBAPIError.instance("UPDATE", {}, error, psycopg.Error)

    turns, totals = loop([read_only, DrainResult(rows=2)], [read_only, report(2)])

    assert turns[0].trouble.endswith("in a read-only transaction; is it a standby, or read-only for now?")
    assert (totals.read, totals.ingested) == (2, 2)


def test_opening_ends_when_told():
    stop = threading.Event()

    def attempt():
        stop.set()
        raise Retriable("not yet")

    assert patiently(attempt, stop, pause_s=60.0) is None
