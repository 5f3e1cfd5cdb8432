"""Services outlive their starter, are found again by their folder, and end when they are told to."""

import os
import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from services.embedded_kafka import EmbeddedKafka

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(tmp_path):
    service = EmbeddedKafka(tmp_path / "kafka", {"survey-raw": 3})
    yield service
    service.stop()


def test_messages_go_in_and_come_out(kafka):
    kafka.start()
    producer = Producer({"bootstrap.servers": kafka.address})
    producer.produce("survey-raw", b"hello", partition=1)
    assert producer.flush(30) == 0

    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "test"})
    consumer.assign([TopicPartition("survey-raw", 1, 0)])
    [message] = consumer.consume(1, timeout=30)
    assert message.value() == b"hello"
    assert len(consumer.list_topics().topics["survey-raw"].partitions) == 3
    consumer.close()


def test_it_outlives_its_starter_and_is_found_again(kafka):
    start = (
        "from pathlib import Path; from services.embedded_kafka import EmbeddedKafka;"
        f"print(EmbeddedKafka(Path({str(kafka.folder)!r})).start().pid)"
    )
    starter = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True, timeout=60)

    assert kafka.pid == int(starter.stdout)
    address = kafka.address
    assert kafka.start().address == address


def test_starting_twice_gives_the_same_process(kafka):
    assert kafka.start().pid == kafka.start().pid


def test_the_recorded_pid_is_the_servers_own(kafka):
    kafka.start()
    pid = kafka.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while kafka.pid is not None and time.monotonic() < deadline:
        time.sleep(0.01)

    assert kafka.pid is None
    assert not kafka.is_ready()
    assert kafka.start().pid != pid


def test_it_is_gone_after_stop_and_stopping_again_does_nothing(kafka):
    pid = kafka.start().pid
    kafka.stop()

    assert kafka.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    kafka.stop()


def test_a_pid_that_somebody_else_got_is_not_taken_for_the_service(kafka):
    kafka.folder.mkdir()
    (kafka.folder / "pid").write_text(f"{os.getpid()} 1")

    assert kafka.pid is None
