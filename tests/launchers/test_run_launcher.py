"""What the run launcher does about workers that it can't see, and about what dead ones have submitted."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from lsst.ctrl.bps import WmsStates

sys.path.insert(0, str(Path(__file__).parent))

from scripted_service import ScriptedService

from launchers.bps import Handle
from launchers.claiming import claim_attempt
from launchers.processes import ProcessIdentity, exclusive
from launchers.run_launcher import WORKER_TAG, ReattachingRunLauncher
from launchers.submission import SubmissionKey

KEY = SubmissionKey("dr1", "step1a", ("20261101",))
HERE = socket.gethostname()


@dg.job
def job() -> None: ...


class World:
    """An instance with this launcher, and one run."""

    def __init__(self, instance: dg.DagsterInstance, state: Path) -> None:
        self.instance, self.state = instance, state
        self.launcher = ReattachingRunLauncher(str(state))
        self.launcher.register_instance(instance)
        self.run_id = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED).run_id

    def started_on(self, host: str, worker: object) -> None:
        self.instance.add_run_tags(self.run_id, {WORKER_TAG: f"{host}/{worker}"})

    @property
    def run(self) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(self.run_id)
        assert run is not None
        return run

    def submit(self, wms_id: str = "1") -> Path:
        """What a worker has done that died before it could write so into its run's log."""
        key, folder = claim_attempt(self.state / "submissions", KEY, self.run_id)
        handle = Handle(f"{ScriptedService.__module__}.ScriptedService", wms_id, key.name, str(folder / "submit"))
        (folder / "handle.json").write_text(str(handle))
        return folder

    def said(self) -> str:
        return "\n".join(entry.message for entry in self.instance.all_logs(self.run_id))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    ScriptedService.forget()
    ScriptedService.script += [WmsStates.RUNNING]
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance, tmp_path)


@pytest.fixture
def worker() -> Iterator[ProcessIdentity]:
    """A process that lives."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield ProcessIdentity.of(process.pid)
        process.kill()


DEAD = ProcessIdentity(1, "another boot:1")


@pytest.mark.parametrize(
    "tags", [{WORKER_TAG: f"another/{DEAD}"}, {}], ids=["on another machine", "nobody knows where"]
)
def test_a_worker_that_cannot_be_seen_is_not_taken_for_dead(world: World, tags: dict[str, str]) -> None:
    world.instance.add_run_tags(world.run_id, tags)

    health = world.launcher.check_run_worker_health(world.run)

    assert health.status is WorkerStatus.RUNNING
    assert f"can't be seen from {HERE}" in health.msg


def test_a_dead_worker_of_this_machine_is_missed(world: World) -> None:
    world.started_on(HERE, DEAD)

    assert world.launcher.check_run_worker_health(world.run).status is WorkerStatus.FAILED


def test_a_run_whose_worker_is_on_another_machine_is_left_to_it_to_cancel(world: World, worker) -> None:
    world.started_on("another", worker)
    folder = world.submit()

    with exclusive(folder / "watch.lock") as lock:
        lock.write(b"run 1, process 7 on another")
        lock.flush()
        assert world.launcher.terminate(world.run_id)

    assert world.run.status is dg.DagsterRunStatus.CANCELING
    assert worker.is_alive
    assert ScriptedService.cancelled == []
    assert f"its worker is on another and can't be seen from {HERE}" in world.said()
    assert f"{KEY.name} is left to who watches it: run 1, process 7 on another" in world.said()


def test_what_nobody_watches_is_cancelled_from_here_wherever_the_worker_was(world: World) -> None:
    world.started_on("another", DEAD)
    world.submit()

    assert world.launcher.terminate(world.run_id)

    assert ScriptedService.cancelled == ["1"]
    assert world.run.status is dg.DagsterRunStatus.CANCELING
    assert "its worker is on another" in world.launcher.get_run_worker_debug_info(world.run)


def test_what_a_worker_submitted_that_died_before_it_could_say_so_is_cancelled_with_its_run(world: World) -> None:
    world.started_on(HERE, DEAD)
    world.submit()

    assert world.launcher.terminate(world.run_id)

    assert ScriptedService.cancelled == ["1"]
    assert world.run.status is dg.DagsterRunStatus.CANCELED
    assert f"The run's worker was gone.\n{KEY.name} was cancelled with its run: gone" in world.said()


def test_a_batch_system_that_is_away_does_not_keep_a_run_from_being_cancelled(world: World, monkeypatch) -> None:
    def is_away(*_: object, **__: object) -> None:
        raise RuntimeError("no scheduler")

    monkeypatch.setattr(ScriptedService, "report", is_away)
    world.started_on(HERE, DEAD)
    world.submit("")

    assert world.launcher.terminate(world.run_id)

    assert world.run.status is dg.DagsterRunStatus.CANCELED
    assert f"{KEY.name} was not cancelled: no scheduler" in world.said()
