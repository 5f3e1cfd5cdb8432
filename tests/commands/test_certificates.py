"""`drp certificates` says until when they are good, and fails in time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from commands.main import main
from services.pki import LIFE, Authority

TOP = Path(__file__).parents[2]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of certificates as a site has it, that its profile names."""
    issued = Authority(tmp_path / "pki", "Grid CA").issue("drp-arrivals")
    tls = tmp_path / "tls"
    tls.mkdir()
    for given, wanted in ((issued.ca, "ca.pem"), (issued.certificate, "drp.pem"), (issued.key, "drp.key")):
        (tls / wanted).write_bytes(given.read_bytes())
    for name in ("STATE", "REPORTS_URL", "BUTLER", "LEDGER", "KAFKA"):
        monkeypatch.setenv(f"DRP_{name}", str(tmp_path))
    monkeypatch.setenv("LSST_VERSION", "w_2026_40")
    monkeypatch.setenv("DRP_TLS", str(tls))
    monkeypatch.setenv("DRP_SITE", str(TOP / "deploy" / "sites" / "lancaster.yaml"))
    return tls


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["drp", "certificates", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_good_certificates_are_shown(site, monkeypatch, capsys):
    assert run(monkeypatch, "--warn-days", "1") == 0

    shown = capsys.readouterr().out
    assert "CN=drp-arrivals" in shown
    assert "CN=Grid CA" in shown


def test_a_certificate_that_ends_soon_is_an_error_that_says_when(site, monkeypatch, capsys):
    assert run(monkeypatch, "--warn-days", str(LIFE.days + 1)) == 1

    [line] = capsys.readouterr().err.strip().splitlines()
    assert f"{site / 'drp.pem'}: the certificate of CN=drp-arrivals," in line
    assert "; renew it: docs/kafka.md" in line


def test_a_file_that_is_not_there_is_one_line(site, monkeypatch, capsys):
    (site / "drp.key").unlink()

    assert run(monkeypatch) == 1

    [line] = capsys.readouterr().err.strip().splitlines()
    assert "drp.key: cannot be read: No such file or directory" in line


def test_a_site_without_certificates_is_told_so(site, monkeypatch, capsys):
    monkeypatch.setenv("DRP_SITE", str(TOP / "deploy" / "sites" / "laptop.yaml"))

    assert run(monkeypatch) == 0
    assert capsys.readouterr().out.strip() == "the site profile names no certificates"
