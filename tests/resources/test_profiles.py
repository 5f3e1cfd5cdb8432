"""The profiles of real sites are valid, and say nothing that the environment has to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resources.site import Site, read_site

SITES = Path(__file__).parents[2] / "deploy" / "sites"
FROM_ENVIRONMENT = ("STATE", "REPORTS_URL", "BUTLER", "LEDGER", "KAFKA", "TLS")


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Site:
    for name in FROM_ENVIRONMENT:
        monkeypatch.setenv(f"DRP_{name}", f"the-{name.lower()}")
    monkeypatch.setenv("LSST_VERSION", "w_2026_43")
    return read_site(SITES / f"{request.param}.yaml")


@pytest.mark.parametrize("profile", ["lancaster", "ral"], indirect=True)
def test_a_site_is_told_apart_from_its_services(profile: Site) -> None:
    assert profile.butler.repository == "the-butler"
    assert profile.ledger == "the-ledger"
    assert profile.kafka.bootstrap == "the-kafka"
    assert profile.kafka.tls is not None
    assert profile.wms.software.stack is not None
    assert profile.wms.software.stack.endswith("/w_2026_43")


@pytest.mark.parametrize("profile", ["lancaster", "ral"], indirect=True)
def test_no_step_takes_all_of_a_release_and_no_release_all_of_a_site(profile: Site) -> None:
    limits = profile.limits
    assert limits.step < limits.release < limits.site


@pytest.mark.parametrize(("profile", "topic"), [("lancaster", "LANCS-raw"), ("ral", "RAL-raw")], indirect=["profile"])
def test_topics_are_read_under_either_naming_of_the_mirror(profile: Site, topic: str) -> None:
    assert re.match(profile.arrivals.topics, topic)
    assert re.match(profile.arrivals.topics, f"usdf.{topic}")
    assert not re.match(profile.arrivals.topics, f"other.{topic}")
