"""The exposition as Prometheus reads it: names by its conventions, few labels, honest without a database."""

import itertools
import re
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from arrivals.daemon import Turn
from arrivals.drain import DrainResult
from arrivals.ingest import IngestReport
from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.metrics import MOST_PAIRS, ArrivalsCollector, DaemonMetrics, make_registry, served
from arrivals.overview import Overview
from arrivals.records import Partition, Reception
from arrivals.states import State
from resources.errors import Retriable, SiteFault
from resources.site import ArrivalSettings, KafkaSettings, PathRule
from tests.arrivals.hermes import encoded

PLACE = Partition("cluster", "LAPTOP-raw", 0)
UNITS = ("_seconds", "_bytes", "_messages", "_datasets", "_events", "_turns", "_up")


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


def collect_from(ledger, folder, clock) -> ArrivalsCollector:
    settings = ArrivalSettings(topics="^X", paths=(PathRule(announced="root://a", local="/a"),), instrument="x.Y")
    kafka = KafkaSettings(address_file=folder / "no-address")
    return ArrivalsCollector(kafka, settings, ledger, Overview(ledger), least_age_s=0.0, clock=clock)


@pytest.fixture
def collector(ledger, tmp_path):
    return collect_from(ledger, tmp_path, lambda: 0.0)


@pytest.fixture
def registry(collector):
    registry = make_registry(collector)
    DaemonMetrics(registry).on_turn(Turn(DrainResult(rows=2, elapsed_s=0.2), IngestReport()))
    return registry


def receive(ledger, *values: bytes) -> None:
    start = max(ledger.offsets("cluster").values(), default=0)
    receptions = [Reception(PLACE, start + index, parse_message(value)) for index, value in enumerate(values)]
    broken = Reception(PLACE, start + len(values), None, "not JSON")
    ledger.record_batch([*receptions, broken], {PLACE: start + len(values) + 1}, now=datetime.now(UTC))


def families(registry):
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_every_metric_has_help_a_unit_and_counters_end_with_total(ledger, registry):
    receive(ledger, encoded())
    ours = [family for family in families(registry) if family.name.startswith("drp_")]

    assert len(ours) > 15
    for family in ours:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".")
        assert family.name.endswith(UNITS), family.name
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        else:
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))


def test_the_ledgers_counts_are_told_by_kind_and_state(ledger, registry):
    receive(ledger, encoded(), encoded(name="other/AT_O_20250113_000005_R00_S00.fits"))

    assert value(registry, "drp_arrivals_messages", kind="raw", state="received") == 2
    assert value(registry, "drp_arrivals_messages", kind="unknown", state="quarantined") == 1
    assert value(registry, "drp_arrivals_announced_bytes", kind="raw", state="received") == 2 * 14912640
    assert value(registry, "drp_arrivals_quarantined_messages", reason="not_understood") == 1
    assert value(registry, "drp_arrivals_quarantined_messages", reason="file_missing") == 0
    labels = {"src_rse": "XRD1", "dst_rse": "XRD5", "event": "transfer-done"}
    assert value(registry, "drp_transfer_events_total", **labels) == 2
    assert value(registry, "drp_transfer_duration_seconds_total", **labels) == 8
    assert value(registry, "drp_arrivals_ledger_up") == 1


def test_without_kafka_its_lag_is_not_told_and_that_is(registry):
    assert value(registry, "drp_arrivals_kafka_up") == 0
    assert not [f for f in families(registry) if f.name == "drp_arrivals_kafka_lag_messages" and f.samples]


def test_without_a_database_it_says_so_and_serves_on(collector, registry, monkeypatch):
    def away(*_):
        raise Retriable("database: gone")

    monkeypatch.setattr(Overview, "states", away)
    assert value(registry, "drp_arrivals_ledger_up") == 0
    assert value(registry, "drp_arrivals_messages", kind="raw", state="received") is None
    assert value(registry, "drp_ingestd_read_messages_total") == 2

    monkeypatch.undo()
    assert value(registry, "drp_arrivals_ledger_up") == 1


def test_labels_stay_few_whatever_messages_say(ledger, registry):
    receive(
        ledger,
        *(encoded("transfer-failed", **{"src-rse": f"RSE{number}"}) for number in range(3 * MOST_PAIRS)),
        *(encoded(f"invented-{number}") for number in range(300)),
    )
    [events] = [family for family in families(registry) if family.name == "drp_transfer_events"]

    names = {tuple(sample.labels.values()) for sample in events.samples}
    assert len(names) <= 2 * (MOST_PAIRS + 1)
    assert sum(sample.value for sample in events.samples) == 3 * MOST_PAIRS + 300
    assert {sample.labels["event"] for sample in events.samples} == {"transfer-failed", "other"}


def test_the_daemons_turns_are_counted(collector):
    registry = make_registry(collector)
    metrics = DaemonMetrics(registry)
    metrics.on_turn(Turn(DrainResult(rows=5, elapsed_s=0.2), IngestReport()))
    metrics.on_turn(Turn(DrainResult(), IngestReport()))
    metrics.on_turn(Turn(trouble="Kafka is away"))

    assert [value(registry, "drp_ingestd_turns_total", result=r) for r in ("worked", "idle", "trouble")] == [1, 1, 1]
    assert value(registry, "drp_ingestd_drain_duration_seconds_count") == 1
    assert value(registry, "drp_ingestd_settled_messages_total", state=State.INGESTED) == 0
    assert (value(registry, "drp_ingestd_last_turn_timestamp_seconds") or 0) > 1_700_000_000


def test_metrics_are_served_while_asked_for_and_no_longer(registry):
    with served(registry, 0) as url:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"drp_arrivals_ledger_up 1.0" in answer.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


def test_a_port_that_is_taken_is_said_in_one_line(registry):
    with served(registry, 0) as url:
        port = int(url.rsplit(":", maxsplit=1)[1].partition("/")[0])
        with (
            pytest.raises(SiteFault, match=rf"127.0.0.1:{port}: metrics can't be served: .*--metrics-port"),
            served(registry, port),
        ):
            pass


def test_an_answer_that_took_the_ledger_long_serves_long(ledger, tmp_path):
    looks = itertools.count(step=3)
    registry = CollectorRegistry()
    registry.register(collect_from(ledger, tmp_path, looks.__next__))
    seen = set()

    # Each look at the clock takes three seconds, of which three are the ledger's: an answer serves for thirty.
    while next(looks) < 180:
        receive(ledger)
        seen.add(value(registry, "drp_arrivals_quarantined_messages", reason="not_understood"))

    assert 2 <= len(seen) <= 6
