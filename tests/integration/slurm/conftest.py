"""One cluster for the tests of a file, whole and empty for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.slurm import ClusterShape, Slurm
from tests.integration.slurm.workflows import wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm"), ClusterShape(cpus=8, accounting=True)) as started:
        yield started


@pytest.fixture
def slurm(cluster, monkeypatch, tmp_path) -> Slurm:
    """The cluster, empty and whole, and the environment that leads to it."""
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    cluster.start()
    cluster.client("scancel", "--user=root")
    wait_until(lambda: not cluster.client("squeue", "--noheader"))
    return cluster
