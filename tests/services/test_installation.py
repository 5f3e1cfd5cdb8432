"""Packages are installed only where they are missing, and bring no server to life."""

import pytest

from services import installation


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine's files, and what apt was told while they were how."""
    told = []
    monkeypatch.setattr(installation, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(installation, "_NO_CLUSTER", tmp_path / "createcluster.d" / "no-main-cluster.conf")

    def apt(arguments, environment):
        policy = installation._POLICY
        told.append((arguments, policy.read_text() if policy.exists() else None, installation._NO_CLUSTER.exists()))
        assert environment["DEBIAN_FRONTEND"] == "noninteractive"

    monkeypatch.setattr(installation, "_apt", apt)
    return told


def test_what_is_installed_is_not_missing():
    assert installation.missing(["dpkg", "no-such-package-anywhere"]) == ["no-such-package-anywhere"]


def test_no_server_may_start_and_no_cluster_is_made_while_packages_are_installed(machine):
    installation.install(["postgresql", "munge"])

    [update, (command, policy, no_cluster)] = machine
    assert update[0][0] == "update"
    assert command[0] == "install"
    assert command[-2:] == ["postgresql", "munge"]
    assert "--no-install-recommends" in command
    assert "exit 101" in policy
    assert no_cluster
    assert not installation._POLICY.exists()


def test_a_machines_own_policy_stays(machine):
    installation._POLICY.write_text("its own")

    installation.install(["munge"])

    assert machine[-1][1] == "its own"
    assert installation._POLICY.read_text() == "its own"
    assert not installation._NO_CLUSTER.exists()


def test_where_nothing_is_missing_nothing_is_done(machine, monkeypatch):
    monkeypatch.setattr(installation, "missing", lambda wanted: [])
    monkeypatch.setattr("sys.argv", ["installation", "chromium"])

    assert installation.main() == 0
    assert not machine


def test_who_is_not_root_is_told_what_is_missing(machine, monkeypatch, capsys):
    monkeypatch.setattr(installation, "missing", lambda wanted: ["chromium"])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["installation", "chromium"])

    assert installation.main() == 1
    assert "only root can install them: chromium" in capsys.readouterr().err
    assert not machine
