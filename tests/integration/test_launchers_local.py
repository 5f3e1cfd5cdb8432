"""The local service's driver, killed again and again, with jobs that write down that they ran."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lsst.ctrl.bps import GenericWorkflow, GenericWorkflowExec, GenericWorkflowJob, WmsStates

from launchers.local.service import LocalService
from launchers.local.store import JobStore
from launchers.processes import ProcessIdentity
from tests.promises import PROMISES

pytestmark = [pytest.mark.integration, PROMISES]

JOBS = 12
KILLS = 12


class Configuration:
    """As much of a BPS configuration as the workflow asks for."""

    def search(self, key: str, opt: dict[str, Any]) -> tuple[bool, Any]:
        return (True, 3) if key == "localCores" else (False, opt["default"])


def job(folder: Path, name: str, sleep_s: float) -> GenericWorkflowJob:
    command = f"-c 'echo {name} >>{folder}/began; sleep {sleep_s}; echo {name} >>{folder}/ended'"
    return GenericWorkflowJob(name, "job", executable=GenericWorkflowExec("bash", "bash", False), arguments=command)


@pytest.mark.parametrize("seed", range(3))
def test_every_job_runs_exactly_once_however_often_the_driver_is_killed(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    dice = random.Random(seed)
    workflow = GenericWorkflow("w")
    for number in range(JOBS):
        workflow.add_job(job(tmp_path, f"j{number}", dice.choice([0.0, 0.05, 0.2])))
        if number >= 4:
            workflow.add_job_relationships(f"j{number - 4}", f"j{number}")
    workflow.add_final(job(tmp_path, "final", 0.0))
    service, store = LocalService({}), JobStore(tmp_path / "submit")
    service.submit(service.prepare(Configuration(), workflow, str(store.submit_path)))

    kills = 0
    deadline = time.monotonic() + 120.0
    while "ended_at" not in store.read_facts():
        if time.monotonic() > deadline:
            raise TimeoutError("the workflow hasn't ended")
        time.sleep(dice.choice([0.02, 0.1, 0.2, 0.3]))
        driver = store.read_facts().get("driver")
        if driver and kills < KILLS:
            kills += ProcessIdentity.parse(driver).send(signal.SIGKILL)
        service.resume(str(store.submit_path))

    once = Counter([f"j{number}" for number in range(JOBS)] + ["final"])
    assert Counter((tmp_path / "began").read_text().split()) == once
    assert Counter((tmp_path / "ended").read_text().split()) == once
    assert service.get_status(str(store.submit_path))[0] is WmsStates.SUCCEEDED
    assert kills > 0


def test_a_job_that_aborts_the_workflow_ends_what_runs_and_lets_the_final_job_come(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    workflow = GenericWorkflow("w")
    workflow.add_job(job(tmp_path, "long", 600.0))
    aborting = GenericWorkflowExec("bash", "bash", False)
    command = f"-c 'until test -s {tmp_path}/began; do sleep 0.05; done; exit 9'"
    workflow.add_job(
        GenericWorkflowJob("a", "job", executable=aborting, arguments=command, abort_on_value=9, number_of_retries=2)
    )
    workflow.add_final(job(tmp_path, "final", 0.0))
    service, store = LocalService({}), JobStore(tmp_path / "submit")

    service.submit(service.prepare(Configuration(), workflow, str(store.submit_path)))

    deadline = time.monotonic() + 60.0
    while "ended_at" not in store.read_facts():
        if time.monotonic() > deadline:
            raise TimeoutError("the workflow hasn't ended")
        time.sleep(0.05)
    assert (tmp_path / "began").read_text().split() == ["long", "final"]
    assert (tmp_path / "ended").read_text().split() == ["final"]
    assert service.get_status(str(store.submit_path))[0] is WmsStates.FAILED
