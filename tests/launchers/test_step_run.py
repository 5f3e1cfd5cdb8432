"""What a step's run does about a batch system that is away, or about what others have done to its submission."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lsst.ctrl.bps import WmsStates

sys.path.insert(0, str(Path(__file__).parent))

from scripted_service import ScriptedService

from launchers import reattach, step_run
from launchers.bps import Handle
from launchers.submission import StepRequest, SubmissionKey

KEY = SubmissionKey("dr1", "step1a", ("20261101",))


@pytest.fixture
def service() -> type[ScriptedService]:
    ScriptedService.forget()
    return ScriptedService


@pytest.fixture
def request_with_submission(tmp_path: Path) -> StepRequest:
    handle = Handle(f"{ScriptedService.__module__}.ScriptedService", "1", KEY.name, str(tmp_path / "submit"))
    (tmp_path / "handle.json").write_text(str(handle))
    return StepRequest(KEY, "repo", "DRP.yaml#step1a", ("dr1",), "dr1", "", tmp_path)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the run's log says; the outcome and the event log are others' matter."""
    monkeypatch.setattr(step_run, "read_outcome", lambda request, handle: "outcome")
    monkeypatch.setattr(reattach, "record_reattachment", lambda *_: None)
    return []


def context_that_logs(said: list[str]) -> SimpleNamespace:
    return SimpleNamespace(run_id="run", instance=None, log=SimpleNamespace(info=said.append, warning=said.append))


def test_a_worker_resumed_while_the_batch_system_is_away_waits_for_it(service, request_with_submission, said):
    service.script += [None, None, WmsStates.RUNNING, WmsStates.SUCCEEDED]

    outcome = step_run.launch_and_watch(context_that_logs(said), request_with_submission, poll_s=0.0)

    assert outcome == "outcome"
    assert said[0].endswith("was submitted before: watching it again (1)")
