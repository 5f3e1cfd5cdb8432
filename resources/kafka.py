"""Clients of the Kafka cluster that the site profile names.

Belongs here: making consumers, producers and administrators with the profile's address and TLS files, and collecting
what goes wrong with them. Doesn't: what an error means (`resources.refusals`), what is read or written
(`arrivals.drain`), or starting a cluster (`services`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata

from resources.errors import OperatorError, SiteFault
from resources.refusals import explain, most_telling
from resources.site import KafkaSettings, TlsSettings
from resources.tls import check_files

_EVENTS = 100
_GROUP_TIMEOUT_S = 3.0
_GROUP_PATIENCE_MS = 5_000
"""How long a commit waits for somebody who answers for the group, which nobody joins."""


@dataclass
class LastError:
    """What a client met in the background: it tells why a call of it timed out.

    Parameters
    ----------
    tls
        What the client shows and trusts; making the client sets it.
    serve
        Has the client tell what it hasn't told yet; making a consumer sets it.
    """

    tls: TlsSettings | None = None
    serve: Callable[[], object] = lambda: None
    _met: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Remember it, unless something more telling is known."""
        self._met = error if self._met is None else most_telling(error, self._met)

    def forget(self) -> None:
        """What was met is over: the client gets answers."""
        self._met = None

    def explain(self, error: KafkaException | KafkaError, where: str) -> OperatorError:
        """The error as an operator should read it: `SiteFault` if the site has to mend something, else `Retriable`.

        Parameters
        ----------
        error
            What a call raised.
        where
            The cluster's address.
        """
        self.serve()
        direct = error if isinstance(error, KafkaError) else error.args[0]
        return explain(direct if self._met is None else most_telling(direct, self._met), where, self.tls)


def bootstrap_address(settings: KafkaSettings) -> str:
    """The cluster's address, from the profile or from the file that the profile names.

    Raises
    ------
    resources.errors.SiteFault
        The profile gives neither, or the file isn't there.
    """
    if settings.bootstrap:
        return settings.bootstrap
    if settings.address_file is None:
        raise SiteFault("neither bootstrap nor address_file is given", "kafka", "add one to the site profile")
    try:
        return settings.address_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SiteFault(
            f"cannot be read: {error.strerror}", str(settings.address_file), "is the cluster started?"
        ) from error


def make_consumer(settings: KafkaSettings, group: str, errors: LastError) -> Consumer:
    """A consumer that is told what to read (``assign``) and that commits only when asked.

    Where an offset is gone, it says so instead of reading elsewhere. Messages of any size that a broker takes are read.

    Parameters
    ----------
    settings
        The site profile's.
    group
        Consumer group that offsets are committed to, for displays of lag.
    errors
        Remembers what goes wrong in the background.

    Raises
    ------
    resources.errors.SiteFault
        The profile's address, group or TLS files are wrong.
    """
    if not group:
        raise SiteFault("is empty", "arrivals.group", "name a consumer group")  # librdkafka would abort the process
    consumer = _make(
        Consumer,
        settings,
        errors,
        {
            "group.id": group,
            "session.timeout.ms": _GROUP_PATIENCE_MS,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 65_536,
            "fetch.max.bytes": 64 * 2**20,
            "receive.message.max.bytes": 256 * 2**20,
        },
    )
    errors.serve = lambda: consumer.consume(_EVENTS, timeout=0)
    return consumer


def make_admin(settings: KafkaSettings, errors: LastError) -> AdminClient:
    """A client that asks about topics and offsets.

    Raises
    ------
    resources.errors.SiteFault
        The profile's address or TLS files are wrong.
    """
    return _make(AdminClient, settings, errors, {})


def make_producer(settings: KafkaSettings, errors: LastError) -> Producer:
    """A producer whose messages are neither lost nor written twice.

    Raises
    ------
    resources.errors.SiteFault
        The profile's address or TLS files are wrong.
    """
    return _make(Producer, settings, errors, {"enable.idempotence": True, "linger.ms": 5})


def visible_topics(consumer: Consumer, timeout_s: float) -> ClusterMetadata:
    """What the cluster shows to a consumer that reads nothing yet.

    Kafka hides a topic from those who have no right to it. A principal that nobody knows sees none at all, which looks
    like an empty cluster: then it counts whether the consumer may use its group.

    Parameters
    ----------
    consumer
        Of `make_consumer`.
    timeout_s
        Patience.

    Raises
    ------
    confluent_kafka.KafkaException
        The broker doesn't answer, or grants no right to anything.
    """
    metadata = consumer.list_topics(timeout=timeout_s)
    if not metadata.topics:
        for message in consumer.consume(1, timeout=min(_GROUP_TIMEOUT_S, timeout_s)):
            error = message.error()
            if error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise KafkaException(error)
    return metadata


def _make[Client](
    client: Callable[[dict[str, Any]], Client], settings: KafkaSettings, errors: LastError, more: dict[str, Any]
) -> Client:
    where = bootstrap_address(settings)
    configuration: dict[str, Any] = {
        "bootstrap.servers": where,
        "client.id": settings.client_id,
        "error_cb": errors,
        "log_level": 0,
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.max.ms": 1_000,
    }
    if settings.tls is not None:
        check_files(settings.tls)
        configuration |= {
            "security.protocol": "ssl",
            "ssl.ca.location": str(settings.tls.ca),
            "ssl.certificate.location": str(settings.tls.certificate),
            "ssl.key.location": str(settings.tls.key),
        }
    errors.tls = settings.tls
    try:
        return client(configuration | more)
    except KafkaException as error:
        raise SiteFault(f"Kafka: {error.args[0].str()}", where, "check the profile's kafka section") from error
