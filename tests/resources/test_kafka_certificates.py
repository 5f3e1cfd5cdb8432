"""Certificates and keys: what the files say, until when they are good, and how a wrong file is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from resources.errors import SiteFault
from resources.site import TlsSettings
from resources.tls import CertificateFacts, check_files, expiry_warning, expiry_warnings, read_certificates
from services.pki import LIFE, Authority

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), "Right CA")


@pytest.fixture(scope="module")
def tls(authority) -> TlsSettings:
    issued = authority.issue("drp-arrivals")
    return TlsSettings(ca=issued.ca, certificate=issued.certificate, key=issued.key)


def facts_that_end(authority: Authority, when: datetime) -> CertificateFacts:
    return CertificateFacts(authority.certificate, "CN=drp", "CN=Right CA", when - timedelta(days=395), when)


def test_a_certificate_tells_whose_it_is_as_kafka_writes_principals(tls):
    [facts] = read_certificates(tls.certificate)

    assert facts.subject == "CN=drp-arrivals,O=Throw-away tests"
    assert facts.issuer.startswith("CN=Right CA,")
    assert facts.days_left(NOW) == pytest.approx(LIFE.days, abs=0.1)
    assert facts.is_good(NOW)


def test_files_that_belong_together_pass(tls):
    assert check_files(tls).subject.startswith("CN=drp-arrivals,")


def test_an_expired_certificate_passes_because_only_the_brokers_clock_counts(authority):
    expired = authority.issue("drp-arrivals", expired=True)
    settings = TlsSettings(ca=expired.ca, certificate=expired.certificate, key=expired.key)

    assert not check_files(settings).is_good(NOW)


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
def test_a_missing_file_is_named(tls, tmp_path, which):
    missing = tmp_path / "missing.pem"

    with pytest.raises(SiteFault) as raised:
        check_files(tls.model_copy(update={which: missing}))

    assert str(raised.value) == f"{missing}: cannot be read: No such file or directory; check the profile's kafka.tls"


@pytest.mark.parametrize(("which", "what"), [("ca", "certificate"), ("certificate", "certificate"), ("key", "key")])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN NONSENSE-----\nc2VjcmV0\n-----END NONSENSE-----\n", b"\xff\x00"])
def test_a_file_that_holds_something_else_is_named_and_not_quoted(tls, tmp_path, which, what, content):
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(content)

    with pytest.raises(SiteFault, match=rf"wrong.pem: holds no (private )?{what} in PEM format") as raised:
        check_files(tls.model_copy(update={which: wrong}))

    assert "c2VjcmV0" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_locked_key_is_named(tls, tmp_path):
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    encryption = serialization.BestAvailableEncryption(b"word")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))

    with pytest.raises(SiteFault, match="the key is protected by a passphrase"):
        check_files(tls.model_copy(update={"key": locked}))


def test_a_key_of_another_certificate_is_named(tls, authority):
    other = authority.issue("other")

    with pytest.raises(SiteFault) as raised:
        check_files(tls.model_copy(update={"key": other.key}))

    assert str(raised.value) == (
        f"{other.key}: the key doesn't belong to the certificate in {tls.certificate}; "
        "name the two that were issued together"
    )


def test_the_profiles_certificates_and_authorities_are_watched(tls):
    assert expiry_warnings(tls, NOW, within_days=LIFE.days - 2) == ()

    own, ca = expiry_warnings(tls, NOW + LIFE)

    assert own.startswith(f"{tls.certificate}: the certificate of CN=drp-arrivals,")
    assert ca.startswith(f"{tls.ca}: the certificate of CN=Right CA,")


def test_a_warning_says_whose_and_when(authority):
    end = datetime(2026, 12, 5, 10, 0, tzinfo=UTC)
    facts = facts_that_end(authority, end)

    assert expiry_warning(facts, end - timedelta(days=31)) is None
    assert expiry_warning(facts, end - timedelta(days=12)) == (
        f"{facts.path}: the certificate of CN=drp ends in 12 days, on 2026-12-05 10:00 UTC; renew it: docs/kafka.md"
    )
    assert "ended 3 days ago" in (expiry_warning(facts, end + timedelta(days=3)) or "")


@given(st.floats(-1000, 1000), st.floats(0, 400))
def test_warnings_come_exactly_when_no_more_than_the_notice_is_left(left, notice):
    facts = CertificateFacts(Path("host.pem"), "CN=a", "CN=b", NOW - timedelta(days=2000), NOW + timedelta(days=left))

    warning = expiry_warning(facts, NOW, notice)

    assert (warning is not None) == (facts.days_left(NOW) <= notice)
    assert facts.is_good(NOW) == (facts.days_left(NOW) > 0)
    assert warning is None or "\n" not in warning
