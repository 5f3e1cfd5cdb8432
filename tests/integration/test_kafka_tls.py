"""Certificates on the way from the USDF's Kafka to the ledger: the right one flows, a wrong one is one clear line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AclBinding, ResourceType

from arrivals.drain import Drain, DrainLimits, drain
from arrivals.ledger import Ledger
from resources.errors import OperatorError, Retriable, SiteFault
from resources.kafka import LastError
from resources.site import ArrivalSettings, KafkaSettings, TlsSettings
from services.apache_kafka import ApacheKafka, may_read
from services.catalogue import READER, READER_GROUPS
from services.pki import ORGANISATION, Authority, Certificate
from tests.arrivals.delivered import make_repository
from tests.arrivals.hermes import encoded

pytestmark = pytest.mark.integration

PATIENCE_S = 120.0
IMPATIENCE = DrainLimits(seconds=6.0)
"""A broker that refuses us never answers: so long a drain tries."""

GROUP = f"{READER_GROUPS}tls"
SUBJECT = re.escape(f"CN={READER},O={ORGANISATION}")


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def rogue(tmp_path_factory) -> Authority:
    """An authority that the clusters don't know."""
    return Authority(tmp_path_factory.mktemp("rogue"), "Rogue CA")


@pytest.fixture
def refused(ledger) -> Callable[..., OperatorError]:
    """Drain with these settings, and give the error."""

    def attempt(kafka: KafkaSettings, topics: str = "^LANCS-.*") -> OperatorError:
        with pytest.raises(OperatorError) as raised:
            drain(kafka, arrivals(topics), ledger, IMPATIENCE)
        assert not any(ledger.counts().values())
        line = str(raised.value)
        assert len(line.splitlines()) == 1
        assert not any(secret in line for secret in secrets_of(kafka))
        return raised.value

    return attempt


def arrivals(topics: str) -> ArrivalSettings:
    paths = [{"announced": "root://x", "local": "/x"}]
    values = {"topics": topics, "group": GROUP, "instrument": "nobody.Cares", "paths": paths}
    return ArrivalSettings.model_validate(values)


def shown_by(certificate: Certificate, address: str) -> KafkaSettings:
    tls = TlsSettings(ca=certificate.ca, certificate=certificate.certificate, key=certificate.key)
    return KafkaSettings(bootstrap=address, tls=tls)


def secrets_of(kafka: KafkaSettings) -> list[str]:
    """Lines of the private key."""
    if kafka.tls is None or not kafka.tls.key.exists():
        return []
    return [line for line in kafka.tls.key.read_text().splitlines() if line]


def publish(cluster: ApacheKafka, topic: str, count: int) -> None:
    producer = Producer(cluster.client())
    for number in range(count):
        producer.produce(topic, encoded(name=f"{topic}-{number}.fits"))
    assert producer.flush(PATIENCE_S) == 0


def drained(kafka: KafkaSettings, topics: str, ledger: Ledger, count: int) -> int:
    """Drain until so many messages have come."""
    deadline = time.monotonic() + PATIENCE_S
    rows = 0
    while rows < count and time.monotonic() < deadline:
        rows += drain(kafka, arrivals(topics), ledger).rows
        time.sleep(0.2)
    return rows


@pytest.mark.parametrize(("fixture", "prefix"), [("mirror_maker", ""), ("prefixing_mirror_maker", r"usdf\.")])
def test_the_right_certificate_reads_what_was_published_at_the_usdf(
    request, kafka_usdf, kafka_site, new_topic, ledger, fixture, prefix
):
    request.getfixturevalue(fixture)
    topic = new_topic(kafka_usdf, 3)
    publish(kafka_usdf, topic, 200)

    rows = drained(shown_by(kafka_site.certificate(READER), kafka_site.address), f"^{prefix}{topic}$", ledger, 200)

    assert rows == 200
    assert {row.name for row in ledger.find(limit=500)} == {f"{topic}-{number}.fits" for number in range(200)}


def ingestd(folder: Path, kafka: KafkaSettings, topic: str) -> subprocess.Popen[str]:
    """Start the daemon at a site in this folder."""
    make_repository(folder / "repo")
    profile = {
        "name": "there",
        "state": str(folder),
        "butler": {"repository": str(folder / "repo")},
        "ledger": f"sqlite:///{folder}/ledger.sqlite3",
        "kafka": kafka.model_dump(mode="json"),
        "arrivals": arrivals(f"^{topic}$").model_dump(mode="json") | {"instrument": "drp_tasks.instrument.SimCam"},
        "wms": {"service": "launchers.local.service.LocalService"},
    }
    site = folder / "site.yaml"
    site.write_text(yaml.safe_dump(profile))
    return subprocess.Popen(
        [sys.executable, "-m", "commands.main", "ingestd"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "DRP_SITE": str(site), "DRP_STATE": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_daemon_reads_with_the_right_certificate(kafka_site, new_topic, tmp_path, ledger):
    topic = new_topic(kafka_site, 2)
    publish(kafka_site, topic, 20)
    reader = shown_by(kafka_site.certificate(READER), kafka_site.address)

    with ingestd(tmp_path, reader, topic) as daemon:
        deadline = time.monotonic() + PATIENCE_S
        while sum(ledger.counts().values()) < 20 and time.monotonic() < deadline and daemon.poll() is None:
            time.sleep(0.5)
        daemon.send_signal(signal.SIGTERM)
        _, said = daemon.communicate(timeout=PATIENCE_S)

    assert (daemon.returncode, sum(ledger.counts().values())) == (0, 20), said


def test_the_daemon_ends_with_one_line_when_its_certificate_is_refused(kafka_site, new_topic, tmp_path):
    expired = kafka_site.authority.issue(READER, expired=True)

    with ingestd(tmp_path, shown_by(expired, kafka_site.address), new_topic(kafka_site, 1)) as daemon:
        _, said = daemon.communicate(timeout=PATIENCE_S)

    assert daemon.returncode == 1
    assert "Traceback" not in said
    assert re.match(
        rf"drp: {kafka_site.address}: Kafka: our certificate ended on .*; renew {expired.certificate}",
        said.splitlines()[-1],
    )


def test_nobody_elses_topics_come_to_the_site(kafka_usdf, kafka_site, mirror_maker, new_topic, ledger):
    kafka_usdf.create_topic("FRDF-raw")
    publish(kafka_usdf, "FRDF-raw", 1)
    topic = new_topic(kafka_usdf, 1)
    publish(kafka_usdf, topic, 1)
    reader = shown_by(kafka_site.certificate(READER), kafka_site.address)
    assert drained(reader, f"^{topic}$", ledger, 1) == 1

    there = kafka_site.admin().list_topics(timeout=30).topics

    assert not [name for name in there if "FRDF" in name]


def test_an_unknown_authoritys_certificate_is_refused(kafka_site, rogue, refused):
    certificate = rogue.issue(READER, trusts=kafka_site.authority)

    error = refused(shown_by(certificate, kafka_site.address))

    assert isinstance(error, SiteFault)
    assert re.fullmatch(
        rf"{kafka_site.address}: Kafka: the broker refuses our certificate, {SUBJECT}, issued by CN=Rogue CA,"
        rf"O={ORGANISATION}: [a-z ]+; it has to trust that issuer; see docs/kafka.md",
        str(error),
    )


def test_an_expired_certificate_is_refused(kafka_site, refused):
    certificate = kafka_site.authority.issue(READER, expired=True)

    error = refused(shown_by(certificate, kafka_site.address))

    assert isinstance(error, SiteFault)
    assert re.fullmatch(
        rf"{kafka_site.address}: Kafka: our certificate ended on [-\d]+ [:\d]+ UTC: [a-z ]+; "
        rf"renew {certificate.certificate}",
        str(error),
    )


def test_an_unknown_principal_sees_nothing_and_is_told_so(kafka_site, new_topic, refused):
    new_topic(kafka_site, 1)

    error = refused(shown_by(kafka_site.certificate("stranger"), kafka_site.address))

    assert isinstance(error, SiteFault)
    assert re.fullmatch(
        rf"{kafka_site.address}: Kafka: CN=stranger,O={ORGANISATION} has no right to the consumer group: .*; "
        r"show the right certificate in kafka\.tls, or grant this one what docs/kafka\.md says",
        str(error),
    )


def may_see(cluster: ApacheKafka, who: str, topic: str) -> None:
    """Make a topic with a message, which one may see and not read."""
    cluster.create_topic(topic)
    publish(cluster, topic, 1)
    rules = may_read(who, [topic], READER_GROUPS)
    grant(cluster, [rule for rule in rules if not (rule.name == topic and reads(rule))])


def grant(cluster: ApacheKafka, rules: Sequence[AclBinding]) -> None:
    admin = cluster.admin()
    for done in admin.create_acls(list(rules)).values():
        done.result(PATIENCE_S)


def test_a_topic_that_may_be_seen_but_not_read_is_refused(kafka_site, refused):
    may_see(kafka_site, "onlooker", "SEEN-raw")

    error = refused(shown_by(kafka_site.certificate("onlooker"), kafka_site.address), "^SEEN-raw$")

    assert isinstance(error, SiteFault)
    assert f"Kafka: CN=onlooker,O={ORGANISATION} has no such right to a topic: SEEN-raw[0]: " in str(error)


def test_a_topic_that_may_not_be_read_is_named_and_holds_up_no_other(kafka_site, new_topic, ledger):
    who = "beginner"
    readable = new_topic(kafka_site, 3)
    grant(kafka_site, may_read(who, [readable], READER_GROUPS))
    may_see(kafka_site, who, f"NEW-{readable}")
    publish(kafka_site, readable, 30)
    kafka = shown_by(kafka_site.certificate(who), kafka_site.address)

    results = [drain(kafka, arrivals(readable), ledger) for _ in range(2)]

    assert [(result.rows, result.lag) for result in results] == [(30, 1), (0, 1)]
    for result in results:
        [notice] = result.notices
        assert notice.startswith(f"not read: {kafka_site.address}: Kafka: CN={who},O={ORGANISATION} has no such right")
        assert f": NEW-{readable}[0]: " in notice


def test_who_may_read_topics_and_keep_no_group_reads_on_and_is_told_so(kafka_site, new_topic, ledger):
    who = "groupless"
    topic = new_topic(kafka_site, 3)
    publish(kafka_site, topic, 300)
    rules = may_read(who, [topic], READER_GROUPS)
    grant(kafka_site, [rule for rule in rules if rule.restype is ResourceType.TOPIC])
    batches = arrivals(f"^{topic}$").model_copy(update={"batch_messages": 10})

    notices: set[str] = set()
    with Drain(shown_by(kafka_site.certificate(who), kafka_site.address), batches) as kept:
        for _ in range(3):
            publish(kafka_site, topic, 10)
            notices |= set(kept.drain(ledger).notices)

    assert len(ledger.find(limit=1_000)) == 330
    [notice] = notices
    assert re.fullmatch(
        rf"offsets of group {GROUP} not written: {kafka_site.address}: Kafka: CN={who},O={ORGANISATION} has no right "
        r"to the consumer group: .*; show the right certificate in kafka\.tls, or grant this one what "
        r"docs/kafka\.md says",
        notice,
    )


def reads(rule) -> bool:
    return rule.operation.name == "READ"


def test_no_certificate_is_refused_before_and_by_the_broker(kafka_site, tmp_path, refused):
    right = shown_by(kafka_site.certificate(READER), kafka_site.address)
    missing = tmp_path / "none.pem"

    error = refused(right.model_copy(update={"tls": right.tls.model_copy(update={"certificate": missing})}))

    assert isinstance(error, SiteFault)
    assert str(error) == f"{missing}: cannot be read: No such file or directory; check the profile's kafka.tls"

    errors = LastError()
    configuration = kafka_site.client(READER) | {"group.id": GROUP, "error_cb": errors}
    without = {key: value for key, value in configuration.items() if not re.match(r"ssl\.(key|cert)", key)}
    consumer = Consumer(without)
    errors.serve = lambda: consumer.consume(100, timeout=0)
    with pytest.raises(KafkaException) as raised:
        consumer.list_topics(timeout=IMPATIENCE.seconds)
    told = errors.explain(raised.value, kafka_site.address)
    consumer.close()
    assert isinstance(told, SiteFault)
    assert str(told) == (
        f"{kafka_site.address}: Kafka: the broker wants a certificate: bad certificate; name one in kafka.tls"
    )


def test_a_profile_without_tls_is_told_that_the_broker_speaks_it(kafka_site, refused):
    error = refused(KafkaSettings(bootstrap=kafka_site.address))

    assert isinstance(error, SiteFault)
    assert str(error) == (
        f"{kafka_site.address}: Kafka: the broker speaks TLS, and the profile has no certificate; add kafka.tls"
    )


def test_a_broker_of_an_authority_that_we_do_not_trust_is_not_talked_to(kafka_site, rogue, refused):
    certificate = kafka_site.authority.issue(READER, trusts=rogue)

    error = refused(shown_by(certificate, kafka_site.address))

    assert isinstance(error, SiteFault)
    assert re.fullmatch(
        rf"{kafka_site.address}: Kafka: the broker's certificate is not good: unable to get local issuer certificate; "
        rf"its authority is not in {rogue.certificate}: add it, if it should be trusted",
        str(error),
    )


def test_a_broker_by_a_name_that_its_certificate_lacks_is_not_talked_to(kafka_site, refused):
    address = f"127.1:{kafka_site.port}"

    error = refused(shown_by(kafka_site.certificate(READER), address))

    assert isinstance(error, SiteFault)
    assert re.fullmatch(
        rf"{address}: Kafka: the broker's certificate is not good: Hostname mismatch, .*'127\.1'; "
        r"name the broker as its certificate does, or have the name added",
        str(error),
    )


def test_a_broker_that_is_away_may_be_back_later(kafka_site, refused):
    error = refused(shown_by(kafka_site.certificate(READER), "127.0.0.1:1"))

    assert isinstance(error, Retriable)
    assert str(error) == (
        "127.0.0.1:1: Kafka: Connect to ipv4#127.0.0.1:1 failed: Connection refused; is the broker up?"
    )


def test_a_name_that_nobody_knows_is_said_to_be_so(kafka_site, refused):
    error = refused(shown_by(kafka_site.certificate(READER), "nowhere.invalid:9093"))

    assert isinstance(error, Retriable)
    assert str(error).startswith("nowhere.invalid:9093: Kafka: Failed to resolve 'nowhere.invalid:9093': ")


def test_the_reader_may_not_write(kafka_site, new_topic):
    told: list[KafkaError | None] = []
    reader = shown_by(kafka_site.certificate(READER), kafka_site.address)
    producer = Producer(kafka_site.client(READER))
    producer.produce(new_topic(kafka_site, 1), b"no", on_delivery=lambda error, _: told.append(error))
    assert producer.flush(PATIENCE_S) == 0

    [error] = told
    assert error is not None
    refusal = LastError(reader.tls).explain(error, kafka_site.address)

    assert isinstance(refusal, SiteFault)
    assert f"Kafka: CN={READER},O={ORGANISATION} has no such right to a topic: " in str(refusal)
