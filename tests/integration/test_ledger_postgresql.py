"""The ledger on PostgreSQL: all that holds on SQLite holds there, by the same tests, and what only it has.

Belongs here: the tests of the ledger, of its months and of its tables on the other database.
"""

import json
import multiprocessing
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from arrivals import months
from arrivals.announcement import Kind
from arrivals.dimensions import dimension_key
from arrivals.ledger import Ledger
from arrivals.months import Retired
from arrivals.reception import receive
from arrivals.records import Partition, Reception, Settlement
from arrivals.schema import VERSION_TABLE
from arrivals.states import State
from arrivals.tables import connect
from resources.errors import Retriable, SiteFault
from tests.arrivals import test_ledger, test_months
from tests.arrivals.hermes import SIDECAR, encoded
from tests.arrivals.test_ledger import *  # noqa: F403
from tests.arrivals.test_ledger import NOW, PARTITION, LedgerLife, received, record
from tests.arrivals.test_months import *  # noqa: F403
from tests.arrivals.test_schema import differences
from tests.promises import PROMISES

pytestmark = [pytest.mark.integration, PROMISES]


@pytest.fixture
def url(postgresql, new_database) -> str:
    return postgresql.url(new_database())


@pytest.fixture
def ledger(url):
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def rows_of(ledger: Ledger, statement: str, **values: object) -> list[tuple[object, ...]]:
    with ledger.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def plan_of(ledger: Ledger, statement: str) -> str:
    return "\n".join(str(line) for (line,) in rows_of(ledger, f"EXPLAIN {statement}"))


def test_the_same_tests_as_on_sqlite_are_here():
    for module in (test_ledger, test_months):
        assert {name for name in vars(module) if name.startswith("test_")} <= globals().keys()


@pytest.fixture
def life(postgresql, new_database):
    """The ledger's state machine, on a database that every run of it finds empty."""

    class LifeOnPostgreSQL(LedgerLife):
        def url(self) -> str:
            return postgresql.url(new_database())

    return LifeOnPostgreSQL


def test_the_ledger_lives_by_the_table(life):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=4, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_the_steps_make_the_tables_that_the_code_uses(ledger):
    record(ledger, received(0))

    assert differences(ledger.engine) == []


def test_each_month_has_a_table_of_its_own(ledger):
    for offset, month in enumerate((11, 12)):
        record(ledger, received(offset), now=datetime(2026, month, 1, tzinfo=UTC))

    found = rows_of(ledger, 'SELECT tableoid::regclass::text, "offset" FROM messages ORDER BY id')
    assert found == [("messages_202611", 0), ("messages_202612", 1)]


def test_a_retired_month_is_a_table_less(ledger):
    record(ledger, received(0), now=datetime(2026, 10, 1, tzinfo=UTC))
    [row] = ledger.find()
    ledger.settle([Settlement(row.row_id, State.INGESTED)])

    assert ledger.retire(NOW, now=NOW).months == (202610,)
    assert rows_of(ledger, "SELECT to_regclass('messages_202610')") == [(None,)]


def ingested_in(ledger: Ledger, *months: int) -> None:
    """One ingested row in each of these months of 2026."""
    for offset, month in enumerate(months):
        record(ledger, received(offset), now=datetime(2026, month, 1, tzinfo=UTC))
    ledger.settle([Settlement(row.row_id, State.INGESTED) for row in ledger.find()])


def test_a_month_that_is_read_all_the_time_stays_and_those_before_it_are_gone(ledger, monkeypatch):
    ingested_in(ledger, 9, 10)
    monkeypatch.setattr("arrivals.months._PATIENCE", "100ms")

    with ledger.engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM messages_202610")).scalar_one()
        with pytest.raises(Retriable, match="month 202610: is in use all the time; try again later"):
            ledger.retire(NOW, now=NOW)

    assert [row.offset for row in ledger.find()] == [1]
    assert ledger.retire(NOW, now=NOW).months == (202610,)


def test_who_asks_more_while_a_month_waits_for_its_retirement_gets_answers(ledger):
    ingested_in(ledger, 9, 10, 11)

    with ThreadPoolExecutor(1) as other, ledger.engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM messages WHERE id >= 202611000000000")).scalar_one()
        retiring = other.submit(ledger.retire, NOW)
        await_lock_request(ledger)
        reader.execute(text("UPDATE messages SET attempts = 9"))
        reader.commit()
        retired = retiring.result(60)

    assert retired.months == (202609, 202610)
    assert [row.attempts for row in ledger.find()] == [9]


def test_what_is_replayed_while_its_month_is_copied_is_not_lost(ledger, monkeypatch):
    ingested_in(ledger, 10)
    [row] = ledger.find()
    record(ledger, received(1), received(2), now=datetime(2026, 10, 2, tzinfo=UTC))
    others = [other.row_id for other in ledger.find() if other.row_id != row.row_id]
    ledger.settle([Settlement(row_id, State.QUARANTINED, "no") for row_id in others])
    remember = months._remember
    finished: list[int] = []

    def remember_and_replay(*given: object) -> None:
        remember(*given)
        if not finished:
            finished.append(ledger.replay(others))
            ledger.settle([Settlement(row_id, State.INGESTED) for row_id in others])

    monkeypatch.setattr(months, "_remember", remember_and_replay)

    assert ledger.retire(NOW, now=NOW) == Retired(months=(202610,), rows=3)
    dids = {("test", f"file-{number}.fits") for number in range(3)}
    assert set(ledger.ingested_contents(dids)) == dids


def await_lock_request(ledger: Ledger) -> None:
    """Wait until somebody waits for a lock."""
    deadline = time.monotonic() + 60
    while not rows_of(ledger, "SELECT 1 FROM pg_locks WHERE NOT granted"):
        if time.monotonic() > deadline:
            raise TimeoutError("nobody waits for a lock")
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("state IN ('received', 'waiting') AND kind = 'raw' AND id > 5 ORDER BY id LIMIT 10", "kind_id"),
        ("state = 'waiting' AND waits_for = 'exposure=1'", "waits_for"),
        ("name = 'file-1.fits' AND scope = 'test'", "name_scope"),
        ("exposure = 1", "exposure"),
        ("day_obs = 1 AND state = 'received'", "day_obs"),
        ("id = 202611000000007", "pkey"),
    ],
)
def test_what_operators_ask_is_answered_from_an_index(ledger, question, index):
    record(ledger, *(received(offset) for offset in range(1_000)))
    ledger.settle([Settlement(row.row_id, State.INGESTED) for row in ledger.find() if row.offset % 20])
    with ledger.engine.begin() as connection:
        connection.execute(text("ANALYZE messages"))
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(row[0] for row in connection.execute(text(f"EXPLAIN SELECT * FROM messages WHERE {question}")))

    assert "Seq Scan" not in plan
    assert index in plan


def test_settling_by_id_touches_only_the_month_concerned(ledger):
    for offset, month in enumerate((9, 10, 11)):
        record(ledger, received(offset), now=datetime(2026, month, 1, tzinfo=UTC))

    plan = plan_of(ledger, "UPDATE messages SET attempts = 1 WHERE id BETWEEN 202610000000001 AND 202610000000009")

    assert "messages_202610" in plan
    assert "messages_202609" not in plan
    assert "messages_202611" not in plan


def test_a_newer_ledger_is_refused_in_one_clear_line(ledger, url):
    with ledger.engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(SiteFault, match="version 9999, newer than"):
        Ledger(url)


def _open(url: str) -> None:
    connect(url).dispose()


def test_several_that_open_a_new_ledger_at_once_make_it_once(url):
    context = multiprocessing.get_context("fork")
    openers = [context.Process(target=_open, args=(url,)) for _ in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()

    assert [opener.exitcode for opener in openers] == [0] * 4
    Ledger(url).close()


def test_a_database_that_ends_connections_is_retriable_and_the_next_call_succeeds(ledger, url):
    record(ledger, received(0))
    administrator = create_engine(url)
    with administrator.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    administrator.dispose()

    record(ledger, received(1))

    assert len(ledger.find()) == 2


def unheard_of(reception: Reception, **changes: object) -> Reception:
    """A message that our own reading would never have let through."""
    assert reception.message is not None
    return replace(reception, message=replace(reception.message, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "n" * 5_000},
        {"name": "".join(map(chr, random.Random(1).sample(range(0x4E00, 0x9FFF), 1_024)))},
        {"url": "a\0b"},
        {"bytes": 2**70},
    ],
)
def test_what_the_database_refuses_is_quarantined_alone(ledger, changes):
    good = [received(offset) for offset in range(20)]
    refused = unheard_of(good[7], **changes)

    recorded = record(ledger, *good[:7], refused, *good[8:])

    rows = ledger.find()
    assert recorded.rows == len(rows) == 20
    assert ledger.offsets("cluster") == {PARTITION: 20}
    assert [row.offset for row in rows if row.state is State.RECEIVED] == [*range(7), *range(8, 20)]
    assert rows[7].reason.startswith("the database refuses it: ")
    assert rows[7].excerpt is not None
    assert rows[7].kind is None
    assert record(ledger, *good).known_before == 20


def test_an_event_that_the_database_cannot_count_is_quarantined_and_the_others_are_counted(ledger):
    events = [received(offset, "transfer-failed") for offset in range(3)]

    recorded = record(ledger, events[0], unheard_of(events[1], src_rse="a\0b"), events[2])

    assert (recorded.rows, recorded.events) == (1, 2)
    assert [count.count for count in ledger.transfers()] == [2]
    assert [row.state for row in ledger.find()] == [State.QUARANTINED]


@st.composite
def texts(draw) -> str:
    """Texts of any length and alphabet that no database can compress."""
    first = draw(st.sampled_from([0x21, 0xC0, 0x4E00, 0x20000]))
    letters = random.Random(draw(st.integers(0, 9)))
    return "".join(chr(first + letters.randrange(90)) for _ in range(draw(st.sampled_from([1, 64, 250, 340, 1_024]))))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_understood_has_room_in_the_ledger_whatever_becomes_of_it(ledger, data):
    """And what isn't, has too, with its reason."""
    fields = st.sampled_from(["scope", "name", "src_rse", "dst_rse", "dst_url"])
    payload = data.draw(st.dictionaries(fields, texts(), max_size=5))
    data_id = data.draw(st.dictionaries(st.sampled_from(["skymap", "instrument", "group"]), texts(), max_size=3))
    sidecar = {**SIDECAR, "dataId": {**data_id, "tract": 1}}
    event_type = data.draw(st.just("transfer-done") | texts())
    partition = Partition("cluster", f"SITE-{uuid.uuid4()}", 0)
    value = encoded(event_type, rubin_sidecar=json.dumps(sidecar), **payload)
    reception = receive(partition, 0, value, NOW, None)

    recorded = ledger.record_batch([reception], {partition: 1}, now=NOW)

    assert recorded.rows + recorded.events == 1
    found = [row for row in ledger.find(limit=10_000) if row.topic == partition.topic]
    assert len(found) == recorded.rows
    for row in found:
        assert row.reason == reception.rejection
        if reception.message is not None and reception.message.sidecar is not None:
            waits_for = dimension_key(dict(reception.message.sidecar.data_id))
            assert ledger.settle([Settlement(row.row_id, State.WAITING, "dimensions", waits_for)]) == 1
            assert ledger.wake({waits_for}) >= 1
            assert ledger.settle([Settlement(row.row_id, State.INGESTED)]) == 1


def test_the_life_of_thirty_thousand_rows(ledger):
    batch = 10_000
    for start in range(0, 3 * batch, batch):
        ledger.record_batch([received(start + i) for i in range(batch)], {PARTITION: start + batch}, now=NOW)

    rows = ledger.pending({Kind.RAW}, limit=batch, now=NOW)
    waiting = [Settlement(row.row_id, State.WAITING, "dimensions", waits_for=f"k{row.offset % 100}") for row in rows]
    assert ledger.settle(waiting, now=NOW) == batch
    assert ledger.wake({f"k{number}" for number in range(50)}) == batch // 2
    assert ledger.counts()[State.WAITING] == batch // 2
    assert len(ledger.pending({Kind.RAW}, limit=batch, now=NOW + timedelta(days=1))) == batch
