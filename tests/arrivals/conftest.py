"""The tiny survey, simulated once a test run, and a fresh site for each test."""

import pytest

from simulator.delivery import Delivery
from tests.arrivals.delivered import ReceivingSite, deliver, make_repository, receiving_site


@pytest.fixture(scope="session")
def delivery(tmp_path_factory) -> Delivery:
    return deliver(tmp_path_factory.mktemp("arrivals") / "survey")


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    return make_repository(tmp_path_factory.mktemp("arrivals") / "repository")


@pytest.fixture
def site(tmp_path, repository, delivery) -> ReceivingSite:
    return receiving_site(tmp_path, repository, delivery.rucio_folder)
