"""A cluster says how it is reached, and why it can't be used."""

import pytest

from services import slurm_daemons
from services.service import ServiceError
from services.slurm import Slurm


class Told(Slurm):
    """A cluster without daemons, of which Slurm's commands say what they are told to."""

    start_timeout_s = 0.1
    parts = ()
    said = ""

    def client(self, *command):
        return self.said


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """The control groups of a machine that has those that are needed."""
    folder = tmp_path / "cgroup"
    (folder / "freezer").mkdir(parents=True)
    monkeypatch.setattr(slurm_daemons, "CONTROL_GROUPS", folder)
    return folder


@pytest.fixture
def cluster(tmp_path, control_groups):
    return Told(tmp_path / "slurm")


def test_a_cluster_whose_nodes_take_no_jobs_does_not_run(cluster):
    cluster.said = "n1 is idle (none)\nn2 is down (Low RealMemory)\n"

    with pytest.raises(ServiceError) as raised:
        cluster.start()

    assert str(raised.value) == (
        "slurm: after 0.1 s not all nodes take jobs: n1 is idle (none), n2 is down (Low RealMemory); "
        f"see {cluster.folder}/slurm*/log"
    )


def test_a_machine_without_control_groups_of_the_first_version_is_said_so(cluster, control_groups):
    (control_groups / "freezer").rmdir()

    with pytest.raises(ServiceError, match=r"is not of version 1, .*; boot with systemd\.unified_cgroup_hierarchy=0"):
        cluster.start()


def test_clients_are_told_the_variable_that_leads_to_it(cluster):
    assert cluster.access == f"SLURM_CONF={cluster.folder}/slurm.conf"


def test_memory_is_that_of_all_daemons(cluster, monkeypatch):
    monkeypatch.setattr(cluster, "parts", (*cluster.nodes, cluster.controller), raising=False)
    monkeypatch.setattr(slurm_daemons.SlurmDaemon, "memory_bytes", 1000)

    assert cluster.memory_bytes == 3000
