"""What a soak tells: a broken promise is a missed target, and each incident is there with its times."""

from dataclasses import replace

from benchmarks.soak.chaos import ROUND, SHORT_PLAN, Incident, Standing, never_at_work
from benchmarks.soak.oracle import Verdict
from benchmarks.soak.site import Shift
from benchmarks.soak.telling import incident_table, results, verdict_table

CLIENTS_WAIT_S = 10.0
KEPT = Verdict("each message has its row", "3 rows", 0)
BROKEN = Verdict("no message has two rows", "3 rows", 2, ("0/1", "0/2"))


def incident(number: int, victim: str, works_s: float) -> Incident:
    return Incident(
        number=number,
        shift=Shift.DAEMON,
        victim=victim,
        what="kill -9 1",
        at_s=10.0 * number,
        published=100,
        before=Standing(recorded=90, unsettled=20, backlog=5),
        outage_s=1.0,
        works_s=works_s,
        progress_s=works_s + 1,
        caught_up_s=works_s + 2,
    )


def test_a_broken_promise_is_a_missed_target():
    figures = {result.name: result for result in results([KEPT, BROKEN], [], 60.0)}

    assert figures["not so: each message has its row (3 rows)"].met
    assert not figures["not so: no message has two rows (3 rows)"].met
    assert figures["not so: no message has two rows (3 rows)"].value == 2


def test_times_are_told_by_victim_and_by_incident():
    incidents = [incident(1, "broker", 4.0), incident(2, "drain", 1.0), incident(3, "broker", 8.0)]

    figures = {result.name: result.value for result in results([], incidents, 60.0)}

    assert figures["broker struck: works again, median of 2"] == 6.0
    assert figures["broker struck: works again, longest"] == 8.0
    assert figures["drain struck: the ledger goes on, longest"] == 2.0
    assert figures["struck: 3. broker, kill -9 1, in the shift of drp ingestd: after the start"] == 30.0
    assert figures["struck: 3. broker, kill -9 1, in the shift of drp ingestd: mended after"] == 1.0


def test_a_victim_that_had_nothing_to_do_whenever_it_was_struck_is_named():
    done = Standing(recorded=100, unsettled=20, backlog=0)
    busy, idle = incident(1, "broker", 4.0), replace(incident(2, "drain", 4.0), before=done)

    assert never_at_work([busy, idle]) == ["drain"]
    assert never_at_work([busy, replace(idle, published=101)]) == []
    assert never_at_work([busy, replace(idle, before=None)]) == ["drain"]
    assert never_at_work([busy, idle, incident(3, "drain", 4.0)]) == []


def test_the_tables_have_a_line_an_incident_and_a_line_an_example():
    assert incident_table([incident(1, "broker", 4.0)]).row_count == 1
    assert verdict_table([KEPT, BROKEN]).row_count == 4


def test_a_round_strikes_in_every_shift_whatever_is_there_and_the_short_plan_strikes_everything_once():
    victims = {turn.victim for turn in ROUND}

    assert sorted(turn.victim for turn in SHORT_PLAN) == sorted(victims)
    assert len({(turn.shift, turn.victim) for turn in ROUND}) == len(ROUND)
    assert struck_in(Shift.BOTH) == victims
    assert struck_in(Shift.DAEMON) == {"drain", "broker", "PostgreSQL", "network"}
    assert struck_in(Shift.DAGSTER) == victims - {"drain"}


def struck_in(shift: Shift) -> set[str]:
    return {turn.victim for turn in ROUND if turn.shift is shift}


def test_kafka_is_away_for_longer_than_its_clients_wait_for_an_answer():
    long = [turn for turn in ROUND if turn.outage_s[0] >= 30.0]
    [cut] = [turn for turn in SHORT_PLAN if turn.victim == "network"]

    assert {(turn.shift, turn.victim) for turn in long} == {
        (shift, victim) for shift in (Shift.DAEMON, Shift.DAGSTER) for victim in ("broker", "network")
    }
    assert cut.outage_s[0] > CLIENTS_WAIT_S
