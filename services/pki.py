"""A throw-away certificate authority, and certificates of the right and of the wrong kind, for tests.

The keys lie unprotected beside the certificates: nothing of it is fit for a site.

Belongs here: making authorities and certificates as PEM files. Doesn't: who is let in with them
(`services.apache_kafka`).
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORGANISATION = "Throw-away tests"
LIFE = datetime.timedelta(days=3650)
"""Longer than anybody keeps a folder of services: one that runs would have to be started anew with every renewal."""

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of one who can prove to be `name`.

    Parameters
    ----------
    name
        The subject's CN, which is the principal's name in Kafka.
    ca
        Whom its owner trusts.
    certificate, key
        What its owner shows, and the proof.
    keystore
        Both in one file, as Java reads them.
    """

    name: str
    ca: Path
    certificate: Path
    key: Path
    keystore: Path


class Authority:
    """A certificate authority in a folder.

    Parameters
    ----------
    folder
        Of its own files and of the certificates it issued; made when first used.
    name
        Its CN.
    """

    def __init__(self, folder: Path, name: str = "Throw-away CA") -> None:
        self.folder = folder
        self.name = name

    @property
    def certificate(self) -> Path:
        """What those have to trust who trust this authority."""
        with self._alone():
            self._load()
        return self.folder / "ca.pem"

    def issue(self, name: str, *, expired: bool = False, trusts: Authority | None = None) -> Certificate:
        """Give a certificate for servers and clients on loopback, made when first asked for.

        Parameters
        ----------
        name
            The subject's CN.
        expired
            Whether it ended yesterday.
        trusts
            Whom its owner trusts; this authority by default.
        """
        stem = f"{name}-expired" if expired else name
        files = Certificate(
            name,
            (trusts or self).certificate,
            self.folder / f"{stem}.pem",
            self.folder / f"{stem}.key",
            self.folder / f"{stem}.keystore.pem",
        )
        with self._alone():
            if not files.keystore.exists():  # the last to be written
                self._write(files, expired=expired)
        return files

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        keystore = self.folder / "ca.keystore.pem"
        if not keystore.exists():
            new = ec.generate_private_key(ec.SECP256R1())
            usage = x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )
            subject = _subject(self.name)
            own = (
                _unsigned(subject, subject, new.public_key(), expired=False)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(usage, critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(new.public_key()), critical=False)
                .sign(new, hashes.SHA256())
            )
            (self.folder / "ca.pem").write_bytes(_pem(own))
            _write_secret(keystore, _pem(new) + _pem(own))
        content = keystore.read_bytes()
        key = serialization.load_pem_private_key(content, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{keystore} holds no elliptic-curve key")
        return x509.load_pem_x509_certificate(content), key

    def _write(self, files: Certificate, *, expired: bool) -> None:
        ca, ca_key = self._load()
        key = ec.generate_private_key(ec.SECP256R1())
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        roles = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        signed = (
            _unsigned(_subject(files.name), ca.subject, key.public_key(), expired=expired)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        files.certificate.write_bytes(_pem(signed))
        _write_secret(files.key, _pem(key))
        _write_secret(files.keystore, _pem(key) + _pem(signed))


def _subject(name: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    end = now - _DAY if expired else now + LIFE
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * _DAY)
        .not_valid_after(end)
    )


def _pem(thing: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
