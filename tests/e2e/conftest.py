"""The small survey, run whole once a test run, with its services left up for the tests that look at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from astropy.table import Table

from commands.demonstration import Demonstration
from commands.progress import Standing
from simulator.survey import CI
from tests.e2e.catalogue import read_objects


@pytest.fixture(scope="session")
def release_and_objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demonstration, Table]]:
    """The CI survey after its release, and the catalogue as it was then."""
    demonstration = Demonstration(tmp_path_factory.mktemp("ci"), CI)
    try:
        delivery = demonstration.start(lambda _: None)
        demonstration.publish(delivery)
        standing = demonstration.watch(delivery, lambda _: None)
        assert standing is Standing.COMPLETE, demonstration.failures()
        yield demonstration, read_objects(demonstration.site.butler)
    finally:
        demonstration.stop()


@pytest.fixture(scope="session")
def finished(release_and_objects: tuple[Demonstration, Table]) -> Demonstration:
    """The CI survey after its release: complete, services running."""
    return release_and_objects[0]


@pytest.fixture(scope="session")
def first_objects(release_and_objects: tuple[Demonstration, Table]) -> Table:
    """Its catalogue before any test processed anything again."""
    return release_and_objects[1]


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept."""
    folder = Path(__file__).parents[2] / "artefacts"
    folder.mkdir(exist_ok=True)
    return folder
