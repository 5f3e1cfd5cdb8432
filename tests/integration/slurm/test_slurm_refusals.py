"""A Slurm that is down or refuses, a submitter who dies, folders that are full: said in one line, nothing twice."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsst.ctrl.bps import WmsStates

from launchers.slurm import service
from launchers.slurm.service import SlurmService
from resources.errors import OperatorError, Rejected, Retriable, SiteFault
from services.slurm import QUEUES, Slurm
from tests.integration.slurm.workflows import (
    dispatcher_states,
    end_of,
    job,
    prepare,
    report,
    running,
    states,
    submit,
    times,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_controller_that_is_down_is_waited_for_and_nothing_is_submitted_twice(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_BETWEEN_TRIES_S", 0.1)
    folder = tmp_path / "w"
    workflow = prepare(folder, job(folder, "isr_0"))
    assert slurm.pid is not None
    slurm.controller.stop()
    with pytest.raises(Retriable, match="Slurm doesn't answer"):
        SlurmService({}).submit(workflow)
    assert SlurmService({}).ping()[0] != 0
    with pytest.raises(Retriable):
        SlurmService({}).run_submission_checks()
    slurm.start()

    first = SlurmService({}).submit(workflow)
    second = SlurmService({}).submit(workflow)

    assert first.run_id == second.run_id
    assert end_of(str(first.run_id)).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "finalJob": 1}


DIES_HALF_WAY = """
import os, signal, sys
from types import SimpleNamespace
from launchers.slurm import service
service._have_dispatcher = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
service.SlurmService({}).submit(SimpleNamespace(submit_path=sys.argv[1]))
"""


def left_by_a_submitter_who_was_killed(slurm: Slurm, folder: Path) -> str:
    """Submit a workflow but for its dispatcher; give its id."""
    wms_id = str(prepare(folder, job(folder, "isr_0")).submit_path)
    done = subprocess.run([sys.executable, "-c", DIES_HALF_WAY, wms_id], check=False)
    assert done.returncode == -signal.SIGKILL
    left = slurm.client("squeue", "--noheader", "--format=%T %r").splitlines()
    assert set(left) == {"PENDING JobHeldUser"}
    assert SlurmService({}).get_status(wms_id)[0] is WmsStates.UNREADY
    return wms_id


def test_what_a_submitter_who_was_killed_has_left_can_do_nothing_and_is_cleared_away(slurm, tmp_path):
    folder = tmp_path / "w"
    wms_id = left_by_a_submitter_who_was_killed(slurm, folder)

    SlurmService({}).submit(prepare(folder, job(folder, "isr_0")))

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "finalJob": 1}


def test_what_a_submitter_who_was_killed_has_left_is_listed_and_cancelled(slurm, tmp_path):
    wms_id = left_by_a_submitter_who_was_killed(slurm, tmp_path / "w")
    assert SlurmService({}).list_submitted_jobs() == [wms_id]

    assert SlurmService({}).cancel(wms_id) == (True, "")

    assert report(wms_id).state is WmsStates.DELETED
    assert not slurm.client("squeue", "--noheader")
    assert SlurmService({}).list_submitted_jobs() == []


def test_a_submission_of_which_slurm_refuses_a_part_leaves_nothing_and_is_refused_again(slurm, tmp_path):
    folder = tmp_path / "w"
    evil = job(folder, "cal_0", profile={"slurm": {"constraint": "gold"}})
    workflow = prepare(folder, job(folder, "isr_0"), evil)

    for _ in range(2):
        with pytest.raises(Rejected, match="Invalid feature specification"):
            SlurmService({}).submit(workflow)
        assert not slurm.client("squeue", "--noheader")

    assert SlurmService({}).get_status(str(workflow.submit_path))[0] is WmsStates.UNREADY


def test_a_job_that_slurm_takes_no_more_fails_with_its_reason_and_the_workflow_ends(slurm, tmp_path):
    folder = tmp_path / "w"
    evil = job(folder, "isr_0", f"until [ -e {folder}/go ]; do sleep 0.2; done; exit 3", queue="small")
    wms_id = submit(folder, evil, slurmDispatcher={"requestMemory": 200, "queue": "main"})
    wait_until(lambda: running(wms_id, "isr_0"))
    slurm.client("scontrol", "update", "partitionname=small", "state=inactive")
    try:
        (folder / "go").touch()

        found = end_of(wms_id)
    finally:
        slurm.client("scontrol", "update", "partitionname=small", "state=up")

    assert states(found) == {"isr_0": "FAILED", "finalJob": "SUCCEEDED"}
    assert (found.exit_code_summary or {})["isr"] == [3]
    assert "1 refused by Slurm" in str(found.specific_info)
    assert "Required partition not available" in (folder / "submit" / "logs" / "isr" / "isr_0.1.log").read_text()


@pytest.mark.parametrize(
    ("asked", "kind", "complaint"),
    [
        ({"queue": "nowhere"}, Rejected, f"isr: there is no queue nowhere; there are {', '.join(sorted(QUEUES))}"),
        ({"request_memory": 9000}, Rejected, "isr asks for 9000 MB, and the largest node has 4000 MB"),
        ({"request_cpus": 99}, Rejected, "isr asks for 99 CPUs, and the largest node has 8"),
        ({"profile": {"slurm": {"constraint": "gold"}}}, Rejected, "Slurm refuses: .*Invalid feature specification"),
        (
            {"queue": "small", "request_walltime": "100"},
            Rejected,
            "isr asks for 100 minutes, and jobs may take 60 there",
        ),
    ],
)
def test_what_slurm_cannot_do_is_said_in_one_line_and_leaves_nothing(slurm, tmp_path, asked, kind, complaint):
    with pytest.raises(kind, match=complaint) as caught:
        submit(tmp_path / "w", job(tmp_path / "w", "isr_0", **asked))

    assert isinstance(caught.value, OperatorError)
    assert "\n" not in str(caught.value)
    assert not dispatcher_states(slurm)


@contextlib.contextmanager
def file_system(folder: Path, size: str) -> Iterator[None]:
    """Have a file system of its own in a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room in a folder; give the file that takes it."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(folder).free == 0
    return ballast


def test_a_full_submit_folder_is_said_so(slurm, tmp_path):
    folder = tmp_path / "full"
    with (
        file_system(folder, "32k"),
        pytest.raises(SiteFault, match="there is no space left for the submission"),
    ):
        prepare(folder, *(job(folder, f"isr_{n}") for n in range(20)))


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [(fill, "there is no space left for the submission"), (make_read_only, "cannot be written: Read-only file system")],
)
def test_a_submit_folder_that_got_full_or_read_only_is_said_so_and_nothing_is_submitted(
    slurm, tmp_path, spoil, complaint
):
    folder = tmp_path / "spoilt"
    with file_system(folder, "1m"):
        workflow = prepare(folder, job(folder, "isr_0"))
        spoil(folder)

        with pytest.raises(SiteFault, match=complaint):
            SlurmService({}).submit(workflow)

        assert not slurm.client("squeue", "--noheader")


def test_a_submit_folder_that_got_full_halts_no_other_workflow_and_is_gone_on_with_when_there_is_room(slurm, tmp_path):
    folder, other = tmp_path / "w", tmp_path / "other"
    # So many that the record of their ends needs room that isn't there.
    jobs = [job(folder, f"isr_{n}", f"until [ -e {folder}/go ]; do sleep 0.2; done") for n in range(60)]
    jobs += [job(folder, f"cal_{n}") for n in range(60)]
    with file_system(folder / "submit", "4m"):
        wms_id = submit(folder, *jobs, edges=[(f"isr_{n}", f"cal_{n}") for n in range(60)])
        wait_until(lambda: times(folder, "began").total() and "RUNNING" in dispatcher_states(slurm))
        ballast = fill(folder / "submit")
        (folder / "go").touch()
        wait_until(lambda: times(folder, "ended").total())

        assert end_of(submit(other, job(other, "isr_0"))).state is WmsStates.SUCCEEDED
        assert "its submit folder is full" in str(report(wms_id).specific_info)
        ballast.unlink()

        assert end_of(wms_id).state is WmsStates.SUCCEEDED
        assert set(times(folder, "ended")) == {each.name for each in jobs} | {"finalJob"}
        assert "its submit folder is full" not in str(report(wms_id).specific_info)


def test_a_log_that_cannot_be_written_is_said_so(slurm, tmp_path):
    folder = tmp_path / "w"
    workflow = prepare(folder, job(folder, "isr_0", number_of_retries=0))
    logs = folder / "submit" / "logs" / "isr"
    logs.rmdir()
    logs.touch()

    found = end_of(str(SlurmService({}).submit(workflow).run_id))

    assert (found.exit_code_summary or {})["isr"] == [91]
    assert "its log cannot be written on the node" in (folder / "submit" / "events.log").read_text()
