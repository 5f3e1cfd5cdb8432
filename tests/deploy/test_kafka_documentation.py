"""The lines of ``docs/kafka.md`` turn a grid certificate into what Kafka and the site profile need."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from resources.site import TlsSettings
from resources.tls import check_files, read_certificates
from services.pki import Authority

PAGE = Path(__file__).parents[2] / "docs" / "kafka.md"


def documented(name: str) -> str:
    """The commands below a mark, up to the next empty line."""
    found = re.search(rf"<!-- tested: {name} -->\n\n((?: {{4}}.*\n)+)", PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"{PAGE} marks no {name}"
    return re.sub(r"^ {4}", "", found[1], flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a host's certificate and key as an authority hands them out, and the authorities of the grid."""
    authority = Authority(tmp_path / "pki", "UK e-Science CA")
    issued = authority.issue("kafka.site")
    grid = tmp_path / "igtf"
    grid.mkdir()
    (grid / "UKeScienceRoot-2007.pem").write_bytes(
        Authority(tmp_path / "root", "UK e-Science root").certificate.read_bytes()
    )
    (grid / "UKeScienceCA-2B.pem").write_bytes(issued.ca.read_bytes())
    host = tmp_path / "host"
    host.mkdir()
    (host / "hostcert.pem").write_text("Certificate: as text first\n" + issued.certificate.read_text())
    key = load_pem_private_key(issued.key.read_bytes(), None)
    traditional = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert b"EC PRIVATE KEY" in traditional
    (host / "hostkey.pem").write_bytes(traditional)
    return host


def run(commands: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env={**os.environ, "IGTF": str(folder.parent / "igtf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_grid_certificate_becomes_what_the_profile_and_kafka_need(folder):
    run(documented("conversion"), folder)

    tls = TlsSettings(ca=folder / "ca.pem", certificate=folder / "drp.pem", key=folder / "drp.key")
    assert check_files(tls).subject.startswith("CN=kafka.site,")
    assert len(read_certificates(tls.ca)) == 2
    keystore = (folder / "keystore.pem").read_text()
    assert keystore.startswith("-----BEGIN PRIVATE KEY-----")
    assert keystore.count("BEGIN CERTIFICATE") == 1
    assert {path.stat().st_mode & 0o077 for path in (tls.key, folder / "keystore.pem")} == {0}


def test_what_was_made_is_seen_to_be_well(folder):
    run(documented("conversion"), folder)

    said = run(documented("inspection"), folder)

    assert "subject=CN=kafka.site," in said
    assert "drp.pem: OK" in said
    assert "Owner: CN=kafka.site," in said


def test_java_tools_get_a_truststore(folder):
    run(documented("conversion"), folder)

    run(documented("truststore"), folder)

    listed = run("keytool -list -keystore truststore.p12 -storepass changeit", folder)
    assert "trustedCertEntry" in listed
