"""A soak's publisher: what the broker doesn't confirm is never taken for published."""

import threading

import pytest

from benchmarks.soak.publisher import Publisher
from benchmarks.soak.victims import Stuck

MOCK_CLUSTER = {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0}
NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


class Letters:
    """As many messages as one likes, in one partition."""

    def __init__(self, count: int) -> None:
        self.partition_of = [0] * count

    def __len__(self) -> int:
        return len(self.partition_of)

    def value(self, position: int) -> bytes:
        return f"message {position}".encode()


def test_what_the_broker_has_confirmed_where_it_was_put_is_counted():
    publisher = Publisher(MOCK_CLUSTER, "letters", Letters(20))
    struck = threading.Event()

    publisher.publish(20, 5, struck)

    assert struck.is_set()
    assert (publisher.produced, publisher.confirmed, publisher.placed) == (20, 20, 20)


def test_a_broker_that_confirms_nothing_is_no_silent_success():
    publisher = Publisher(NOWHERE, "letters", Letters(3), patience_s=0.2)
    struck = threading.Event()

    with pytest.raises(Stuck, match="has confirmed 0 of 3 messages"):
        publisher.publish(3, 0, struck)

    assert struck.is_set()
    assert publisher.placed == 0
