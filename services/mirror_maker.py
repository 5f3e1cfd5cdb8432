"""MirrorMaker2: copies a cluster's topics to another one, as a site does with the topics that are meant for it.

It keeps its own state in the target, and needs no right at the source but to read. Neither settings of topics nor
groups' offsets are carried over: how long copies are kept is for the target to say, and the platform keeps its own
offsets.

Belongs here: the process and its properties, and what a copy is called. Doesn't: the clusters
(`services.apache_kafka`), or a site's properties (``deploy/kafka``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException

from services.apache_kafka import ApacheKafka
from services.java.kafka import PACKAGES, java_command
from services.service import Service

PRINCIPAL = "mirror-maker"
_STARTED = "Kafka MirrorMaker started"
_METADATA_TIMEOUT_S = 5.0
_MESSAGE_BYTES = 17 * 2**20


class NamingPolicy(enum.StrEnum):
    """What a copy is called; the values are the classes that do it."""

    IDENTITY = "org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
    DEFAULT = "org.apache.kafka.connect.mirror.DefaultReplicationPolicy"


class MirrorMaker(Service):
    """MirrorMaker2 from one cluster to another.

    Parameters
    ----------
    folder
        Where its properties, pid and log are.
    source, target
        The clusters.
    topics
        Regular expression of the topics to copy.
    policy
        What a copy is called.
    source_alias
        What MirrorMaker2 calls the source. Two that write to the same target at once need different ones.
    properties
        Of MirrorMaker2, over those written here.
    principal
        Whose certificate it shows to both clusters.
    """

    name: ClassVar[str] = "mirror-maker"
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    start_timeout_s: ClassVar[float] = 180.0
    stop_timeout_s: ClassVar[float] = 30.0

    def __init__(
        self,
        folder: Path,
        source: ApacheKafka,
        target: ApacheKafka,
        topics: str,
        *,
        policy: NamingPolicy = NamingPolicy.IDENTITY,
        source_alias: str = "usdf",
        properties: Mapping[str, str] | None = None,
        principal: str = PRINCIPAL,
    ) -> None:
        super().__init__(folder)
        self.source = source
        self.target = target
        self.topics = topics
        self.policy = policy
        self.source_alias = source_alias
        self.properties = dict(properties or {})
        self.principal = principal

    @property
    def address(self) -> str:
        """From where to where."""
        return f"{self.source.address} → {self.target.address}"

    @property
    def configuration(self) -> Path:
        """Its properties."""
        return self.folder / "mm2.properties"

    def mirrored(self, topic: str) -> str:
        """Give what the copy of a topic is called.

        Parameters
        ----------
        topic
            Its name at the source.
        """
        match self.policy:
            case NamingPolicy.IDENTITY:
                return topic
            case NamingPolicy.DEFAULT:
                return f"{self.source_alias}.{topic}"

    def prepare(self) -> None:
        """Write the properties."""
        super().prepare()
        lines = (f"{key}={value}\n" for key, value in self._all_properties().items())
        self.configuration.write_text("".join(lines).replace("\\", "\\\\"))

    def command(self) -> Sequence[str]:
        """Run it."""
        program = "org.apache.kafka.connect.mirror.MirrorMaker"
        return java_command(self, program, [str(self.configuration)], heap_mb=256)

    def is_ready(self) -> bool:
        """Whether it has started, and every topic that it copies is there."""
        if self.pid is None or _STARTED not in self.recent_log():
            return False
        try:
            here = set(self.source.admin().list_topics(timeout=_METADATA_TIMEOUT_S).topics)
            there = set(self.target.admin().list_topics(timeout=_METADATA_TIMEOUT_S).topics)
        except KafkaException:
            return False
        return {self.mirrored(topic) for topic in here if re.fullmatch(self.topics, topic)} <= there

    def _all_properties(self) -> dict[str, str]:
        source, target = self.source_alias, "site"
        certificate = {alias: cluster.certificate(self.principal) for alias, cluster in self._clusters(target).items()}
        properties = {"clusters": f"{source},{target}"}
        for alias, cluster in self._clusters(target).items():
            properties |= {
                f"{alias}.bootstrap.servers": cluster.address,
                f"{alias}.security.protocol": "SSL",
                f"{alias}.ssl.keystore.type": "PEM",
                f"{alias}.ssl.keystore.location": str(certificate[alias].keystore),
                f"{alias}.ssl.truststore.type": "PEM",
                f"{alias}.ssl.truststore.location": str(certificate[alias].ca),
            }
        return properties | {
            f"{source}->{target}.enabled": "true",
            f"{source}->{target}.topics": self.topics,
            f"{target}->{source}.enabled": "false",
            "replication.policy.class": self.policy.value,
            # The source grants reading and nothing else.
            "offset-syncs.topic.location": "target",
            "emit.heartbeats.enabled": "false",
            "emit.checkpoints.enabled": "false",
            "sync.group.offsets.enabled": "false",
            "sync.topic.acls.enabled": "false",
            "sync.topic.configs.enabled": "false",
            "replication.factor": "1",
            "offset-syncs.topic.replication.factor": "1",
            "offset.storage.replication.factor": "1",
            "status.storage.replication.factor": "1",
            "config.storage.replication.factor": "1",
            "refresh.topics.interval.seconds": "2",
            "tasks.max": "2",
            "task.shutdown.graceful.timeout.ms": "1000",
            "producer.max.request.size": str(_MESSAGE_BYTES),
            "consumer.auto.offset.reset": "earliest",
            **self.properties,
        }

    def _clusters(self, target: str) -> dict[str, ApacheKafka]:
        return {self.source_alias: self.source, target: self.target}
