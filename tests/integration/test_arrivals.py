"""The way from Kafka to the Butler on the embedded defaults: nothing is lost, nothing is twice, whoever dies when."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from lsst.daf.butler import Butler

from arrivals.daemon import Turn, run_daemon, stopped_by_signals
from arrivals.drain import DrainLimits, drain
from arrivals.ingest import ingest_pending
from arrivals.ledger import Ledger
from arrivals.states import State
from resources.kafka import LastError, make_producer
from resources.site import ArrivalSettings, KafkaSettings
from services.embedded_kafka import EmbeddedKafka
from tests.arrivals.delivered import DETECTORS, ReceivingSite, announced, deliver, make_repository, receiving_site
from tests.promises import PROMISES

pytestmark = [pytest.mark.integration, PROMISES]

VISITS = 4


@pytest.fixture(scope="module")
def delivery(tmp_path_factory):
    return deliver(tmp_path_factory.mktemp("survey") / "survey")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return make_repository(tmp_path_factory.mktemp("repository") / "repository")


@pytest.fixture
def site(tmp_path, repository, delivery):
    return receiving_site(tmp_path, repository, delivery.rucio_folder)


@pytest.fixture
def kafka(tmp_path):
    with EmbeddedKafka(tmp_path / "kafka") as service:
        yield service


def publish(kafka: EmbeddedKafka, messages) -> None:
    producer = make_producer(KafkaSettings(address_file=kafka.address_file), LastError())
    for message in messages:
        producer.produce(message.topic, message.value, message.key)
    assert producer.flush(30) == 0


def assert_all_is_there(site: ReceivingSite, delivery, messages: int) -> None:
    counts = site.ledger.counts()
    assert sum(counts.values()) == messages
    assert counts[State.INGESTED] == len(delivery.files)
    assert counts[State.DUPLICATE] == messages - len(delivery.files)
    assert site.count("raw") == VISITS * len(DETECTORS)
    assert site.count("flat") == len(DETECTORS)
    assert site.dimensions("visit") == VISITS
    assert site.dimensions("visit_detector_region") == VISITS * len(DETECTORS)


def test_a_shuffled_delivery_with_dimensions_last_arrives_whole_and_twice_is_the_same(site, kafka, delivery):
    settings = KafkaSettings(address_file=kafka.address_file)
    messages = announced(delivery.files, duplicates=0.2)
    dimensions = [message for message in messages if b"dim_file" in message.value]
    others = [message for message in messages if b"dim_file" not in message.value]
    publish(kafka, others)
    drain(settings, site.settings, site.ledger)
    assert site.ingest().count(State.WAITING) > 0

    publish(kafka, dimensions)
    drain(settings, site.settings, site.ledger)
    site.ingest()
    assert_all_is_there(site, delivery, len(messages))

    publish(kafka, messages)
    drain(settings, site.settings, site.ledger)
    site.ingest()
    assert_all_is_there(site, delivery, 2 * len(messages))


def test_the_daemon_takes_in_what_is_published_and_stops_when_told(site, kafka, delivery):
    stop = threading.Event()
    turns: list[Turn] = []

    def on_turn(turn: Turn) -> None:
        turns.append(turn)
        if len(turns) == 1:
            publish(kafka, announced(delivery.files))
        if turn.idle and len(turns) > 1:
            stop.set()

    settings = KafkaSettings(address_file=kafka.address_file)
    run_daemon(settings, site.settings, site.ledger, site.butler, stop, poll_s=0.01, on_turn=on_turn)

    assert_all_is_there(site, delivery, len(delivery.files))


def test_the_daemon_outlasts_a_kafka_that_is_away(site, kafka, delivery):
    stop = threading.Event()
    turns: list[Turn] = []
    kafka.address_file.write_text("127.0.0.1:1")

    def on_turn(turn: Turn) -> None:
        turns.append(turn)
        if turn.trouble:
            kafka.stop()
            kafka.start()
            publish(kafka, announced(delivery.files))
        elif turn.idle:
            stop.set()

    run_daemon(
        KafkaSettings(address_file=kafka.address_file),
        site.settings,
        site.ledger,
        site.butler,
        stop,
        limits=DrainLimits(seconds=1.0),
        poll_s=0.01,
        on_turn=on_turn,
    )

    assert "is the broker up?" in turns[0].trouble
    assert_all_is_there(site, delivery, len(delivery.files))


def test_a_signal_stops_gently():
    with stopped_by_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(10)


def drain_and_ingest(kafka: KafkaSettings, settings: ArrivalSettings, folder: Path) -> None:
    """What the sensor and the asset do, with connections of its own."""
    ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite3")
    drain(kafka, settings, ledger)
    ingest_pending(Butler.from_config(str(folder / "repo"), writeable=True), ledger, settings)


def test_killed_at_any_moment_it_ends_with_the_same_datasets(site, kafka, delivery, tmp_path):
    messages = announced(delivery.files, duplicates=0.2)
    publish(kafka, messages)
    work = (KafkaSettings(address_file=kafka.address_file), site.settings, tmp_path)

    for delay_s in (0.02, 0.1, 0.2, 0.4, 0.8):
        process = multiprocessing.get_context("fork").Process(target=drain_and_ingest, args=work)
        process.start()
        time.sleep(delay_s)
        process.kill()
        process.join()
    drain_and_ingest(*work)

    assert_all_is_there(site, delivery, len(messages))


def test_events_that_announce_no_file_are_counted(site, kafka, delivery):
    messages = list(delivery.messages())
    publish(kafka, messages)

    result = drain(KafkaSettings(address_file=kafka.address_file), site.settings, site.ledger)

    by_type = {count.event_type: count.count for count in site.ledger.transfers()}
    assert result.rows + result.events == len(messages)
    assert by_type == {"transfer-done": result.rows, "transfer-submitted": result.events}
    assert result.events > 0
