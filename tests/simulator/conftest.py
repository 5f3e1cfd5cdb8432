"""A survey small enough to simulate in a second."""

from dataclasses import replace

import pytest

from simulator.delivery import simulate
from simulator.survey import CI


@pytest.fixture(scope="session")
def tiny():
    return replace(
        CI,
        name="tiny",
        detector_ids=(0, 1),
        detector_px=96,
        bands=("g", "r"),
        days=1,
        epochs_per_day=1,
        transients=2,
        single_file_visits=1,
    )


@pytest.fixture(scope="session")
def delivery(tiny, tmp_path_factory):
    return simulate(tiny, tmp_path_factory.mktemp("survey"))
