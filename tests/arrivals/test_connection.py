"""The connection writes the group's offsets for displays, and lets no drain wait for what only displays need."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from arrivals import connection as module
from arrivals.connection import COMMIT_PAUSE_S, Connection
from resources.site import KafkaSettings

READ = [TopicPartition("SITE-raw", 0, 7)]


class Answering:
    """A consumer of a cluster that answers so, whatever is to be written."""

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.asked = 0

    def commit(self, offsets, asynchronous):
        self.asked += 1
        if self.error:
            raise KafkaException(KafkaError(self.error))

    def consume(self, number, timeout):
        return []


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def connection(monkeypatch):
    with (
        Connection(KafkaSettings(bootstrap="127.0.0.1:9"), "drp-arrivals") as connection,
        monkeypatch.context() as patch,
    ):
        patch.setattr(connection, "consumer", Answering())
        yield connection


def test_a_group_for_which_nobody_answers_is_asked_for_seldom(connection, clock):
    connection.consumer.error = KafkaError._WAIT_COORD

    first, second = connection.commit(READ), connection.commit(READ)
    clock.now += COMMIT_PAUSE_S
    connection.commit(READ)

    assert first == second
    assert first.startswith("127.0.0.1:9: Kafka: no broker answers for the group; can it make its topic __consumer_")
    assert connection.consumer.asked == 2


def test_a_group_that_can_be_had_again_is_no_trouble_any_more(connection, clock):
    connection.consumer.error = KafkaError._WAIT_COORD
    assert connection.commit(READ)

    connection.consumer.error = 0
    clock.now += COMMIT_PAUSE_S

    assert connection.commit(READ) == ""
