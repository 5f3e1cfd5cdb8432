"""MirrorMaker2 copies what is meant for the site, under the name that the policy says, and nothing else."""

import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from services.catalogue import READER, READER_GROUPS

pytestmark = pytest.mark.integration

PATIENCE_S = 120


def write(cluster, topic, count):
    producer = Producer(cluster.client())
    for number in range(count):
        producer.produce(topic, b"%d" % number, key=b"key %d" % number)
    assert producer.flush(PATIENCE_S) == 0


def read(cluster, topic, count):
    """Read as the platform does, as soon as the topic is there."""
    consumer = Consumer(cluster.client(READER) | {"group.id": f"{READER_GROUPS}test"})
    deadline = time.monotonic() + PATIENCE_S
    while not (partitions := consumer.list_topics(topic).topics[topic].partitions):
        assert time.monotonic() < deadline, f"{topic} doesn't come"
        time.sleep(0.2)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    messages = []
    while len(messages) < count and time.monotonic() < deadline:
        messages += consumer.consume(count - len(messages), timeout=1)
    consumer.close()
    return messages


@pytest.mark.parametrize("fixture", ["mirror_maker", "prefixing_mirror_maker"])
def test_what_is_meant_for_the_site_arrives_there_whole(request, kafka_usdf, kafka_site, new_topic, fixture):
    copier = request.getfixturevalue(fixture)
    topic = new_topic(kafka_usdf, 3)
    write(kafka_usdf, topic, 500)

    copies = read(kafka_site, copier.mirrored(topic), 500)

    assert sorted(int(copy.value()) for copy in copies) == list(range(500))
    assert all(copy.key() == b"key " + copy.value() for copy in copies)


def test_the_prefix_is_the_alias_of_the_source(mirror_maker, prefixing_mirror_maker):
    assert mirror_maker.mirrored("LANCS-raw") == "LANCS-raw"
    assert prefixing_mirror_maker.mirrored("LANCS-raw") == "usdf.LANCS-raw"


def test_other_sites_topics_stay_where_they_are(mirror_maker, kafka_usdf, kafka_site, new_topic):
    kafka_usdf.create_topic("IN2P3-raw")
    write(kafka_usdf, "IN2P3-raw", 1)
    later = new_topic(kafka_usdf, 1)
    write(kafka_usdf, later, 1)
    assert len(read(kafka_site, mirror_maker.mirrored(later), 1)) == 1

    assert not any("IN2P3" in topic for topic in kafka_site.admin().list_topics().topics)


def test_nothing_is_written_to_the_source(mirror_maker, kafka_usdf):
    assert not any("mm2" in topic or "heartbeats" in topic for topic in kafka_usdf.admin().list_topics().topics)
