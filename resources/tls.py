"""Certificates and keys of mTLS: what the PEM files say, until when they are good, and why a handshake fails.

Nothing of a key is ever said: only that there is none, that it is locked, or that it fits another certificate.

Belongs here: reading the files that the site profile names, and asking a server for its certificate. Doesn't: what uses
them (`resources.kafka`), or making certificates (a site's authority does; for tests `services.pki`).
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from resources.errors import SiteFault
from resources.site import TlsSettings

WARN_DAYS = 30.0
"""So long before its end a certificate is worth a warning: an authority may need a week or two."""

_PROBE_TIMEOUT_S = 10.0
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says.

    Parameters
    ----------
    path
        The file it is in.
    subject, issuer
        Whose it is and who says so, in the order in which Kafka writes principals (``CN=…,OU=…,O=…,C=…``).
    not_before, not_after
        When it is good.
    """

    path: Path
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime

    def days_left(self, now: datetime) -> float:
        """Days until it ends; negative when it has ended."""
        return (self.not_after - now) / _DAY

    def is_good(self, now: datetime) -> bool:
        """Whether it is good at a time."""
        return self.not_before <= now < self.not_after


def read_certificates(path: Path) -> tuple[CertificateFacts, ...]:
    """Read the certificates of a PEM file: an owner's own first, or those of authorities.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    resources.errors.SiteFault
        It can't be read, or holds no certificate.
    """
    return tuple(
        CertificateFacts(
            path,
            certificate.subject.rfc4514_string(),
            certificate.issuer.rfc4514_string(),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )
        for certificate in _certificates(path)
    )


def check_files(tls: TlsSettings) -> CertificateFacts:
    """Check that the files are there and belong together; returns what the certificate says.

    A certificate that has ended is no error here: only the server's clock counts.

    Parameters
    ----------
    tls
        The files.

    Raises
    ------
    resources.errors.SiteFault
        A file can't be read or holds something else, the key is locked, or it belongs to another certificate.
    """
    _certificates(tls.ca)
    own = _certificates(tls.certificate)[0]
    try:
        key = load_pem_private_key(_content(tls.key), password=None)
    except TypeError as error:
        raise SiteFault(
            "the key is protected by a passphrase", str(tls.key), "store it without: docs/kafka.md"
        ) from error
    except ValueError:
        # What the library says might quote the file.
        raise SiteFault("holds no private key in PEM format", str(tls.key), "name the key's file") from None
    if _spki(key.public_key()) != _spki(own.public_key()):
        raise SiteFault(
            f"the key doesn't belong to the certificate in {tls.certificate}",
            str(tls.key),
            "name the two that were issued together",
        )
    return read_certificates(tls.certificate)[0]


def expiry_warning(facts: CertificateFacts, now: datetime, within_days: float = WARN_DAYS) -> str | None:
    """One line if a certificate has ended or will soon; none if all is well.

    Parameters
    ----------
    facts
        The certificate.
    now
        With its time zone.
    within_days
        How soon is soon.
    """
    left = facts.days_left(now)
    if left > within_days:
        return None
    when = f"{facts.not_after.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    what = f"ended {-left:.0f} days ago, on {when}" if left <= 0 else f"ends in {left:.0f} days, on {when}"
    return f"{facts.path}: the certificate of {facts.subject} {what}; renew it: docs/kafka.md"


def expiry_warnings(tls: TlsSettings, now: datetime, within_days: float = WARN_DAYS) -> tuple[str, ...]:
    """Lines about those of the profile's certificates, the authorities' included, that have ended or will soon.

    Parameters
    ----------
    tls
        The files.
    now
        With its time zone.
    within_days
        How soon is soon.

    Raises
    ------
    resources.errors.SiteFault
        A file can't be read or holds no certificate.
    """
    all_of_them = (*read_certificates(tls.certificate), *read_certificates(tls.ca))
    warnings = (expiry_warning(facts, now, within_days) for facts in all_of_them)
    return tuple(dict.fromkeys(warning for warning in warnings if warning is not None))


def why_untrusted(host: str, port: int, ca: Path, timeout_s: float = _PROBE_TIMEOUT_S) -> str | None:
    """Ask a server for its certificate, and say what is wrong with it; none if nothing is.

    Parameters
    ----------
    host, port
        The server.
    ca
        Authorities that it should be vouched for by.
    timeout_s
        Patience.

    Raises
    ------
    OSError
        It doesn't answer, or ends the talk before it has shown its certificate.
    """
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # librdkafka and Java aren't strict either
    try:
        with (
            socket.create_connection((host, port), timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.rstrip(".")
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):  # it has looked at ours, so we have found its good
            return None
        raise


def speaks_tls(host: str, port: int, timeout_s: float = _PROBE_TIMEOUT_S) -> bool:
    """Whether a server answers a TLS handshake, whatever its certificate.

    Parameters
    ----------
    host, port
        The server.
    timeout_s
        Patience.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except OSError:
        return False


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(path))
    except ValueError:
        raise SiteFault("holds no certificate in PEM format", str(path), "name the certificate's file") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SiteFault(f"cannot be read: {error.strerror}", str(path), "check the profile's kafka.tls") from error


def _spki(key: PublicKeyTypes) -> bytes:
    """A public key's encoding, by which two are compared."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
