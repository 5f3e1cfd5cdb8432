"""Clients of the Kafka cluster that the site profile names, and what their errors mean to an operator.

Belongs here: making consumers and producers with the profile's address and TLS files, and turning librdkafka's errors
into ours. Doesn't: what is read or written (`arrivals.drain`), or starting a cluster (`services`).
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from resources.errors import OperatorError, Retriable, SiteFault
from resources.site import KafkaSettings

_REFUSED = frozenset(
    {
        KafkaError._SSL,
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)


class LastError:
    """The last error that a client met in the background: it tells why a call of it timed out."""

    def __init__(self) -> None:
        self._last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Remember; refusals are more telling than the lost connections that follow them."""
        if self._last is None or self._last.code() not in _REFUSED or error.code() in _REFUSED:
            self._last = error

    def explain(self, error: KafkaException | KafkaError, where: str) -> OperatorError:
        """The error as an operator should read it: `SiteFault` if the site has to mend something, else `Retriable`.

        Parameters
        ----------
        error
            What a call raised.
        where
            The cluster's address.
        """
        direct = error if isinstance(error, KafkaError) else error.args[0]
        cause = direct if direct.code() in _REFUSED or self._last is None else self._last
        what = f"Kafka: {cause.str()}"
        if cause.code() in _REFUSED:
            return SiteFault(what, where, "check the profile's kafka.tls and the principal's ACLs")
        return Retriable(what, where, "is the broker up?")


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
    """
    return Consumer(
        _common(settings, errors)
        | {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 65_536,
            "fetch.max.bytes": 64 * 2**20,
            "receive.message.max.bytes": 256 * 2**20,
        }
    )


def make_admin(settings: KafkaSettings, errors: LastError) -> AdminClient:
    """A client that asks about topics and offsets."""
    return AdminClient(_common(settings, errors))


def make_producer(settings: KafkaSettings, errors: LastError) -> Producer:
    """A producer whose messages are neither lost nor written twice."""
    return Producer(_common(settings, errors) | {"enable.idempotence": True, "linger.ms": 5})


def _common(settings: KafkaSettings, errors: LastError) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "bootstrap.servers": bootstrap_address(settings),
        "client.id": settings.client_id,
        "error_cb": errors,
        "log_level": 0,
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.max.ms": 1_000,
    }
    if settings.tls is not None:
        configuration |= {
            "security.protocol": "ssl",
            "ssl.ca.location": str(settings.tls.ca),
            "ssl.certificate.location": str(settings.tls.certificate),
            "ssl.key.location": str(settings.tls.key),
        }
    return configuration
