import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lsst.ctrl.bps import WmsStates

sys.path.insert(0, str(Path(__file__).parent))

from scripted_service import ScriptedService

from launchers import watch
from launchers.bps import Handle
from resources.errors import Retriable, SiteFault


@pytest.fixture
def service():
    ScriptedService.forget()
    return ScriptedService


@pytest.fixture
def handle():
    return Handle(f"{ScriptedService.__module__}.ScriptedService", "1", "n", "/submit")


def test_watching_ends_with_the_workflow(service, handle):
    service.script += [WmsStates.PENDING, WmsStates.RUNNING, WmsStates.FAILED]

    last = watch.watch(handle, poll_s=0.0, quanta_total=10)

    assert last.state == "FAILED"
    assert last.is_over
    assert (last.quanta_done, last.quanta_failed, last.quanta_total) == (7, 1, 10)


def test_progress_is_told_when_something_changed_and_only_then(service, handle):
    service.script += [WmsStates.RUNNING, WmsStates.RUNNING, WmsStates.RUNNING, WmsStates.SUCCEEDED]
    told = []

    watch.watch(handle, poll_s=0.0, on_progress=told.append, quanta_total=10)

    assert [progress.state for progress in told] == ["RUNNING", "SUCCEEDED"]
    assert str(told[0]) == "running after 0 s; jobs: 2 running, 1 succeeded; quanta: 7 of 10 done, 1 failed"


@pytest.mark.parametrize(
    ("done", "failed", "after_s", "said"),
    [
        (110, 0, 10.0, ", about 11 s left"),
        (20, 0, 100.0, ", about 33 min left"),
        (20, 200, 60.0, ""),
        (10, 0, 60.0, ""),
        (11, 0, 3600.0, ", about 209.0 h left"),
    ],
)
def test_time_left_follows_the_pace_since_watching_began(done, failed, after_s, said):
    first = watch.Progress("RUNNING", {}, 10, 0, 220, 0.0)
    now = watch.Progress("RUNNING", {}, done, failed, 220, after_s)

    told = str(replace(now, left_s=watch.time_left(first, now)))

    assert told.partition(" done")[2].removeprefix(f", {failed} failed") == said


def test_a_workflow_whose_runner_died_is_resumed(service, handle):
    service.script += [WmsStates.RUNNING, WmsStates.HELD, WmsStates.RUNNING, WmsStates.SUCCEEDED]

    watch.watch(handle, poll_s=0.0)

    assert service.resumed == ["1"]


def test_a_runner_that_dies_again_and_again_is_a_fault(service, handle):
    service.script += [WmsStates.HELD]

    with pytest.raises(SiteFault, match="died"):
        watch.watch(handle, poll_s=0.0)


def test_a_runner_that_dies_often_but_gets_on_in_between_is_resumed_each_time(service, handle):
    service.script += [*[WmsStates.HELD] * 10, WmsStates.SUCCEEDED]
    service.quanta += range(11)

    assert watch.watch(handle, poll_s=0.0).state == "SUCCEEDED"
    assert len(service.resumed) == 10


@pytest.mark.parametrize("refusal", [Retriable("slurmctld is away", "slurm", "wait"), OSError("no file system")])
def test_a_batch_system_that_cannot_resume_for_a_moment_is_asked_again(service, handle, refusal):
    service.script += [WmsStates.HELD, WmsStates.HELD, WmsStates.SUCCEEDED]
    service.refusals += [refusal]

    assert watch.watch(handle, poll_s=0.0).state == "SUCCEEDED"
    assert service.resumed == ["1"]


def test_what_keeps_the_batch_system_from_going_on_is_told_when_it_comes_and_when_it_goes(service, handle):
    service.script += [*[WmsStates.RUNNING] * 4, WmsStates.SUCCEEDED]
    service.trouble += ["", "Slurm refuses: no such account", "Slurm refuses: no such account", ""]
    told = []

    watch.watch(handle, poll_s=0.0, on_progress=told.append)

    assert [progress.trouble for progress in told] == ["", "Slurm refuses: no such account", "", ""]
    assert str(told[1]).startswith("running after 0 s, but: Slurm refuses: no such account; jobs: 2 running")


def test_a_short_silence_is_borne(service, handle):
    service.script += [None, None, WmsStates.SUCCEEDED]

    assert watch.watch(handle, poll_s=0.0).state == "SUCCEEDED"


def test_a_long_silence_is_a_fault(service, handle):
    service.script += [None]

    with pytest.raises(SiteFault, match="the scheduler is down"):
        watch.watch(handle, poll_s=0.01, silence_s=0.05)


def test_cancelling_asks_the_service_for_what_there_is(service, handle):
    assert watch.cancel(handle) == (True, "gone")
    assert service.cancelled == ["1"]


def test_what_the_service_did_not_cancel_is_not_called_cancelled(service, handle):
    service.refusal = "the workflow is over"
    assert watch.cancel(handle) == (False, "the workflow is over")


def test_a_handle_survives_being_written_down(handle):
    assert Handle.parse(str(handle)) == handle
