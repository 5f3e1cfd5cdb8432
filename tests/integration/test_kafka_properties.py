"""The site's own properties and rights, run as they are in ``deploy/kafka``: what is announced at the USDF arrives."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import yaml
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from arrivals.drain import drain
from arrivals.ledger import Ledger
from resources.site import ArrivalSettings, KafkaSettings, TlsSettings
from services.apache_kafka import ApacheKafka
from services.mirror_maker import NamingPolicy
from tests.arrivals.hermes import encoded
from tests.deploy.plain_kafka import DEPLOY, DeployedBroker, DeployedMirrorMaker, grant, site_variables

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PATIENCE_S = 240.0
VARIABLES = site_variables()
ANY = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)

Rule = tuple[str, str, str, str, str]
"""Principal, kind of resource, its name, how the name is meant, operation."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory, kafka_usdf) -> Iterator[DeployedBroker]:
    """The site's cluster, with the rights that the site grants."""
    folder = tmp_path_factory.mktemp("deployed")
    with DeployedBroker(folder / "broker", kafka_usdf.authority) as service:
        grant("site", service, folder / "grant", VARIABLES)
        yield service


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


def rules(cluster: ApacheKafka) -> set[Rule]:
    admin = cluster.admin()
    return {
        (each.principal, each.restype.name, each.name, each.resource_pattern_type.name, each.operation.name)
        for each in admin.describe_acls(ANY).result(PATIENCE_S)
    }


def rules_of_the_manifests() -> set[Rule]:
    text = (DEPLOY / "strimzi" / "users.yaml").read_text()
    for name, value in VARIABLES.items():
        text = text.replace(f"${{{name}}}", value)
    return {
        (
            f"User:{user['metadata']['name']}",
            rule["resource"]["type"].upper(),
            rule["resource"]["name"],
            {"prefix": "PREFIXED"}[rule["resource"]["patternType"]],
            "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).strip("_").upper(),
        )
        for user in yaml.safe_load_all(text)
        for rule in user["spec"]["authorization"]["acls"]
        for operation in rule["operations"]
    }


def publish(cluster: ApacheKafka, topic: str, names: list[str]) -> None:
    producer = Producer(cluster.client())
    for name in names:
        producer.produce(topic, encoded(name=name))
    assert producer.flush(PATIENCE_S) == 0


def drained(cluster: ApacheKafka, topic: str, ledger: Ledger, count: int) -> int:
    """Drain as the platform does, until so many messages have come."""
    own = cluster.certificate(VARIABLES["READER"])
    tls = TlsSettings(ca=own.ca, certificate=own.certificate, key=own.key)
    paths = [{"announced": "root://x", "local": "/x"}]
    values = {"topics": rf"^(usdf\.)?{topic}$", "instrument": "nobody.Cares", "paths": paths}
    deadline = time.monotonic() + PATIENCE_S
    rows = 0
    while rows < count and time.monotonic() < deadline:
        kafka = KafkaSettings(bootstrap=cluster.address, tls=tls)
        rows += drain(kafka, ArrivalSettings.model_validate(values), ledger).rows
        time.sleep(0.2)
    return rows


def eventually_known(cluster: ApacheKafka, topic: str, ledger: Ledger, names: set[str]) -> None:
    """Drain until the ledger knows these and nothing else; MirrorMaker2 may copy twice what it was killed at."""
    deadline = time.monotonic() + PATIENCE_S
    while (known := {row.name for row in ledger.find(limit=1_000)}) != names and time.monotonic() < deadline:
        drained(cluster, topic, ledger, 1)
    assert known == names


def test_the_rights_are_those_of_the_manifests(broker):
    assert rules(broker) == rules_of_the_manifests()


def test_at_the_usdf_reading_is_all_that_is_asked_for(kafka_usdf, tmp_path):
    grant("usdf", kafka_usdf, tmp_path, VARIABLES)

    mine = {rule for rule in rules(kafka_usdf) if rule[0] == f"User:{VARIABLES['MIRROR']}"}

    operations = ("READ", "DESCRIBE", "DESCRIBE_CONFIGS")
    assert mine == {
        (f"User:{VARIABLES['MIRROR']}", "TOPIC", VARIABLES["SITE_TOPICS"], "PREFIXED", each) for each in operations
    }


def test_who_copies_cannot_change_how_long_copies_are_kept(broker, new_topic):
    topic = new_topic(broker)
    admin = AdminClient(broker.client(VARIABLES["MIRROR"]))
    kept = ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[kept])

    [answer] = admin.incremental_alter_configs([change]).values()

    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        answer.result(PATIENCE_S)


def test_everything_that_is_announced_arrives_also_when_the_naming_policy_is_changed(
    broker, kafka_usdf, new_topic, tmp_path, ledger
):
    topic = new_topic(kafka_usdf, 3)
    kafka_usdf.create_topic("FRDF-raw")
    publish(kafka_usdf, "FRDF-raw", ["not-ours.fits"])
    before = [f"before-{number}.fits" for number in range(100)]
    after = [f"after-{number}.fits" for number in range(50)]
    mirror = DeployedMirrorMaker(tmp_path / "mirror", kafka_usdf, broker, VARIABLES["SITE_TOPICS"])

    publish(kafka_usdf, topic, before)
    with mirror:
        assert drained(broker, topic, ledger, len(before)) >= len(before)
    mirror.policy = NamingPolicy.DEFAULT
    publish(kafka_usdf, topic, after)
    with mirror:
        eventually_known(broker, topic, ledger, {*before, *after})

    topics = set(broker.admin().list_topics(timeout=PATIENCE_S).topics)
    assert {topic, f"usdf.{topic}"} <= topics
    assert not [name for name in topics if "FRDF" in name]
