"""Runs that lose their workers, on a real Dagster instance with real processes."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.launcher.base import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

TOY = Path(__file__).parents[1] / "launchers"
sys.path.insert(0, str(TOY))

from toy_repository import make_repository, make_request  # noqa: E402

from launchers import bps, reattach, warm, watch  # noqa: E402
from launchers.local.store import JobStore  # noqa: E402
from launchers.processes import ProcessIdentity  # noqa: E402
from launchers.run_launcher import WORKER_TAG  # noqa: E402

pytestmark = pytest.mark.integration

SLOW = "{'2026110100001-1': 'slow'}"
HANG = "{'2026110100001-1': 'hang'}"


class World:
    """One Dagster instance, one repository, one submission."""

    def __init__(self, instance: dg.DagsterInstance, root: str, folder: Path) -> None:
        self.instance, self.root, self.folder = instance, root, folder

    def launch(self, behaviour: str = "{}") -> str:
        job = ReconstructableJob.for_file(str(TOY / "toy_dagster.py"), "toy_job")
        tags = {"toy/root": self.root, "toy/folder": str(self.folder), "toy/behaviour": behaviour}
        run = self.instance.create_run_for_job(job.get_definition(), tags=tags, job_code_origin=job.get_python_origin())
        self.instance.launch_run(run.run_id, workspace=None)
        return run.run_id

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def worker(self, run_id: str) -> ProcessIdentity:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return ProcessIdentity.parse(run.tags[WORKER_TAG].partition("/")[2])

    def monitor(self, run_id: str) -> None:
        """What the daemon does every few seconds."""
        record = self.instance.get_run_record_by_id(run_id)
        assert record is not None
        if record.dagster_run.status is dg.DagsterRunStatus.STARTED:
            monitor_started_run(self.instance, None, record, logging.getLogger("monitor"))

    def messages(self, run_id: str) -> list[str]:
        return [entry.user_message or entry.message for entry in self.instance.all_logs(run_id)]

    def until_submitted(self, run_id: str) -> None:
        wait_until(lambda: reattach.submissions_of_run(self.instance, run_id))

    def attempts(self) -> list[int]:
        return [job.attempt for job in JobStore(self.folder / "submit").read_jobs()]


def wait_until(condition: Callable[[], object], timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def state_folder(tmp_path_factory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("state")
    yield state
    warm.stop(state)


@pytest.fixture
def world(monkeypatch, tmp_path, state_folder) -> Iterator[World]:
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(warm.STATE_VARIABLE, raising=False)
    home = tmp_path / "dagster"
    home.mkdir()
    settings = {
        "run_launcher": {
            "module": "launchers.run_launcher",
            "class": "ReattachingRunLauncher",
            "config": {"state_folder": str(state_folder)},
        },
        "run_monitoring": {"enabled": True, "max_resume_run_attempts": 3},
        "telemetry": {"enabled": False},
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    root = make_repository(tmp_path / "repo")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield World(instance, root, tmp_path / "submission")


def hanging_workers(folder: Path) -> list[str]:
    graph = make_request("", folder).graph_path.name
    found = subprocess.run(["pgrep", "-f", f"run-qbb .*{folder}.*{graph}"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def test_a_run_launches_watches_and_judges_its_submission(world):
    run_id = world.launch()

    wait_until(lambda: world.instance.get_run_by_id(run_id).is_finished)

    assert world.status(run_id) is dg.DagsterRunStatus.SUCCESS
    messages = world.messages(run_id)
    assert "toy_step1_97a5a4d1_1: 20 quanta (8 double, 8 square, 4 sum)" in messages
    assert "outcome: 20 of 20" in messages
    assert sum("jobs:" in message for message in messages) < 10
    health = world.instance.run_launcher.check_run_worker_health(world.instance.get_run_by_id(run_id))
    wait_until(lambda: not world.worker(run_id).is_alive)
    health = world.instance.run_launcher.check_run_worker_health(world.instance.get_run_by_id(run_id))
    assert health.status is WorkerStatus.SUCCESS


def test_a_killed_worker_is_noticed_and_its_successor_finds_the_submission(world):
    run_id = world.launch(SLOW)
    world.until_submitted(run_id)
    first = world.worker(run_id)
    world.monitor(run_id)
    assert world.worker(run_id) == first

    first.send(signal.SIGKILL)
    wait_until(lambda: not first.is_alive)
    world.monitor(run_id)
    wait_until(lambda: world.instance.get_run_by_id(run_id).is_finished)

    assert world.status(run_id) is dg.DagsterRunStatus.SUCCESS
    assert world.worker(run_id) != first
    assert world.attempts() == [1, 1, 1]
    assert any("was submitted before" in message for message in world.messages(run_id))
    assert len(reattach.submissions_of_run(world.instance, run_id)) == 1


def test_a_worker_told_to_stop_leaves_its_submission_running(world):
    run_id = world.launch(SLOW)
    world.until_submitted(run_id)
    handle = bps.find(world.folder)
    assert handle is not None

    world.worker(run_id).send(signal.SIGTERM)
    wait_until(lambda: not world.worker(run_id).is_alive)

    assert watch.watch(handle, poll_s=0.1).state == "SUCCEEDED"
    assert any("runs on" in message for message in world.messages(run_id))


def test_terminating_a_run_cancels_its_submission(world):
    run_id = world.launch(HANG)
    world.until_submitted(run_id)
    wait_until(lambda: hanging_workers(world.folder))

    assert world.instance.run_launcher.terminate(run_id)
    wait_until(lambda: world.instance.get_run_by_id(run_id).is_finished)

    assert world.status(run_id) is dg.DagsterRunStatus.CANCELED
    handle = bps.find(world.folder)
    assert handle is not None
    assert watch.look(handle).state == "DELETED"
    wait_until(lambda: not hanging_workers(world.folder))


def test_terminating_a_run_from_another_machine_cancels_its_submission_too(world):
    run_id = world.launch(HANG)
    world.until_submitted(run_id)
    worker = world.worker(run_id)
    world.instance.add_run_tags(run_id, {WORKER_TAG: f"another/{worker}"})
    world.monitor(run_id)

    assert world.instance.run_launcher.terminate(run_id)

    assert world.status(run_id) is dg.DagsterRunStatus.CANCELING
    assert any("is left to who watches it" in message for message in world.messages(run_id))
    wait_until(lambda: world.instance.get_run_by_id(run_id).is_finished)
    assert world.status(run_id) is dg.DagsterRunStatus.CANCELED
    assert world.worker(run_id) == worker
    handle = bps.find(world.folder)
    assert handle is not None
    assert watch.look(handle).state == "DELETED"


def test_terminating_a_run_whose_worker_is_gone_cancels_its_submission_too(world):
    run_id = world.launch(HANG)
    world.until_submitted(run_id)
    world.worker(run_id).send(signal.SIGKILL)
    wait_until(lambda: not world.worker(run_id).is_alive)

    assert world.instance.run_launcher.terminate(run_id)

    assert world.status(run_id) is dg.DagsterRunStatus.CANCELED
    handle = bps.find(world.folder)
    assert handle is not None
    assert watch.look(handle).state == "DELETED"
    assert any(f"worker was gone.\n{handle.name} was cancelled" in message for message in world.messages(run_id))


def test_a_cancelled_submission_goes_on_when_it_is_asked_for_again(world):
    run_id = world.launch(SLOW)
    world.until_submitted(run_id)
    world.instance.run_launcher.terminate(run_id)
    wait_until(lambda: world.instance.get_run_by_id(run_id).is_finished)

    second = world.launch(SLOW)
    wait_until(lambda: world.instance.get_run_by_id(second).is_finished)

    assert world.status(second) is dg.DagsterRunStatus.SUCCESS
    assert any("goes on where it stopped" in message for message in world.messages(second))


def test_a_reused_process_number_is_not_taken_for_the_worker(world):
    run_id = world.launch()
    wait_until(lambda: world.instance.get_run_by_id(run_id).is_finished)
    run = world.instance.get_run_by_id(run_id)
    host = run.tags[WORKER_TAG].partition("/")[0]
    world.instance.add_run_tags(run_id, {WORKER_TAG: f"{host}/1@another boot:1"})

    health = world.instance.run_launcher.check_run_worker_health(world.instance.get_run_by_id(run_id))

    assert health.status is not WorkerStatus.RUNNING
