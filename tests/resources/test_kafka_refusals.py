"""librdkafka's errors become one line each, with what, where and how to mend it; nothing of a key is in any."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from resources.errors import Retriable, SiteFault
from resources.kafka import LastError, make_admin, make_consumer
from resources.refusals import explain, most_telling
from resources.site import KafkaSettings, TlsSettings
from services.pki import LIFE, Authority

WHERE = "kafka.site:9093"
BROKER = "ssl://kafka-2.site:9093/2: "
STATE = " (after 3ms in state APIVERSION_QUERY)"
BAD_CERTIFICATE = "error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42"
UNKNOWN_CERTIFICATE = "error:0A000416:SSL routines::ssl/tls alert certificate unknown: SSL alert number 46"


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> TlsSettings:
    issued = Authority(tmp_path_factory.mktemp("pki"), "Rogue CA").issue("drp-arrivals")
    return TlsSettings(ca=issued.ca, certificate=issued.certificate, key=issued.key)


@pytest.fixture
def silent():
    """A port that accepts a connection and hangs up."""

    def hang_up() -> None:
        server.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def vouched(tls):
    """A broker whose certificate is of the authority that we trust."""
    own = Authority(tls.ca.parent, "Rogue CA").issue("broker")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)

    def shake_hands() -> None:
        connection, _ = server.accept()
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as client:
            client.recv(1)  # until the other side hangs up

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=shake_hands, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def unverified(broker: str) -> KafkaError:
    text = f"ssl://{broker}/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed"
    return KafkaError(KafkaError._SSL, f"{text}{STATE}")


def transport(text: str) -> KafkaError:
    return KafkaError(KafkaError._TRANSPORT, f"{BROKER}Receive failed: {text}{STATE}")


def test_a_refused_certificate_is_named_with_its_issuer(tls):
    error = explain(transport(BAD_CERTIFICATE), WHERE, tls)

    assert isinstance(error, SiteFault)
    assert str(error) == (
        "kafka-2.site:9093: Kafka: the broker refuses our certificate, CN=drp-arrivals,O=Throw-away tests, issued by "
        "CN=Rogue CA,O=Throw-away tests: bad certificate; it has to trust that issuer; see docs/kafka.md"
    )


@pytest.mark.parametrize(
    ("shift", "what"), [(2 * LIFE, "our certificate ended on "), (-2 * LIFE, "our certificate is good only from ")]
)
def test_a_certificate_that_is_not_good_now_is_said_to_be_so(tls, shift, what):
    error = explain(transport(UNKNOWN_CERTIFICATE), WHERE, tls, datetime.now(UTC) + shift)

    assert isinstance(error, SiteFault)
    assert what in str(error)
    assert str(error).endswith(f"; renew {tls.certificate}")


def test_a_client_without_certificate_is_told_to_name_one():
    error = explain(transport(BAD_CERTIFICATE), WHERE, None)

    assert isinstance(error, SiteFault)
    assert str(error) == (
        "kafka-2.site:9093: Kafka: the broker wants a certificate: bad certificate; name one in kafka.tls"
    )


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "has no such right to a topic"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "has no right to the consumer group"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "is not let in"),
    ],
)
def test_a_principal_without_rights_is_named(tls, code, what):
    error = explain(KafkaError(code, "Broker: authorization failed"), WHERE, tls)

    assert isinstance(error, SiteFault)
    assert str(error).startswith(f"{WHERE}: Kafka: CN=drp-arrivals,O=Throw-away tests {what}: ")


def test_other_alerts_are_about_tls_itself_unless_the_broker_is_in_trouble(tls):
    versions = explain(transport("alert protocol version: SSL alert number 70"), WHERE, tls)
    trouble = explain(transport("alert internal error: SSL alert number 80"), WHERE, tls)

    assert isinstance(versions, SiteFault)
    assert "no agreement on TLS: protocol version" in str(versions)
    assert isinstance(trouble, Retriable)


def test_a_handshake_that_was_cut_off_may_succeed_later(tls):
    text = f"{BROKER}SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?{STATE}"

    error = explain(KafkaError(KafkaError._SSL, text), WHERE, tls)

    assert isinstance(error, Retriable)
    assert "Disconnected" in str(error)
    assert str(error).endswith("; is the broker up, and is this its TLS port?")


def test_a_name_that_does_not_resolve_is_said_to_be_so(tls):
    text = f"ssl://nowhere:9093/bootstrap: Failed to resolve 'nowhere:9093': Name or service not known{STATE}"

    error = explain(KafkaError(KafkaError._RESOLVE, text), "nowhere:9093", tls)

    assert isinstance(error, Retriable)
    assert str(error) == (
        "nowhere:9093: Kafka: Failed to resolve 'nowhere:9093': Name or service not known; "
        "check the name in the profile's kafka section, and DNS"
    )


def test_a_broker_that_hangs_up_on_us_may_be_back_later(silent):
    error = explain(KafkaError(KafkaError._TRANSPORT, "Local: Broker transport failure"), silent, None)

    assert isinstance(error, Retriable)
    assert str(error) == f"{silent}: Kafka: Local: Broker transport failure; is the broker up?"


def test_a_refused_broker_that_then_does_not_answer_is_still_one_that_we_refused(silent, tls):
    error = explain(unverified(silent), WHERE, tls)

    assert isinstance(error, SiteFault)
    assert str(error).startswith(
        f"{silent}: Kafka: the broker's certificate is not good, and it doesn't answer when asked for it again: "
    )
    assert str(error).endswith(f"; compare it with the authorities in {tls.ca}")


def test_a_broker_whose_certificate_has_become_good_may_be_talked_to_later(vouched, tls):
    error = explain(unverified(vouched), WHERE, tls)

    assert isinstance(error, Retriable)
    assert str(error) == f"{vouched}: Kafka: the broker's certificate was not good, and now is; is it being renewed?"


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "a topic has gone; if it stays away, mend arrivals.topics"),
        (KafkaError.NOT_ENOUGH_REPLICAS, "the broker is up and can't: see its log"),
        (KafkaError._TIMED_OUT, "is the broker up?"),
    ],
)
def test_only_of_a_silent_broker_it_is_asked_whether_it_is_up(tls, code, mend):
    error = explain(KafkaError(code), WHERE, tls)

    assert isinstance(error, Retriable)
    assert str(error) == f"{WHERE}: Kafka: {KafkaError(code).str()}; {mend}"


def test_the_most_telling_error_explains_a_call_that_timed_out(tls):
    errors = LastError(tls)
    errors(transport(BAD_CERTIFICATE))
    errors(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))

    error = errors.explain(KafkaError(KafkaError._TRANSPORT, "Failed to get metadata: Local"), WHERE)

    assert isinstance(error, SiteFault)
    assert "bad certificate" in str(error)


def test_what_is_raised_counts_when_it_says_more_than_what_went_before(tls):
    errors = LastError(tls)
    errors(KafkaError(KafkaError._TRANSPORT, "ssl://kafka:9093/1: Connect failed: Connection refused"))

    error = errors.explain(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: no"), WHERE)

    assert isinstance(error, SiteFault)


def test_what_is_over_explains_nothing_that_goes_wrong_later(tls):
    errors = LastError(tls)
    errors(transport(BAD_CERTIFICATE))
    errors.forget()

    error = errors.explain(KafkaError(KafkaError._TRANSPORT, "ssl://kafka:9093/1: Connect failed: refused"), WHERE)

    assert isinstance(error, Retriable)


def test_what_a_client_has_not_told_yet_is_asked_for(tls):
    errors = LastError(tls)
    errors.serve = lambda: errors(transport(BAD_CERTIFICATE))

    assert isinstance(errors.explain(KafkaError(KafkaError._TIMED_OUT, "timed out"), WHERE), SiteFault)


def test_a_wrong_file_is_found_before_anybody_is_asked(tls, tmp_path):
    settings = KafkaSettings(bootstrap=WHERE, tls=tls.model_copy(update={"key": tmp_path / "none.pem"}))

    for make in (lambda: make_consumer(settings, "drp", LastError()), lambda: make_admin(settings, LastError())):
        with pytest.raises(SiteFault, match=r"none\.pem: cannot be read"):
            make()


def test_an_empty_group_is_one_line_instead_of_an_aborted_process():
    with pytest.raises(SiteFault, match=r"^arrivals\.group: is empty; name a consumer group$"):
        make_consumer(KafkaSettings(bootstrap=WHERE), "", LastError())


def test_a_certificate_that_openssl_finds_too_weak_is_one_line(tmp_path):
    weak = rsa.generate_private_key(65537, 1024)
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    certificate = (
        x509.CertificateBuilder(name, name, weak.public_key(), 1, now, now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(weak, hashes.SHA256())
    )
    pem, key = tmp_path / "weak.pem", tmp_path / "weak.key"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    key.write_bytes(weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(SiteFault) as raised:
        make_consumer(
            KafkaSettings(bootstrap=WHERE, tls=TlsSettings(ca=pem, certificate=pem, key=key)), "drp", LastError()
        )

    assert re.fullmatch(rf"{WHERE}: Kafka: .* too small; check the profile's kafka section", str(raised.value))


CODES = st.sampled_from([KafkaError._TRANSPORT, KafkaError._SSL, KafkaError._RESOLVE, KafkaError._ALL_BROKERS_DOWN])
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=80)
ERRORS = st.builds(KafkaError, CODES, TEXTS | st.sampled_from([BAD_CERTIFICATE, f"{BROKER}x\ny"]))


@given(ERRORS, ERRORS)
def test_any_error_becomes_one_line_and_the_more_telling_one_is_one_of_the_two(tls, one, other):
    told = most_telling(one, other)

    line = str(explain(told, WHERE, tls, datetime.now(UTC) + timedelta(seconds=1)))

    assert told in (one, other)
    assert len(line.splitlines()) == 1
    assert "PRIVATE" not in line
