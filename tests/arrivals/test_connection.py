"""The connection reads on where it is told to, and lets no drain wait for offsets that only displays need."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from arrivals import connection as module
from arrivals.connection import COMMIT_PAUSE_S, Connection
from resources.site import KafkaSettings

PLACE = ("SITE-raw", 0)
READ = [TopicPartition(*PLACE, 7)]


class Answering:
    """A consumer of a cluster that answers so, whatever is to be written."""

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.asked = 0
        self.busy = 0
        self.assigned: list[TopicPartition] = []
        self.sought: list[TopicPartition] = []

    def assign(self, positions):
        self.assigned += positions

    def seek(self, position):
        if self.busy:
            self.busy -= 1
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.sought.append(position)

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


def test_kafka_is_asked_about_the_epochs_that_are_known_once_it_is_read_from(connection):
    connection.consumer.busy = 2

    assert connection.read_from({PLACE: 7, ("SITE-raw", 1): 8}, {PLACE: 3})
    assert not connection.read_from({PLACE: 7, ("SITE-raw", 1): 8}, {PLACE: 3})

    assert [position.offset for position in connection.consumer.assigned] == [7, 8]
    assert [(each.partition, each.offset, each.leader_epoch) for each in connection.consumer.sought] == [(0, 7, 3)]


def test_what_came_while_a_commit_failed_is_read_again(connection):
    connection.reached({PLACE: 7})
    assert not connection.read_from({PLACE: 7}, {})

    connection.consumer.error = KafkaError._WAIT_COORD
    connection.commit(READ)

    assert connection.read_from({PLACE: 7}, {})


def test_a_group_for_which_nobody_answers_is_asked_for_seldom(connection, clock):
    connection.consumer.error = KafkaError._WAIT_COORD

    first, second = connection.commit(READ), connection.commit(READ)
    clock.now += COMMIT_PAUSE_S
    connection.commit(READ)

    assert first == second
    assert first.startswith("127.0.0.1:9: Kafka: no broker answers for the group; is it up? if it is, can it make __")
    assert connection.consumer.asked == 2


def test_a_group_that_can_be_had_again_is_no_trouble_any_more(connection, clock):
    connection.consumer.error = KafkaError._WAIT_COORD
    assert connection.commit(READ)

    connection.consumer.error = 0
    clock.now += COMMIT_PAUSE_S

    assert connection.commit(READ) == ""
