"""Apache Kafka: a cluster of one node (KRaft) with TLS, client certificates and access rules.

A client is the CN of its certificate, and may do nothing that no rule allows; `ADMIN` may do everything. Nothing is
deleted by age, and messages of 16 MiB pass.

Belongs here: the node's process and configuration, its topics, and the rules that tests and the demo need. Doesn't:
what copies topics between clusters (`services.mirror_maker`), or a site's cluster (``deploy/kafka``).
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from services.java.kafka import PACKAGES, java_command
from services.loopback import CONNECT_TIMEOUT_S, LOOPBACK, LoopbackServer, kept_port, listens
from services.pki import Authority, Certificate
from services.service import ServiceError

ADMIN = "admin"
"""Who may do everything."""

_BROKER = "broker"
_MESSAGE_BYTES = 16 * 2**20
_ADMIN_TIMEOUT_S = 120.0


class ApacheKafka(LoopbackServer):
    """A Kafka cluster of one node.

    Parameters
    ----------
    folder
        Everything of it, the data included.
    authority
        Whose certificates it shows and accepts.
    topics
        Partitions by topic, for topics that have to exist from the start.
    rules
        Who may do what, such as `may_read` gives.
    heap_mb
        The most memory its objects get.
    enduring
        Whether it is meant for millions of messages rather than for a quick start.
    """

    name: ClassVar[str] = "kafka"
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    start_timeout_s: ClassVar[float] = 120.0
    stop_timeout_s: ClassVar[float] = 30.0

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        *,
        topics: Mapping[str, int] | None = None,
        rules: Sequence[AclBinding] = (),
        heap_mb: int = 320,
        enduring: bool = False,
    ) -> None:
        super().__init__(folder)
        self.authority = authority
        self.topics = dict(topics or {})
        self.rules = tuple(rules)
        self.heap_mb = heap_mb
        self.enduring = enduring

    @property
    def proxied_port(self) -> int:
        """The port of a second listener, for clients that come through a proxy."""
        return kept_port(self.folder, "proxied-port")

    @property
    def proxy_port(self) -> int:
        """Where a proxy has to listen: clients that come through it are told this port."""
        return kept_port(self.folder, "proxy-port")

    @property
    def access(self) -> str:
        """Where the certificates are."""
        return f"certificates in {self.authority.folder}"

    @property
    def configuration(self) -> Path:
        """The node's properties."""
        return self.folder / "broker.properties"

    def certificate(self, principal: str) -> Certificate:
        """Give a certificate that the cluster accepts.

        Parameters
        ----------
        principal
            Whose.
        """
        return self.authority.issue(principal)

    def client(self, who: str | Certificate = ADMIN, address: str | None = None) -> dict[str, str | int]:
        """Give librdkafka's settings for a client of the cluster.

        Parameters
        ----------
        who
            The principal, or a certificate of any other kind.
        address
            Where the client finds the cluster; by default `address`.
        """
        certificate = self.certificate(who) if isinstance(who, str) else who
        return {
            "bootstrap.servers": address or self.address,
            "security.protocol": "ssl",
            "ssl.ca.location": str(certificate.ca),
            "ssl.certificate.location": str(certificate.certificate),
            "ssl.key.location": str(certificate.key),
            "log_level": 0,
        }

    def prepare(self) -> None:
        """Write the configuration, and the cluster's identity when it is new."""
        super().prepare()
        self.configuration.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
        data = self.folder / "data"
        if (data / "meta.properties").exists():
            return
        shutil.rmtree(data, ignore_errors=True)
        identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ["format", f"--cluster-id={identity}", "--config", str(self.configuration)]
        command = java_command(self, "kafka.tools.StorageTool", arguments, heap_mb=64)
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode:
            raise ServiceError(f"{self.name}: {self.folder} can't be formatted: {(done.stdout + done.stderr).strip()}")

    def command(self) -> Sequence[str]:
        """Run the node."""
        arguments = [str(self.configuration)]
        return java_command(self, "kafka.Kafka", arguments, heap_mb=self.heap_mb, enduring=self.enduring)

    def is_ready(self) -> bool:
        """Whether it answers an administrator."""
        if self.pid is None or not listens(self.port):
            return False
        try:
            return bool(self.admin().list_topics(timeout=CONNECT_TIMEOUT_S).brokers)
        except KafkaException:
            return False

    def furnish(self) -> None:
        """Make the topics and set the rules."""
        if self.rules:
            admin = self.admin()
            _finish(admin.create_acls(list(self.rules)))
        for topic, partitions in self.topics.items():
            self.create_topic(topic, partitions)

    def admin(self) -> AdminClient:
        """Give an administrator's client."""
        return AdminClient(self.client())

    def create_topic(self, topic: str, partitions: int = 1, settings: Mapping[str, str] | None = None) -> None:
        """Make a topic; one that is there stays as it is.

        Parameters
        ----------
        topic
            Its name.
        partitions
            How many.
        settings
            The topic's own, over the cluster's.
        """
        admin = self.admin()
        try:
            _finish(admin.create_topics([NewTopic(topic, partitions, 1, config=dict(settings or {}))]))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def grow_topic(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions.

        Parameters
        ----------
        topic
            Its name.
        partitions
            How many it has from now on.
        """
        admin = self.admin()
        _finish(admin.create_partitions([NewPartitions(topic, partitions)]))

    def delete_topic(self, topic: str) -> None:
        """Remove a topic with all its messages.

        Parameters
        ----------
        topic
            Its name.
        """
        admin = self.admin()
        _finish(admin.delete_topics([topic]))

    def _properties(self) -> dict[str, str]:
        controller = f"{LOOPBACK}:{kept_port(self.folder, 'controller-port')}"
        own = self.certificate(_BROKER)
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"SSL://{self.address},PROXIED://{LOOPBACK}:{self.proxied_port},CONTROLLER://{controller}",
            "advertised.listeners": f"SSL://{self.address},PROXIED://{LOOPBACK}:{self.proxy_port}",
            "listener.security.protocol.map": "SSL:SSL,PROXIED:SSL,CONTROLLER:SSL",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "SSL",
            "ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(own.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(own.ca),
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+),.*$/$1/,RULE:^CN=([^,]+)$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{_BROKER};User:{ADMIN}",
            "allow.everyone.if.no.acl.found": "false",
            "auto.create.topics.enable": "false",
            "log.dirs": str(self.folder / "data"),
            "log.retention.ms": "-1",
            "message.max.bytes": str(_MESSAGE_BYTES),
            "replica.fetch.max.bytes": str(_MESSAGE_BYTES),
            # One node: nothing has a copy, and a group needs not wait for members.
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # After a crash the node has to wait for its own former session to end.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            # Small: the defaults are for machines with hundreds of clients.
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(4 * 2**20),
        }


def may_read(principal: str, topics: Sequence[str], group: str) -> list[AclBinding]:
    """Allow reading topics, and keeping a group's offsets.

    Parameters
    ----------
    principal
        Who.
    topics
        Prefixes of their names.
    group
        Prefix of the group's name.
    """
    reading = (AclOperation.READ, AclOperation.DESCRIBE)
    return _allow(principal, ResourceType.TOPIC, topics, reading) + _allow(
        principal, ResourceType.GROUP, [group], reading
    )


def may_mirror_from(principal: str, topics: Sequence[str]) -> list[AclBinding]:
    """Allow MirrorMaker2 to copy topics from here; it changes nothing.

    Parameters
    ----------
    principal
        Who.
    topics
        Prefixes of their names.
    """
    reading = (AclOperation.READ, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    return _allow(principal, ResourceType.TOPIC, topics, reading)


def may_mirror_to(principal: str, topics: Sequence[str], sources: Sequence[str]) -> list[AclBinding]:
    """Allow MirrorMaker2 to make copies here, and to keep its own state.

    Parameters
    ----------
    principal
        Who.
    topics
        Prefixes of the copies' names.
    sources
        Aliases of the clusters that it copies from.
    """
    copying = (AclOperation.CREATE, AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.ALTER)
    groups = [f"{source}-mm2" for source in sources]
    return [
        *_allow(principal, ResourceType.TOPIC, topics, copying),
        *_allow(principal, ResourceType.TOPIC, ["mm2-"], (AclOperation.ALL,)),
        *_allow(principal, ResourceType.GROUP, groups, (AclOperation.READ, AclOperation.DESCRIBE)),
    ]


def _finish(operations: Mapping[object, Future[object]]) -> None:
    """Wait for an administrator's operations; who asked for them has to keep the client that long."""
    for operation in operations.values():
        operation.result(_ADMIN_TIMEOUT_S)


def _allow(
    principal: str, kind: ResourceType, prefixes: Iterable[str], operations: Sequence[AclOperation]
) -> list[AclBinding]:
    pattern = ResourcePatternType.PREFIXED
    allow = AclPermissionType.ALLOW
    return [
        AclBinding(kind, prefix, pattern, f"User:{principal}", "*", operation, allow)
        for prefix in prefixes
        for operation in operations
    ]
