"""Kafka for laptops and tests: librdkafka's mock cluster, which the confluent-kafka wheel brings along, as a service.

It keeps about 5 MiB a partition, in memory: a cluster that is started again is empty and has a new cluster id. It has
no TLS. Topics that nobody created appear with four partitions when they are first written to.

Belongs here: the cluster's process and its topics. Doesn't: Apache Kafka, which is a service of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from services.service import Service, ServiceError, write_at_once

_RD_KAFKA_PRODUCER = 0


class EmbeddedKafka(Service):
    """A Kafka cluster without Kafka.

    Parameters
    ----------
    folder
        Where its address, pid and log are.
    topics
        Partitions by topic, for topics that have to exist from the start.
    brokers
        How many brokers.
    """

    name: ClassVar[str] = "embedded-kafka"

    def __init__(self, folder: Path, topics: Mapping[str, int] | None = None, *, brokers: int = 1) -> None:
        super().__init__(folder)
        self.topics = dict(topics or {})
        self.brokers = brokers

    @property
    def address_file(self) -> Path:
        """The file that holds the address (`resources.site.KafkaSettings.address_file`)."""
        return self.folder / "address"

    @property
    def address(self) -> str:
        """host:port[,…] of the brokers."""
        return self.address_file.read_text(encoding="ascii").strip()

    def prepare(self) -> None:
        """Forget the address of a cluster that has ended."""
        super().prepare()
        self.address_file.unlink(missing_ok=True)

    def command(self) -> Sequence[str]:
        """Run this module."""
        topics = [f"{topic}:{partitions}" for topic, partitions in self.topics.items()]
        options = ["--address-file", str(self.address_file), "--brokers", str(self.brokers)]
        return [sys.executable, str(Path(__file__).resolve()), *options, *topics]

    def environment(self) -> Mapping[str, str]:
        """Where Python finds this package, wherever it is started from."""
        return {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}

    def is_ready(self) -> bool:
        """Whether it has said where it listens, which it does when it listens."""
        return self.pid is not None and self.address_file.exists()


def _librdkafka() -> ctypes.CDLL:
    specification = importlib.util.find_spec("confluent_kafka")
    if specification is None or specification.origin is None:
        raise ServiceError("confluent-kafka is not installed, and the embedded Kafka is inside its wheel")
    libraries = Path(specification.origin).parents[1] / "confluent_kafka.libs"
    found = sorted(libraries.glob("librdkafka-*.so*")) or sorted(libraries.glob("librdkafka*"))
    if not found:
        raise ServiceError(f"no librdkafka in {libraries}: confluent-kafka was not installed from its wheel")
    library = ctypes.CDLL(str(found[0]))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    library.rd_kafka_mock_topic_create.restype = ctypes.c_int
    return library


def serve(address_file: Path, brokers: int, topics: Mapping[str, int]) -> None:
    """Be the cluster, until the process is told to end.

    Parameters
    ----------
    address_file
        Where the address is written once the cluster listens.
    brokers
        How many brokers.
    topics
        Partitions by topic.
    """
    library = _librdkafka()
    complaint = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(_RD_KAFKA_PRODUCER, library.rd_kafka_conf_new(), complaint, len(complaint))
    cluster = library.rd_kafka_mock_cluster_new(client, brokers) if client else None
    if cluster is None:
        raise ServiceError(f"librdkafka made no mock cluster: {complaint.value.decode(errors='replace')}")
    for topic, partitions in topics.items():
        error = library.rd_kafka_mock_topic_create(cluster, topic.encode(), partitions, min(brokers, 3))
        if error:
            raise ServiceError(f"librdkafka made no topic {topic!r} with {partitions} partitions: error {error}")
    write_at_once(address_file, library.rd_kafka_mock_cluster_bootstraps(cluster).decode())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def main() -> None:
    """Read the command line of `EmbeddedKafka.command`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--brokers", type=int, required=True)
    parser.add_argument("topics", nargs="*", metavar="TOPIC:PARTITIONS")
    arguments = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    topics = {topic: int(count) for topic, _, count in (text.rpartition(":") for text in arguments.topics)}
    serve(arguments.address_file, arguments.brokers, topics)


if __name__ == "__main__":
    main()
