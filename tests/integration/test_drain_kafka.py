"""The drain on Apache Kafka over TLS and PostgreSQL: each message once, whatever happens to topics and to drains."""

import multiprocessing
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from arrivals.announcement import Kind
from arrivals.drain import Drain, DrainLimits, DrainResult
from arrivals.ledger import Ledger
from arrivals.message import MAX_MESSAGE_BYTES
from arrivals.states import State
from resources.site import ArrivalSettings, KafkaSettings, TlsSettings
from services.apache_kafka import ApacheKafka, may_read
from services.catalogue import READER, READER_GROUPS, SITE_TOPICS
from services.pki import Authority
from tests.arrivals.draining import WAYS, draining
from tests.arrivals.hermes import encoded
from tests.promises import PROMISES

pytestmark = [pytest.mark.integration, PROMISES]


def shown_to(cluster: ApacheKafka) -> KafkaSettings:
    """A cluster as the platform reaches it."""
    own = cluster.certificate(READER)
    tls = TlsSettings(ca=own.ca, certificate=own.certificate, key=own.key)
    return KafkaSettings(bootstrap=cluster.address, tls=tls)


@pytest.fixture
def kafka(kafka_site) -> KafkaSettings:
    return shown_to(kafka_site)


@pytest.fixture
def url(postgresql, new_database) -> str:
    return postgresql.url(new_database())


@pytest.fixture(params=WAYS)
def drain(request):
    """Each test holds whether or not the connection is kept from one drain to the next."""
    yield from draining(request.param)


@pytest.fixture
def ledger(url):
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def settings(topic: str, **changes: object) -> ArrivalSettings:
    values = {
        "topics": f"^(usdf\\.)?{topic}",
        "group": f"{READER_GROUPS}{uuid.uuid4().hex}",
        "instrument": "nobody.Cares",
        "paths": [{"announced": "root://x", "local": "/x"}],
        **changes,
    }
    return ArrivalSettings.model_validate(values)


def publish(cluster, topic: str, *values: bytes | None, partition: int = -1) -> None:
    producer = Producer(cluster.client() | {"message.max.bytes": 15 * 2**20, "linger.ms": 5})
    for value in values:
        producer.produce(topic, value, partition=partition, on_delivery=_delivered)
        producer.poll(0)
    assert producer.flush(60) == 0


def _delivered(error: object, message: object) -> None:
    assert error is None, error


def files(count: int, prefix: str = "file") -> list[bytes]:
    return [encoded(name=f"{prefix}-{number}.fits") for number in range(count)]


def names(ledger: Ledger) -> list[str]:
    return sorted(row.name for row in ledger.find(limit=100_000))


def eventually(question, timeout_s: float = 120.0, pause_s: float = 0.2):
    """Ask again until the answer is true: what was done to a topic takes effect a little later."""
    deadline = time.monotonic() + timeout_s
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s")
        time.sleep(pause_s)
    return answer


def test_every_message_is_a_row_once(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site, 4)
    publish(kafka_site, topic, *files(500), b"not json", None, encoded("transfer-failed"))

    first = drain(kafka, settings(topic), ledger)
    second = drain(kafka, settings(topic), ledger)

    assert (first.rows, first.events, first.lag, first.notices) == (502, 1, 0, ())
    assert (second.rows, second.events) == (0, 0)
    assert ledger.counts()[State.RECEIVED] == 500
    assert sorted(row.reason.partition(":")[0] for row in ledger.find(state=State.QUARANTINED)) == [
        "message",
        "message is empty",
    ]


def test_a_topic_is_read_under_the_names_of_both_policies(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site)
    kafka_site.create_topic(f"usdf.{topic}")
    publish(kafka_site, topic, *files(2, "same-name"))
    publish(kafka_site, f"usdf.{topic}", *files(3, "prefixed"))

    assert drain(kafka, settings(topic), ledger).rows == 5


def test_a_topic_that_grows_is_read_to_its_new_ends(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site)
    publish(kafka_site, topic, *files(3))
    drain(kafka, settings(topic), ledger)
    kafka_site.grow_topic(topic, 3)
    eventually(lambda: len(kafka_site.admin().list_topics(topic, timeout=5).topics[topic].partitions) == 3)

    for partition in range(3):
        publish(kafka_site, topic, *files(2, f"grown-{partition}"), partition=partition)

    assert drain(kafka, settings(topic), ledger).rows == 6
    assert {row.partition for row in ledger.find()} == {0, 1, 2}


def test_a_topic_made_anew_under_its_name_is_read_from_its_start(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site)
    publish(kafka_site, topic, *files(3, "old"))
    drain(kafka, settings(topic), ledger)
    kafka_site.delete_topic(topic)
    eventually(lambda: topic not in kafka_site.admin().list_topics(timeout=5).topics)
    kafka_site.create_topic(topic)

    # More than before: by offsets alone the two can't be told from each other.
    publish(kafka_site, topic, *files(5, "new"))
    result = drain(kafka, settings(topic), ledger)

    assert result.rows == 5
    assert [notice for notice in result.notices if "made anew under the same name" in notice]
    assert names(ledger) == sorted([f"old-{n}.fits" for n in range(3)] + [f"new-{n}.fits" for n in range(5)])
    assert drain(kafka, settings(topic), ledger).notices == ()


def test_a_topic_made_anew_and_still_empty_is_told_of_once(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site)
    publish(kafka_site, topic, *files(3, "old"))
    drain(kafka, settings(topic), ledger)
    kafka_site.delete_topic(topic)
    eventually(lambda: topic not in kafka_site.admin().list_topics(timeout=5).topics)
    kafka_site.create_topic(topic)

    notices = [drain(kafka, settings(topic), ledger).notices for _ in range(2)]

    assert [len(some) for some in notices] == [1, 0]


def test_what_kafka_deleted_unread_is_counted_and_told(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site)
    publish(kafka_site, topic, *files(4))
    drain(kafka, settings(topic), ledger)
    publish(kafka_site, topic, *files(10, "later"))
    admin = kafka_site.admin()  # its answers come only while it is there
    [deleted] = admin.delete_records([TopicPartition(topic, 0, 11)]).values()
    deleted.result(60)

    result = drain(kafka, settings(topic), ledger)

    assert (result.rows, result.expired) == (3, 7)
    assert result.notices == (f"{topic}[0]: Kafka deleted 7 messages before they were read; have them announced again",)
    assert drain(kafka, settings(topic), ledger).expired == 0


def lose_power(cluster: ApacheKafka, log: Path, written: int) -> None:
    """Have the node end with only so many bytes of a partition's log on its disk, and start again."""
    cluster.kill()
    with log.open("r+b") as file:
        file.truncate(written)
    for checkpoint in log.parents[1].glob("*-offset-checkpoint"):
        checkpoint.unlink()
    cluster.start()


def test_messages_in_the_place_of_some_that_kafka_lost_are_read(tmp_path):
    topic = f"{SITE_TOPICS}raw"
    rules = may_read(READER, [topic], READER_GROUPS)
    cluster = ApacheKafka(tmp_path / "kafka", Authority(tmp_path / "pki"), topics={topic: 1}, rules=rules)
    with cluster, ExitStack() as closing:
        drains = {way: closing.enter_context(contextmanager(draining)(way)) for way in WAYS}
        ledgers = {way: Ledger(f"sqlite:///{tmp_path}/{way}.sqlite3") for way in WAYS}

        def drain_all() -> list[DrainResult]:
            return [drains[way](shown_to(cluster), settings(topic), ledgers[way]) for way in WAYS]

        publish(cluster, topic, *files(60, "kept"))
        [log] = (cluster.folder / "data").glob(f"{topic}-0/*.log")
        written = log.stat().st_size
        publish(cluster, topic, *files(40, "lost"))
        drain_all()
        lose_power(cluster, log, written)
        publish(cluster, topic, *files(60, "later"))

        noticed, read, idle = drain_all(), drain_all(), drain_all()

    for result in noticed:
        [notice] = result.notices
        assert notice.startswith(f"{topic}[0]: was read up to 100, and has other messages before that: Kafka has lost")
        assert (result.rows, result.lag) == (0, 120)
    assert [(result.rows, result.lag, result.notices) for result in read] == [(120, 0, ())] * 2
    assert [(result.rows, result.lag, result.notices) for result in idle] == [(0, 0, ())] * 2
    assert all({name for name in names(ledger) if "later" in name} for ledger in ledgers.values())


def test_a_huge_message_is_quarantined_and_holds_up_nothing(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site)
    publish(kafka_site, topic, *files(2, "before"), b"x" * 10 * 2**20, *files(2, "after"))

    result = drain(kafka, settings(topic), ledger)

    assert (result.rows, result.lag) == (5, 0)
    [huge] = ledger.find(state=State.QUARANTINED)
    assert huge.reason == f"message has 10,485,760 bytes, and no Hermes message is larger than {MAX_MESSAGE_BYTES:,}"
    assert len(huge.excerpt or "") == 4_096


def test_messages_of_the_future_are_quarantined_unless_the_site_believes_them(
    kafka, kafka_site, ledger, new_topic, drain
):
    topic = new_topic(kafka_site)
    publish(kafka_site, topic, encoded(name="a.fits", transferred_at="2199-01-01 00:00:00"))

    drain(kafka, settings(topic), ledger)

    [row] = ledger.find()
    assert (row.state, row.kind) == (State.QUARANTINED, Kind.RAW)
    assert "comes from the future: it tells of 2199-01-01" in row.reason
    assert ledger.by_day_obs(unfinished_only=True) == {}

    other = new_topic(kafka_site)
    publish(kafka_site, other, encoded(name="b.fits", transferred_at="2199-01-01 00:00:00"))
    drain(kafka, settings(other, max_clock_difference_s=None), ledger)
    assert [row.name for row in ledger.find(state=State.RECEIVED)] == ["b.fits"]


def test_batches_end_by_their_bytes_and_all_is_recorded(kafka, kafka_site, ledger, new_topic, drain):
    topic = new_topic(kafka_site, 2)
    publish(kafka_site, topic, *files(300))

    result = drain(kafka, settings(topic, batch_bytes=10_000), ledger)

    assert (result.rows, len(set(names(ledger)))) == (300, 300)


def _drain_again_and_again(kafka: KafkaSettings, arrivals: ArrivalSettings, url: str) -> None:
    ledger = Ledger(url)
    with Drain(kafka, arrivals) as kept:
        while True:
            kept.drain(ledger, DrainLimits(messages=700))


def test_drains_that_are_killed_or_meet_each_other_lose_and_repeat_nothing(
    kafka, kafka_site, ledger, url, new_topic, drain
):
    topic = new_topic(kafka_site, 3)
    arrivals = settings(topic, batch_messages=100)
    context = multiprocessing.get_context("spawn")
    publish(kafka_site, topic, *files(2_000, "first"))
    recorded = 0
    cut_short = []
    for turn, published in enumerate((3_000, 4_000, 5_000)):
        drains = [context.Process(target=_drain_again_and_again, args=(kafka, arrivals, url)) for _ in range(2)]
        for one in drains:
            one.start()
        try:
            publish(kafka_site, topic, *files(1_000, f"meanwhile-{turn}"), encoded("transfer-failed"))
            wanted = recorded + 400 * turn
            eventually(lambda wanted=wanted: ledger.counts()[State.RECEIVED] > wanted, pause_s=0.01)
        finally:
            for one in drains:
                one.kill()
                one.join()
        recorded = ledger.counts()[State.RECEIVED]
        cut_short.append(recorded < published)

    drain(kafka, arrivals, ledger, DrainLimits(seconds=120))

    assert any(cut_short)
    assert len(names(ledger)) == len(set(names(ledger))) == 5_000
    counts = {count.event_type: count.count for count in ledger.transfers()}
    assert counts == {"transfer-done": 5_000, "transfer-failed": 3}
