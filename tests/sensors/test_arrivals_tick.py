"""One tick of the arrivals sensor: what it reads, starts and says, and that it never fails at an operator."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from arrivals.announcement import Kind
from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.records import Partition, Reception, Settlement
from arrivals.states import State
from resources.site import Site, read_site
from sensors.arrivals import ARRIVING_TAG, Cursor, build_arrivals_sensor
from sensors.due import PRODUCTS
from sensors.transfers import LOOKS_BACK, build_transfers_sensor, changed_days, looked_at_since
from services.embedded_kafka import EmbeddedKafka
from tests.arrivals.hermes import SIDECAR, encoded

TOP = Path(__file__).parents[2]
RAW, OTHERS, HEALTH, TRANSFERS = (dg.AssetKey(name) for name in ("raw", "others", "arrivals", "transfers"))
DAYS = dg.DailyPartitionsDefinition("20250601", fmt="%Y%m%d", hour_offset=12, end_offset=1, timezone="UTC")
TRANSFER_DAYS = dg.DailyPartitionsDefinition("2025-01-01", end_offset=1, timezone="UTC")
PLACE = Partition("cluster", "LAPTOP-raw", 0)


@pytest.fixture
def site(monkeypatch, tmp_path) -> Site:
    monkeypatch.setenv("DRP_STATE", str(tmp_path))
    monkeypatch.setenv("DRP_REPORTS_URL", "http://127.0.0.1:1")
    return read_site(TOP / "deploy" / "sites" / "laptop.yaml")


@pytest.fixture
def tick(site):
    """Evaluate the sensor with the cursor that the last evaluation left."""
    usual = site
    with dg.DagsterInstance.ephemeral() as instance:

        def evaluate(cursor: str | None = None, site: Site = usual) -> dg.SensorResult:
            sensor = build_arrivals_sensor(site, RAW, OTHERS, HEALTH, DAYS)
            with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
                result = sensor(context)
            assert isinstance(result, dg.SensorResult)
            return result

        yield evaluate


def receive(site: Site, *exposures: int, age_s: float = 60.0) -> None:
    ledger = Ledger(site.ledger)
    start = max(ledger.offsets("cluster").values(), default=0)
    receptions = []
    for offset, exposure in enumerate(exposures, start):
        data_id = {"instrument": "LATISS", "detector": 0, "exposure": exposure}
        sidecar = json.dumps({**SIDECAR, "dataId": {"dataId": data_id}})
        receptions.append(Reception(PLACE, offset, parse_message(encoded(rubin_sidecar=sidecar, name=f"{exposure}"))))
    now = datetime.now(UTC) - timedelta(seconds=age_s)
    ledger.record_batch(receptions, {PLACE: start + len(exposures)}, now=now)
    ledger.close()


def settle_all(site: Site) -> None:
    """Say that everything has been ingested."""
    ledger = Ledger(site.ledger)
    rows = ledger.pending(set(Kind))
    ledger.settle([Settlement(row.row_id, State.INGESTED) for row in rows])
    ledger.close()


def test_without_kafka_what_the_ledger_holds_is_ingested_and_the_trouble_said(site, tick):
    receive(site, 2026110100001, 2026110100002)

    result = tick()

    [request] = result.run_requests
    assert request.partition_key == "20261101"
    assert request.asset_selection == [RAW]
    checks = {e.check_name: e for e in result.asset_events if isinstance(e, dg.AssetCheckEvaluation)}
    assert checks.keys() == {"kafka_lag", "ingest_delay", "oldest_waiting", "quarantine"}
    assert not checks["kafka_lag"].passed
    assert "is the cluster started?" in str(checks["kafka_lag"].description)


def test_a_tick_that_is_repeated_asks_for_the_same_run_and_the_next_one_for_another(site, tick):
    receive(site, 2026110100001)
    first = tick()

    assert tick().run_requests[0].run_key == first.run_requests[0].run_key
    assert tick(first.cursor).run_requests[0].run_key != first.run_requests[0].run_key


def test_a_night_that_never_pauses_is_asked_for_again_and_again_and_once_more_when_it_is_over(site, tick):
    restless = site.model_copy(
        update={"arrivals": site.arrivals.model_copy(update={"quiescent_s": 1e6, "longest_wait_s": 50})}
    )
    receive(site, 2026110100001)
    first = tick(site=restless)
    receive(site, 2026110100002)
    second = tick(first.cursor, site=restless)
    settle_all(site)
    nothing = tick(second.cursor, site=restless)
    last = tick(nothing.cursor, site=site)
    after = tick(last.cursor, site=site)

    requests = [result.run_requests[0] for result in (first, second, last)]
    assert [request.partition_key for request in requests] == ["20261101"] * 3
    assert len({request.run_key for request in requests}) == 3
    assert [request.tags.get(ARRIVING_TAG) for request in requests] == ["true", "true", None]
    assert not nothing.run_requests
    assert not after.run_requests


def test_a_day_without_partition_is_ingested_with_what_has_none(site, tick):
    receive(site, 2019123100001, 2098123100001)

    [request] = tick().run_requests

    assert (request.partition_key, request.asset_selection, request.tags["drp/ingest"]) == (None, [OTHERS], PRODUCTS)


def test_health_is_reported_now_and_then_and_when_trouble_comes_or_goes(site, tick, tmp_path):
    away = tick()
    again = tick(away.cursor)
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        assert kafka.address_file == site.kafka.address_file
        back = tick(again.cursor)
        quiet = tick(back.cursor)

    assert [len(result.asset_events) for result in (away, again, back, quiet)] == [5, 0, 5, 0]
    assert [Cursor.read(str(result.cursor)).tick for result in (away, again, back, quiet)] == [1, 2, 3, 4]
    assert "nothing is due" in str(quiet.skip_reason.skip_message if quiet.skip_reason else "")


def test_a_ledger_that_is_away_is_a_line_and_no_failure(site, tick, tmp_path):
    (tmp_path / "ledger.sqlite3").mkdir()

    result = tick()

    assert result.run_requests == []
    assert "unable to open database file" in str(result.skip_reason)
    assert Cursor.read(str(result.cursor)).trouble


@pytest.mark.parametrize("text", [None, "", "nonsense", "[]", '{"tick": "x"}', "7", '{"arriving": 3}'])
def test_a_cursor_that_nobody_wrote_begins_anew(text):
    assert Cursor.read(text) == Cursor()


def test_a_cursor_comes_back_as_it_went():
    cursor = Cursor(7, 12.5, "Kafka: down", {"20261101": 1.5})
    assert Cursor.read(str(cursor)) == cursor


def test_transfers_are_looked_at_again_only_where_something_new_was_heard():
    counts = {f"2026-11-{day:02d}": 5 for day in range(1, 12)}
    assert changed_days(counts, counts, lambda day: True) == []
    assert changed_days(counts, {**counts, "2026-11-03": 4}, lambda day: True) == ["2026-11-03"]
    assert changed_days(counts, {}, lambda day: day < "2026-11-03") == ["2026-11-02", "2026-11-01"]
    assert len(changed_days(counts, {}, lambda day: True)) == 7


def test_the_oldest_day_of_transfers_is_looked_at_whole_at_any_hour():
    oldest = datetime(2026, 9, 2, tzinfo=UTC)
    hours = [oldest + LOOKS_BACK + timedelta(hours=hour, minutes=30) for hour in range(24)]

    assert {looked_at_since(now) for now in hours} == {oldest}


def test_the_transfers_sensor_asks_once_for_each_news(site):
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    event = json.loads(encoded("transfer-failed"))
    event["created_at"] = f"{today} 00:00:01"
    ledger = Ledger(site.ledger)
    message = parse_message(json.dumps(event).encode())
    ledger.record_batch([Reception(PLACE, 0, message)], {PLACE: 1})
    ledger.close()
    sensor = build_transfers_sensor(site, TRANSFERS, TRANSFER_DAYS)

    with dg.DagsterInstance.ephemeral() as instance:
        first = sensor(dg.build_sensor_context(instance=instance))
        second = sensor(dg.build_sensor_context(instance=instance, cursor=first.cursor))

    assert [(r.partition_key, r.run_key) for r in first.run_requests] == [(today, f"transfers/{today}/1")]
    assert second.run_requests == []
