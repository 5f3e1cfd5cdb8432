"""Kafka lets in who shows the right certificate, lets him do what the rules allow, and keeps what it has taken."""

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.apache_kafka import ApacheKafka
from services.catalogue import READER, READER_GROUPS
from services.network import NetworkLink
from services.pki import Authority

pytestmark = pytest.mark.integration

PATIENCE_S = 60


def write(cluster, topic, values, who="admin"):
    """Write to partition 0; give the errors that the cluster answers with."""
    errors = []
    producer = Producer(cluster.client(who) | {"message.max.bytes": 16_000_000})
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(PATIENCE_S) == 0
    return [error for error in errors if error is not None]


def read(cluster, topic, count, who=READER, partition=0):
    consumer = Consumer(cluster.client(who) | {"group.id": f"{READER_GROUPS}test", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0)])
    messages = consumer.consume(count, timeout=PATIENCE_S)
    consumer.close()
    return messages


@pytest.fixture
def own_kafka(tmp_path):
    service = ApacheKafka(tmp_path / "kafka", Authority(tmp_path / "pki"), topics={"LANCS-raw": 3})
    yield service
    service.stop()


def test_the_platform_reads_what_is_meant_for_the_site_and_keeps_its_groups_offsets(kafka_site, new_topic):
    topic = new_topic(kafka_site, 1)
    assert not write(kafka_site, topic, [b"one", b"two"])

    assert [message.value() for message in read(kafka_site, topic, 2)] == [b"one", b"two"]
    consumer = Consumer(kafka_site.client(READER) | {"group.id": f"{READER_GROUPS}test"})
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    assert consumer.committed([TopicPartition(topic, 0)], timeout=PATIENCE_S)[0].offset == 2
    consumer.close()


def test_the_platform_writes_nothing(kafka_site, new_topic):
    [error] = write(kafka_site, new_topic(kafka_site, 1), [b"no"], who=READER)

    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_topic_that_is_not_meant_for_the_site_is_closed_to_the_platform(kafka_site):
    kafka_site.create_topic("RAL-raw")

    seen = AdminClient(kafka_site.client(READER)).list_topics("RAL-raw", timeout=PATIENCE_S).topics["RAL-raw"]

    assert seen.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_an_unknown_principal_may_do_nothing(kafka_site, new_topic):
    topic = new_topic(kafka_site, 1)

    [message] = read(kafka_site, topic, 1, who="stranger")

    assert message.error().code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def test_a_message_of_ten_megabytes_passes(kafka_site, new_topic):
    topic = new_topic(kafka_site, 1)
    assert not write(kafka_site, topic, [b"x" * 10_000_000])

    [message] = read(kafka_site, topic, 1)
    assert len(message.value()) == 10_000_000


def test_a_topic_grows_and_goes(kafka_site, new_topic):
    topic = new_topic(kafka_site, 2)
    kafka_site.grow_topic(topic, 5)
    assert len(kafka_site.admin().list_topics(topic).topics[topic].partitions) == 5

    kafka_site.delete_topic(topic)
    assert topic not in kafka_site.admin().list_topics().topics


def test_making_a_topic_again_changes_nothing_and_a_wrong_name_is_an_error(kafka_site, new_topic):
    topic = new_topic(kafka_site, 2)
    kafka_site.create_topic(topic, 7)
    assert len(kafka_site.admin().list_topics(topic).topics[topic].partitions) == 2

    with pytest.raises(KafkaException):
        kafka_site.create_topic("not/a/topic")


def test_what_was_taken_survives_a_kill_and_the_address_stays(own_kafka):
    own_kafka.start()
    address = own_kafka.address
    assert not write(own_kafka, "LANCS-raw", [b"%d" % number for number in range(1000)])

    own_kafka.kill()
    assert own_kafka.pid is None
    assert not own_kafka.is_ready()
    own_kafka.start()

    assert own_kafka.address == address
    values = {message.value() for message in read(own_kafka, "LANCS-raw", 1000, who="admin")}
    assert values == {b"%d" % number for number in range(1000)}


def test_a_client_behind_a_cut_network_goes_on_when_it_is_restored(own_kafka, tmp_path):
    own_kafka.start()
    with NetworkLink(tmp_path / "link", own_kafka.proxied_port, own_kafka.proxy_port) as link:
        producer = Producer(own_kafka.client("admin", link.address))
        producer.produce("LANCS-raw", b"before", partition=0)
        assert producer.flush(PATIENCE_S) == 0

        link.cut()
        producer.produce("LANCS-raw", b"meanwhile", partition=0)
        assert producer.flush(1) == 1
        link.restore()
        assert producer.flush(PATIENCE_S) == 0

    assert [message.value() for message in read(own_kafka, "LANCS-raw", 2, who="admin")] == [b"before", b"meanwhile"]
