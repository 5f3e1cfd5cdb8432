"""The plain files of ``deploy/kafka``, run as they are: only the environment that ``site.env`` names is made here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException

from services.apache_kafka import ADMIN, ApacheKafka
from services.java.kafka import java_command
from services.loopback import LOOPBACK, kept_port, listens
from services.mirror_maker import MirrorMaker
from services.pki import ORGANISATION, Certificate
from services.service import Service

DEPLOY = Path(__file__).parents[2] / "deploy" / "kafka"
NODE = "node"
"""The principal of the only node."""
ACCESS_COMMAND = "org.apache.kafka.tools.AclCommand"


def site_variables() -> dict[str, str]:
    """The variables of ``site.env`` with its own values, read as a shell does."""
    command = ["bash", "-c", "set -a; . ./site.env; env -0"]
    shown = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, check=True, env={}).stdout
    pairs = (line.split("=", 1) for line in shown.split("\0") if line)
    return {name: value for name, value in pairs if name not in {"PWD", "SHLVL", "_", "OLDPWD"}}


def hand_over(certificate: Certificate, folder: Path, prefix: str = "") -> Path:
    """Put keystore and authority where the properties look for them."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(certificate.keystore, folder / f"{prefix}keystore.pem")
    shutil.copy(certificate.ca, folder / f"{prefix}ca.pem")
    return folder


class DeployedBroker(ApacheKafka):
    """A cluster of one node with the site's own ``broker.properties``."""

    @property
    def configuration(self) -> Path:
        return DEPLOY / "plain" / "broker.properties"

    def environment(self) -> Mapping[str, str]:
        controller = kept_port(self.folder, "controller-port")
        return {
            "KAFKA_NODE_ID": "1",
            "KAFKA_HOST": LOOPBACK,
            "KAFKA_PORT": str(self.port),
            "KAFKA_CONTROLLER_PORT": str(controller),
            "KAFKA_VOTERS": f"1@{LOOPBACK}:{controller}",
            "KAFKA_COPIES": "1",
            "KAFKA_WRITTEN_COPIES": "1",
            "KAFKA_DATA": str(self.folder / "data"),
            "KAFKA_TLS": str(hand_over(self.certificate(NODE), self.folder / "tls")),
            "KAFKA_PRINCIPAL_RULES": f"RULE:^CN=([^,]+),.*O={ORGANISATION}$/$1/,DEFAULT",
            "KAFKA_SUPER_USERS": f"User:{NODE};User:{ADMIN}",
        }

    def prepare(self) -> None:
        Service.prepare(self)
        if (self.folder / "data" / "meta.properties").exists():
            return
        identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ["format", f"--cluster-id={identity}", "--config", str(self.configuration)]
        command = java_command(self, "kafka.tools.StorageTool", arguments, heap_mb=64)
        done = subprocess.run(
            command, env={**os.environ, **self.environment()}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def is_ready(self) -> bool:
        try:
            return self.pid is not None and listens(self.port) and bool(self.admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False


class DeployedMirrorMaker(MirrorMaker):
    """MirrorMaker2 with the site's own ``mm2.properties``."""

    @property
    def configuration(self) -> Path:
        return DEPLOY / "plain" / "mm2.properties"

    def environment(self) -> Mapping[str, str]:
        tls = self.folder / "tls"
        hand_over(self.source.certificate(self.principal), tls, "usdf-")
        hand_over(self.target.certificate(self.principal), tls, "site-")
        return {
            "USDF_BOOTSTRAP": self.source.address,
            "SITE_BOOTSTRAP": self.target.address,
            "SITE_TOPICS": self.topics,
            "KAFKA_COPIES": "1",
            "MIRROR_TLS": str(tls),
            "MIRROR_NAMING": self.policy.rpartition(".")[2],
        }

    def prepare(self) -> None:
        Service.prepare(self)

    def is_ready(self) -> bool:
        return self.pid is not None and "Kafka MirrorMaker started" in self.recent_log()


def grant(where: str, cluster: ApacheKafka, folder: Path, variables: Mapping[str, str]) -> None:
    """Run ``grant.sh`` as the cluster's administrator."""
    program = folder / "kafka-acls.sh"
    command = java_command(cluster, ACCESS_COMMAND, [], heap_mb=64)
    folder.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        **variables,
        f"{where.upper()}_BOOTSTRAP": cluster.address,
        "KAFKA_ACLS": str(program),
        "ADMIN_TLS": str(hand_over(cluster.certificate(ADMIN), folder / "admin-tls")),
    }
    done = subprocess.run(
        [DEPLOY / "plain" / "grant.sh", where], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
