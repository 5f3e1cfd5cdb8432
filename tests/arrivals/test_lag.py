"""How much is in Kafka that the ledger doesn't have, by topic."""

import pytest

from arrivals.drain import drain
from arrivals.lag import kafka_lag
from arrivals.ledger import Ledger
from resources.errors import Rejected, Retriable, SiteFault
from resources.kafka import LastError, make_producer
from resources.site import ArrivalSettings, KafkaSettings, PathRule
from services.embedded_kafka import EmbeddedKafka
from tests.arrivals.hermes import encoded


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


@pytest.fixture
def kafka(tmp_path):
    with EmbeddedKafka(tmp_path / "kafka") as service:
        yield KafkaSettings(address_file=service.address_file)


def settings(topics: str = "^LAPTOP-.*") -> ArrivalSettings:
    return ArrivalSettings(topics=topics, paths=(PathRule(announced="root://a", local="/a"),), instrument="x.Y")


def publish(kafka: KafkaSettings, topic: str, count: int) -> None:
    producer = make_producer(kafka, LastError())
    for _ in range(count):
        producer.produce(topic, encoded())
    assert producer.flush(30) == 0


def test_lag_is_what_was_published_and_not_yet_drained(kafka, ledger):
    publish(kafka, "LAPTOP-raw", 3)
    publish(kafka, "LAPTOP-calib", 2)
    publish(kafka, "ELSEWHERE-raw", 9)
    assert kafka_lag(kafka, settings(), ledger) == {"LAPTOP-calib": 2, "LAPTOP-raw": 3}

    drain(kafka, settings("^LAPTOP-raw"), ledger)
    publish(kafka, "LAPTOP-raw", 1)

    assert kafka_lag(kafka, settings(), ledger) == {"LAPTOP-calib": 2, "LAPTOP-raw": 1}


def test_a_kafka_that_is_away_is_said_soon(ledger):
    with pytest.raises(Retriable, match=r"is the broker up\?"):
        kafka_lag(KafkaSettings(bootstrap="127.0.0.1:1"), settings(), ledger, timeout_s=0.5)


def test_a_pattern_that_fits_nothing_is_named(kafka, ledger):
    with pytest.raises(Rejected, match=r"no topic matches \^NOWHERE"):
        kafka_lag(kafka, settings("^NOWHERE"), ledger)
    with pytest.raises(SiteFault, match="no regular expression"):
        kafka_lag(kafka, settings("("), ledger)
