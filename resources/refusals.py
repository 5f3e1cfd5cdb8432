"""What Kafka's refusals and silences mean to an operator: one line each, with what, where and how to mend it.

librdkafka says ``_TRANSPORT`` of everything from a rogue certificate to a broker that is off; its text says which, and
where it doesn't, the broker is asked once more. What may pass by itself is `Retriable`, such as a handshake that a
restarting broker cut off; the rest is a `SiteFault`.

Belongs here: librdkafka's errors into ours. Doesn't: collecting them (`resources.kafka`), or reading certificates
(`resources.tls`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from confluent_kafka import KafkaError

from resources.errors import OperatorError, Retriable, SiteFault
from resources.site import TlsSettings
from resources.tls import CertificateFacts, read_certificates, speaks_tls, why_untrusted

_UNAUTHORISED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)
_LOST = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
_NO_TOPIC = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
_BROKER = re.compile(r"(?:\w+://)?(?P<host>[^\s/]+):(?P<port>\d+)/\w+: ")
_ALERT = re.compile(r"alert (?P<name>[a-z ]+): SSL alert number (?P<number>\d+)")
_STATE = re.compile(r" \(after \d+ms in state \w+[^)]*\)")
_UNVERIFIED = "certificate verify failed"
_ABOUT_CERTIFICATES = frozenset({41, 42, 43, 44, 45, 46, 48, 49, 116})
"""TLS alerts about the certificate that the other side was shown, or not shown (RFC 8446, section 6.2)."""
_INTERNAL = 80
"""The TLS alert of a server that is in trouble itself."""


def most_telling(later: KafkaError, earlier: KafkaError) -> KafkaError:
    """Of two errors of a client, the one that says more about the cause; the later one if they are alike."""
    return max(later, earlier, key=_telling)


def explain(error: KafkaError, where: str, tls: TlsSettings | None, now: datetime | None = None) -> OperatorError:
    """An error as an operator should read it.

    Parameters
    ----------
    error
        librdkafka's.
    where
        The cluster's address; the broker's, if the error names it, is better.
    tls
        What the client shows and trusts; none: it speaks no TLS.
    now
        For certificates that have ended; by default the present.
    """
    text, broker = " ".join(error.str().split()), where.partition(",")[0]
    named = _BROKER.search(text)
    if named:
        broker = f"{named['host']}:{named['port']}"
        text = text[named.end() :]
    text = _STATE.sub("", text)
    alert = _ALERT.search(text)
    if error.code() in _UNAUTHORISED:
        return _unauthorised(error, text, where, tls)
    if alert:
        return _alerted(int(alert["number"]), alert["name"], broker, tls, now or datetime.now(UTC))
    if _UNVERIFIED in text and tls is not None:
        return _untrusted(broker, tls)
    if error.code() == KafkaError._RESOLVE:
        return Retriable(f"Kafka: {text}", broker, "check the name in the profile's kafka section, and DNS")
    if tls is None and error.code() in _LOST and speaks_tls(*_host_and_port(broker)):
        return SiteFault("Kafka: the broker speaks TLS, and the profile has no certificate", broker, "add kafka.tls")
    if "SSL handshake failed" in text:
        return Retriable(f"Kafka: {text}", broker, "is the broker up, and is this its TLS port?")
    if error.code() == KafkaError._WAIT_COORD:
        mend = "is it up? if it is, can it make __consumer_offsets: see offsets.topic.replication.factor"
        return Retriable("Kafka: no broker answers for the group", where, mend)
    if error.code() in _NO_TOPIC:
        return Retriable(f"Kafka: {text}", where, "a topic has gone; if it stays away, mend arrivals.topics")
    if error.code() > 0:
        return Retriable(f"Kafka: {text}", broker if named else where, "the broker is up and can't: see its log")
    return Retriable(f"Kafka: {text}", broker if named else where, "is the broker up?")


def _telling(error: KafkaError) -> int:
    text = error.str()
    if error.code() in _UNAUTHORISED:
        return 4
    if _ALERT.search(text) or _UNVERIFIED in text:
        return 3
    if error.code() == KafkaError._RESOLVE:
        return 2
    return 0 if error.code() in _LOST and not _BROKER.search(text) else 1


def _unauthorised(error: KafkaError, text: str, where: str, tls: TlsSettings | None) -> OperatorError:
    who = "a client without certificate" if tls is None else read_certificates(tls.certificate)[0].subject
    match error.code():
        case KafkaError.TOPIC_AUTHORIZATION_FAILED:
            what, mend = "has no such right to a topic", "grant it what docs/kafka.md says, or read other topics"
        case KafkaError.GROUP_AUTHORIZATION_FAILED:
            what = "has no right to the consumer group"
            mend = "show the right certificate in kafka.tls, or grant this one what docs/kafka.md says"
        case _:
            what, mend = "is not let in", "show the right certificate in kafka.tls"
    return SiteFault(f"Kafka: {who} {what}: {text}", where, mend)


def _alerted(number: int, name: str, broker: str, tls: TlsSettings | None, now: datetime) -> OperatorError:
    if number == _INTERNAL:
        return Retriable(f"Kafka: the broker ended the handshake: {name}", broker, "see its log")
    if number not in _ABOUT_CERTIFICATES:
        return SiteFault(f"Kafka: no agreement on TLS: {name}", broker, "compare TLS versions and ciphers")
    if tls is None:
        return SiteFault(f"Kafka: the broker wants a certificate: {name}", broker, "name one in kafka.tls")
    own = read_certificates(tls.certificate)[0]
    if not own.is_good(now):
        return SiteFault(f"Kafka: our certificate {_span(own, now)}: {name}", broker, f"renew {own.path}")
    what = f"Kafka: the broker refuses our certificate, {own.subject}, issued by {own.issuer}: {name}"
    return SiteFault(what, broker, "it has to trust that issuer; see docs/kafka.md")


def _untrusted(broker: str, tls: TlsSettings) -> OperatorError:
    try:
        why = why_untrusted(*_host_and_port(broker), tls.ca)
    except OSError as error:
        what = f"Kafka: the broker's certificate is not good, and it doesn't answer when asked for it again: {error}"
        return SiteFault(what, broker, f"compare it with the authorities in {tls.ca}")
    if why is None:
        return Retriable("Kafka: the broker's certificate was not good, and now is", broker, "is it being renewed?")
    what = f"Kafka: the broker's certificate is not good: {why}"
    if "mismatch" in why:
        return SiteFault(what, broker, "name the broker as its certificate does, or have the name added")
    if "expired" in why or "not yet valid" in why:
        return SiteFault(what, broker, "have the broker's certificate renewed, and check this machine's clock")
    return SiteFault(what, broker, f"its authority is not in {tls.ca}: add it, if it should be trusted")


def _span(facts: CertificateFacts, now: datetime) -> str:
    if now < facts.not_before:
        return f"is good only from {facts.not_before:%Y-%m-%d %H:%M} UTC on"
    return f"ended on {facts.not_after:%Y-%m-%d %H:%M} UTC"


def _host_and_port(broker: str) -> tuple[str, int]:
    host, _, port = broker.rpartition("://")[2].rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 9092
