"""The connection writes the group's offsets for displays, and lets no drain wait for what only displays need."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from arrivals import connection as module
from arrivals.connection import COMMIT_PAUSE_S, Connection
from resources.site import KafkaSettings

READ = [TopicPartition("SITE-raw", 0, 7)]


class Answering:
    """An admin client of a cluster that answers so, whatever it is asked to write."""

    def __init__(self, error: KafkaError | None) -> None:
        self.error = error
        self.asked: list[float] = []

    def alter_consumer_group_offsets(self, wanted, request_timeout):
        self.asked.append(request_timeout)
        answer: Future = Future()
        if self.error is None:
            answer.set_result(SimpleNamespace(topic_partitions=wanted[0].topic_partitions))
        else:
            answer.set_exception(KafkaException(self.error))
        return {"group": answer}


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def connection():
    with Connection(KafkaSettings(bootstrap="127.0.0.1:9"), "drp-arrivals") as connection:
        yield connection


def test_a_group_for_which_nobody_answers_is_asked_for_seldom_and_shortly(connection, clock):
    connection.admin = Answering(KafkaError(KafkaError._TIMED_OUT))

    first, second = connection.commit(READ), connection.commit(READ)
    clock.now += COMMIT_PAUSE_S
    connection.commit(READ)

    assert first == second
    assert first.startswith("127.0.0.1:9: Kafka: no broker answers for the group; does it have its topic __consumer_")
    assert len(connection.admin.asked) == 2
    assert max(connection.admin.asked) <= 5


def test_a_group_that_can_be_had_again_is_no_trouble_any_more(connection, clock):
    connection.admin = Answering(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE))
    assert connection.commit(READ)

    connection.admin = Answering(None)
    clock.now += COMMIT_PAUSE_S

    assert connection.commit(READ) == ""
