"""A drain reads what is new once, records it with its offsets, and stops where it is told to."""

import json
import re

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from arrivals import drain as module
from arrivals.connection import Connection
from arrivals.drain import Drain, DrainLimits
from arrivals.ledger import Ledger
from arrivals.states import State
from resources.errors import Retriable, SiteFault
from resources.kafka import LastError, make_producer
from resources.site import ArrivalSettings, KafkaSettings
from services.embedded_kafka import EmbeddedKafka
from tests.arrivals.draining import WAYS, draining
from tests.arrivals.hermes import encoded

pytestmark = pytest.mark.integration


class Topics:
    """A Kafka of its own, with a producer."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.service = kafka
        self.settings = KafkaSettings(address_file=kafka.address_file)
        self.producer = make_producer(self.settings, LastError())

    def publish(self, *values: bytes, topic: str = "SITE-raw", partition: int = -1) -> None:
        for value in values:
            self.producer.produce(topic, value, partition=partition)
        assert self.producer.flush(30) == 0


@pytest.fixture
def kafka(tmp_path):
    with EmbeddedKafka(tmp_path / "kafka", {"SITE-raw": 3, "usdf.SITE-calib": 1, "OTHER-raw": 1}) as service:
        yield Topics(service)


@pytest.fixture(params=WAYS)
def drain(request):
    """Each test holds whether or not the connection is kept from one drain to the next."""
    yield from draining(request.param)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


def settings(**changes):
    values = {
        "topics": r"^(usdf\.)?SITE-.*",
        "instrument": "nobody.Cares",
        "paths": [{"announced": "root://x", "local": "/x"}],
        **changes,
    }
    return ArrivalSettings.model_validate(values)


def files(count: int, prefix: str = "file") -> list[bytes]:
    return [encoded(name=f"{prefix}-{number}.fits") for number in range(count)]


def test_every_message_is_read_once_from_all_topics_of_the_pattern(kafka, ledger, drain):
    kafka.publish(*files(50), b"not json", encoded("transfer-failed"))
    kafka.publish(*files(3, "calib"), topic="usdf.SITE-calib")
    kafka.publish(*files(5, "other"), topic="OTHER-raw")

    first = drain(kafka.settings, settings(), ledger)
    second = drain(kafka.settings, settings(), ledger)

    assert (first.rows, first.events, first.lag) == (54, 1, 0)
    assert (second.rows, second.events, second.lag) == (0, 0, 0)
    assert ledger.counts()[State.RECEIVED] == 53
    [bad] = ledger.find(state=State.QUARANTINED)
    assert (bad.reason, bad.excerpt) == ("message: is not JSON: Expecting value: line 1 column 1 (char 0)", "not json")


def test_a_drain_goes_on_where_the_last_one_ended(kafka, ledger, drain):
    kafka.publish(*files(5))
    drain(kafka.settings, settings(), ledger)
    kafka.publish(*files(4, "later"))

    assert drain(kafka.settings, settings(), ledger).rows == 4


def test_new_topics_of_the_pattern_are_found(kafka, ledger, drain):
    drain(kafka.settings, settings(), ledger)
    kafka.publish(*files(2), topic="SITE-new")

    assert drain(kafka.settings, settings(), ledger).rows == 2


def test_a_drain_stops_at_its_limit_and_says_what_is_left(kafka, ledger, drain):
    kafka.publish(*files(30))

    result = drain(kafka.settings, settings(batch_messages=7), ledger, DrainLimits(messages=10))

    assert (result.rows, result.lag) == (10, 20)
    assert drain(kafka.settings, settings(), ledger).rows == 20


def test_nothing_is_read_while_the_backlog_is_too_long(kafka, ledger, drain):
    kafka.publish(*files(30))
    drain(kafka.settings, settings(), ledger, DrainLimits(messages=10))

    result = drain(kafka.settings, settings(), ledger, DrainLimits(backlog=10))

    assert result.held_back
    assert result.rows == 0
    assert "10 messages or more wait" in result.notices[0]


def test_a_drain_that_is_told_to_stop_keeps_what_it_has_read(kafka, ledger, drain):
    kafka.publish(*files(30))
    answers = iter([False, True])

    result = drain(kafka.settings, settings(), ledger, stopping=lambda: next(answers, True))

    assert result.rows + result.lag == 30
    assert ledger.counts()[State.RECEIVED] == result.rows
    assert drain(kafka.settings, settings(), ledger).rows == 30 - result.rows


def test_the_groups_offsets_are_written_for_displays_of_lag(kafka, ledger, drain):
    kafka.publish(*files(6), partition=0)
    drain(kafka.settings, settings(group="arrivals"), ledger)

    admin = AdminClient({"bootstrap.servers": kafka.service.address})
    asked = ConsumerGroupTopicPartitions("arrivals", [TopicPartition("SITE-raw", 0)])
    [answer] = admin.list_consumer_group_offsets([asked]).values()

    assert answer.result().topic_partitions[0].offset == 6


def test_a_kafka_that_was_built_anew_is_read_from_its_start(kafka, ledger, drain):
    kafka.publish(*files(5))
    drain(kafka.settings, settings(), ledger)
    kafka.service.stop()
    kafka.service.start()
    anew = Topics(kafka.service)
    anew.publish(*files(3, "anew"))

    assert drain(anew.settings, settings(), ledger).rows == 3
    assert ledger.counts()[State.RECEIVED] == 8


def test_a_broker_that_does_not_answer_is_one_clear_line(kafka, ledger, drain):
    address = kafka.service.address
    kafka.service.stop()

    with pytest.raises(Retriable) as raised:
        drain(KafkaSettings(bootstrap=address), settings(), ledger, DrainLimits(seconds=1.0))

    assert re.fullmatch(rf"{address}: Kafka: .*; is the broker up\?", str(raised.value))


def test_a_missing_address_names_its_file(tmp_path, ledger, drain):
    with pytest.raises(SiteFault, match="no-such-file: cannot be read"):
        drain(KafkaSettings(address_file=tmp_path / "no-such-file"), settings(), ledger)


def test_a_wrong_pattern_is_the_profiles_fault(kafka, ledger, drain):
    with pytest.raises(SiteFault, match="no regular expression"):
        drain(kafka.settings, settings(topics="("), ledger)


def test_a_pattern_that_fits_no_topic_is_noticed(kafka, ledger, drain):
    [notice] = drain(kafka.settings, settings(topics="^NOWHERE"), ledger).notices
    assert re.fullmatch(r"no topic matches \^NOWHERE, .*; compare arrivals\.topics: docs/kafka\.md", notice)


def test_what_a_message_holds_survives_the_way(kafka, ledger, drain):
    value = encoded(name="späte-Datei.fits")
    kafka.publish(value)

    drain(kafka.settings, settings(), ledger)

    assert ledger.find()[0].name == json.loads(value)["payload"]["name"] == "späte-Datei.fits"


@pytest.fixture
def connections(monkeypatch):
    """The connections that are made."""
    made = []

    class Counted(Connection):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(module, "Connection", Counted)
    return made


def test_a_kept_drain_reads_what_comes_later_over_the_same_connection(kafka, ledger, connections):
    with Drain(kafka.settings, settings()) as kept:
        read = []
        for number in range(4):
            kafka.publish(*files(3, f"turn-{number}"))
            read.append(kept.drain(ledger).rows)

    assert read == [3, 3, 3, 3]
    assert len(connections) == 1


def test_what_another_process_has_read_meanwhile_is_not_read_again(kafka, ledger):
    with Drain(kafka.settings, settings()) as kept, Drain(kafka.settings, settings()) as other:
        kafka.publish(*files(3, "first"))
        kept.drain(ledger)
        kafka.publish(*files(4, "second"))
        assert other.drain(ledger).rows == 4
        kafka.publish(*files(5, "third"))

        assert (kept.drain(ledger).rows, other.drain(ledger).rows) == (5, 0)

    assert ledger.counts()[State.RECEIVED] == 12


def test_a_limit_leaves_the_rest_to_the_next_drain_of_the_same_connection(kafka, ledger, connections):
    kafka.publish(*files(30))
    with Drain(kafka.settings, settings(batch_messages=7)) as kept:
        results = [kept.drain(ledger, DrainLimits(messages=12)) for _ in range(3)]

    assert [result.rows for result in results] == [12, 12, 6]
    assert [result.lag for result in results] == [18, 6, 0]
    assert len(connections) == 1


def test_after_trouble_with_the_ledger_nothing_of_what_was_read_is_lost(kafka, ledger, monkeypatch):
    kafka.publish(*files(6))
    with Drain(kafka.settings, settings()) as kept:
        with monkeypatch.context() as broken:
            broken.setattr(ledger, "record_batch", lambda *_, **__: (_ for _ in ()).throw(Retriable("away")))
            with pytest.raises(Retriable, match="away"):
                kept.drain(ledger)

        assert kept.drain(ledger).rows == 6


def test_a_broker_that_comes_back_elsewhere_is_found(kafka, ledger):
    with Drain(kafka.settings, settings()) as kept:
        kafka.publish(*files(2))
        kept.drain(ledger)
        kafka.service.stop()
        with pytest.raises((Retriable, SiteFault)):
            kept.drain(ledger, DrainLimits(seconds=1.0))
        kafka.service.start()
        Topics(kafka.service).publish(*files(3, "anew"))

        assert kept.drain(ledger).rows == 3
