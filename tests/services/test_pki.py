"""Certificates prove who one is to those who trust their authority, and to nobody else."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from services.pki import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "pki")


def context(purpose, certificate):
    made = ssl.create_default_context(purpose, cafile=str(certificate.ca))
    made.load_cert_chain(certificate.certificate, certificate.key)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def shake_hands(server, client):
    """Let a client and a server show each other their certificates; give what the server thinks of the client."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    theirs.settimeout(20)
    thoughts = []

    def serve():
        try:
            with context(ssl.Purpose.CLIENT_AUTH, server).wrap_socket(ours, server_side=True) as wrapped:
                thoughts.append(dict(pair[0] for pair in wrapped.getpeercert()["subject"])["commonName"])
        except ssl.SSLError as error:
            thoughts.append(error.reason)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with context(ssl.Purpose.SERVER_AUTH, client).wrap_socket(theirs, server_hostname="127.0.0.1") as wrapped:
            wrapped.recv(1)
    except OSError:
        theirs.close()
    serving.join(20)
    return thoughts[0]


def test_who_has_a_certificate_of_the_authority_is_known_by_name(authority):
    assert shake_hands(authority.issue("broker"), authority.issue("drp-arrivals")) == "drp-arrivals"


def test_an_expired_certificate_is_refused(authority):
    client = authority.issue("drp-arrivals", expired=True)

    assert shake_hands(authority.issue("broker"), client) == "CERTIFICATE_VERIFY_FAILED"


def test_a_certificate_of_another_authority_is_refused(authority, tmp_path):
    rogue = Authority(tmp_path / "rogue").issue("drp-arrivals", trusts=authority)

    assert shake_hands(authority.issue("broker"), rogue) == "CERTIFICATE_VERIFY_FAILED"


def test_a_server_that_the_client_does_not_trust_is_refused_by_the_client(authority, tmp_path):
    distrustful = authority.issue("drp-arrivals", trusts=Authority(tmp_path / "rogue"))

    assert shake_hands(authority.issue("broker"), distrustful) == "TLSV1_ALERT_UNKNOWN_CA"


def test_the_same_name_gets_the_same_certificate(authority):
    first = authority.issue("drp-arrivals")
    content = first.certificate.read_bytes()

    assert Authority(authority.folder).issue("drp-arrivals") == first
    assert first.certificate.read_bytes() == content


def test_services_that_were_left_alone_for_years_start_again(authority):
    issued = authority.issue("broker")

    for file in (issued.ca, issued.certificate):
        end = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
        assert end > datetime.now(UTC) + timedelta(days=9 * 365)


def test_keys_are_readable_by_their_owner_alone(authority):
    certificate = authority.issue("drp-arrivals")

    for secret in (certificate.key, certificate.keystore, authority.folder / "ca.keystore.pem"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
