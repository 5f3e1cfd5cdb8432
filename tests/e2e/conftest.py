"""The small survey, run whole once a test run, with its services left up for the tests that look at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from commands.demonstration import Demonstration
from commands.progress import Standing
from simulator.survey import CI


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demonstration]:
    """The CI survey after its release: complete, services running."""
    demonstration = Demonstration(tmp_path_factory.mktemp("ci"), CI)
    try:
        delivery = demonstration.start(lambda _: None)
        demonstration.publish(delivery)
        standing = demonstration.watch(delivery, lambda _: None)
        assert standing is Standing.COMPLETE, demonstration.failures()
        yield demonstration
    finally:
        demonstration.stop()


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept."""
    folder = Path(__file__).parents[2] / "artefacts"
    folder.mkdir(exist_ok=True)
    return folder
