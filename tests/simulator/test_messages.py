"""Messages look as Hermes' do, and come as messages come."""

import json
from collections import Counter

import numpy as np
import pytest

from simulator.messages import Announcement, DeliveredFile, FileKind, announce

HERMES_PAYLOAD = {
    *("activity", "request-id", "duration", "checksum-adler", "checksum-md5", "file-size", "bytes", "guid"),
    *("previous-request-id", "protocol", "scope", "name", "dataset", "datasetScope", "src-type", "src-rse", "src-url"),
    *("dst-type", "dst-rse", "dst-url", "reason", "transfer-endpoint", "transfer-id", "transfer-link", "created_at"),
    *("submitted_at", "started_at", "transferred_at", "tool-id", "account", "datatype", "transfer_link"),
    *("rubin_butler", "rubin_sidecar"),
}
FILES = [
    DeliveredFile(FileKind.ZIP, "raw", f"SimCam/20261101/{number}.zip", 1000 + number, "0badcafe", "0" * 32)
    for number in range(100)
]


@pytest.fixture
def messages():
    return list(announce(FILES, Announcement(), np.random.default_rng(1)))


def events(messages):
    return [json.loads(message.value) for message in messages]


def test_an_event_has_exactly_the_keys_that_hermes_sends(messages):
    for event in events(messages):
        assert set(event) == {"event_type", "payload", "created_at"}
        assert set(event["payload"]) == HERMES_PAYLOAD


def test_each_file_is_announced_and_a_few_are_twice(messages):
    arrivals = Counter(event["payload"]["name"] for event in events(messages) if event["event_type"] == "transfer-done")
    assert set(arrivals) == {file.name for file in FILES}
    assert Counter(arrivals.values()) == {1: 95, 2: 5}


def test_a_duplicate_is_the_same_message_again(messages):
    done = [message for message in messages if b'"transfer-done"' in message.value]
    assert len({message.value for message in done}) == len(FILES)


def test_some_events_are_no_arrivals(messages):
    assert Counter(event["event_type"] for event in events(messages))["transfer-submitted"] == 5


def test_messages_come_in_disorder_but_always_in_the_same(messages):
    names = [event["payload"]["name"] for event in events(messages)]
    assert names != sorted(names)
    assert list(announce(FILES, Announcement(), np.random.default_rng(1))) == messages


def test_the_topic_is_the_destination_and_the_scope(messages):
    assert {message.topic for message in messages} == {"LAPTOP-raw"}


def test_the_destination_is_below_the_announced_prefix():
    how = Announcement(destination_rse="LANCS", prefix="root://xrootd.site:1094//rucio", duplicate_share=0)
    (message, *_) = announce(FILES[:1], how, np.random.default_rng(1))
    payload = json.loads(message.value)["payload"]
    assert message.topic == "LANCS-raw"
    assert payload["dst-url"] == "root://xrootd.site:1094//rucio/raw/SimCam/20261101/0.zip"
    assert (payload["bytes"], payload["checksum-adler"], payload["rubin_butler"]) == (1000, "0badcafe", "zip_file")
