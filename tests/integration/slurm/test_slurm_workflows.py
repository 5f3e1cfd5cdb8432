"""The Slurm service on a real Slurm: what ends how, what is tried again, and what survives which death."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lsst.ctrl.bps import WmsStates

from launchers.slurm.commands import Slurm as Commands
from launchers.slurm.service import SlurmService
from launchers.slurm.store import JobStore
from resources.errors import Retriable
from services.slurm import LICENCES
from tests.integration.slurm.workflows import (
    cancel_dispatchers,
    dispatcher_states,
    end_of,
    job,
    node_of,
    recorded,
    report,
    running,
    states,
    submit,
    times,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_failed_job_blocks_its_descendants_alone_and_slurm_says_the_same(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, f"isr_{n}", "exit 1" if n == 1 else "true") for n in range(3)]
    jobs += [job(folder, f"cal_{n}") for n in range(3)] + [job(folder, "sum_0")]
    edges = [(f"isr_{n}", f"cal_{n}") for n in range(3)] + [("cal_0", "sum_0"), ("cal_2", "sum_0")]

    found = end_of(submit(folder, *jobs, edges=edges))

    assert found.state is WmsStates.FAILED
    assert Counter(states(found).values()) == {"SUCCEEDED": 6, "FAILED": 1, "PRUNED": 1}
    assert (states(found)["isr_1"], states(found)["cal_1"]) == ("FAILED", "PRUNED")
    assert (found.exit_code_summary or {})["isr"] == [1]
    assert times(folder, "began")["isr_1"] == 1
    by_element = {each.wms_id: each.state.name for each in found.jobs or ()}
    expected = {"SUCCEEDED": "COMPLETED", "FAILED": "FAILED", "PRUNED": "CANCELLED"}

    def accounted() -> dict[str, str]:
        lines = slurm.client("sacct", "-nPX", f"--jobs={','.join(by_element)}", "--format=JobID,State").splitlines()
        known = {name: state.split()[0] for name, state in (line.split("|") for line in lines)}
        # Some of what is cancelled before it could begin, accounting never hears of.
        return {element: known.get(element, "CANCELLED") for element in by_element}

    wait_until(lambda: accounted() == {element: expected[state] for element, state in by_element.items()})


def test_a_job_out_of_memory_gets_more_until_it_is_enough(slurm, tmp_path):
    folder = tmp_path / "w"
    hungry = job(folder, "oom_0", "head -c 150M /dev/zero | tail >/dev/null; exit $?", memory_multiplier=2.0)

    found = end_of(submit(folder, hungry))

    assert found.state is WmsStates.SUCCEEDED
    (done, _) = JobStore(Path(str(found.wms_id))).read()[0].jobs
    assert (done.attempt, done.out_of_memory) == (3, 2)
    assert done.usage.memory_mb > 150.0
    log = (folder / "submit" / "logs" / "oom" / "oom_0.1.log").read_text()
    assert "Slurm: this attempt is out of memory" in log


def test_a_job_that_needs_more_than_there_may_be_fails_and_says_of_what(slurm, tmp_path):
    folder = tmp_path / "w"
    command = "head -c 200M /dev/zero | tail >/dev/null; exit $?"
    hungry = job(folder, "oom_0", command, memory_multiplier=2.0, request_memory_max=100, number_of_retries=5)

    found = end_of(submit(folder, hungry))

    assert states(found) == {"oom_0": "FAILED", "finalJob": "SUCCEEDED"}
    assert times(folder, "began")["oom_0"] == 2
    assert "1 out of memory" in str(found.specific_info)


def test_a_job_that_takes_too_long_is_ended_and_tried_again(slurm, tmp_path):
    folder = tmp_path / "w"
    command = f"[ -e {folder}/second ] || (touch {folder}/second; sleep 600)"

    wms_id = submit(folder, job(folder, "isr_0", command, request_walltime="1"))
    wait_until((folder / "second").exists)
    (element,) = [each.wms_id for each in report(wms_id).jobs or () if each.name == "isr_0"]
    slurm.client("scontrol", "update", f"jobid={element}", "timelimit=00:00:01")
    found = end_of(wms_id)

    assert found.state is WmsStates.SUCCEEDED
    assert times(folder, "began")["isr_0"] == 2


def test_a_job_that_aborts_the_workflow_ends_every_other_but_the_final_one(slurm, tmp_path):
    folder = tmp_path / "w"
    evil = job(folder, "isr_0", f"until [ -s {folder}/began-both ]; do sleep 0.2; done; exit 9", abort_on_value=9)
    slow = job(folder, "isr_1", "sleep 3600")
    wms_id = submit(folder, evil, slow, job(folder, "cal_0"), edges=[("isr_0", "cal_0")])
    wait_until(lambda: running(wms_id, "isr_1"))
    (folder / "began-both").write_text("go")

    found = end_of(wms_id)

    assert found.state is WmsStates.FAILED
    assert states(found) == {"isr_0": "FAILED", "isr_1": "DELETED", "cal_0": "DELETED", "finalJob": "SUCCEEDED"}
    assert times(folder, "began") == {"isr_0": 1, "isr_1": 1, "finalJob": 1}
    wait_until(lambda: not any(list(node.processes()) for node in slurm.nodes))


def test_cancelling_ends_every_process_of_the_jobs(slurm, tmp_path):
    folder = tmp_path / "w"
    wms_id = submit(folder, *(job(folder, f"isr_{n}", "sleep 600") for n in range(3)), job(folder, "cal_0"))
    wait_until(lambda: sum(state == "RUNNING" for state in states(report(wms_id)).values()) == 3)

    assert SlurmService({}).cancel(wms_id) == (True, "")

    found = report(wms_id)
    assert found.state is WmsStates.DELETED
    wait_until(lambda: not any(list(node.processes()) for node in slurm.nodes))
    assert SlurmService({}).cancel(wms_id) == (False, "the workflow is over")
    assert SlurmService({}).list_submitted_jobs() == []


def test_a_cancelled_workflow_can_be_restarted_and_does_what_is_left(slurm, tmp_path):
    folder = tmp_path / "w"
    slow = f"[ -e {folder}/go ] || sleep 600"
    wms_id = submit(folder, job(folder, "isr_0"), job(folder, "isr_1", slow))
    wait_until(lambda: states(report(wms_id))["isr_0"] == "SUCCEEDED" and running(wms_id, "isr_1"))
    SlurmService({}).cancel(wms_id)
    (folder / "go").touch()

    assert SlurmService({}).restart(wms_id) == (wms_id, "w", "")

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "ended") == {"isr_0": 1, "isr_1": 1, "finalJob": 1}


def test_a_workflow_that_runs_is_not_restarted(slurm, tmp_path):
    wms_id = submit(tmp_path / "w", job(tmp_path / "w", "isr_0", "sleep 600"))

    assert SlurmService({}).restart(wms_id) == (None, None, "the workflow still runs; cancel it first")

    SlurmService({}).cancel(wms_id)


def test_all_workflows_share_one_running_dispatcher(slurm, tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    ids = [submit(folder, job(folder, "isr_0", "sleep 8"), job(folder, "cal_0")) for folder in folders]
    wait_until(lambda: "RUNNING" in dispatcher_states(slurm))

    wait_until(lambda: all(times(folder, "began")["isr_0"] for folder in folders))
    assert Counter(dispatcher_states(slurm)) == {"RUNNING": 1, "PENDING": 2}

    assert [end_of(wms_id).state for wms_id in ids] == [WmsStates.SUCCEEDED] * 3
    assert sorted(SlurmService({}).list_submitted_jobs()) == []
    wait_until(lambda: not dispatcher_states(slurm))


def test_a_dispatcher_that_cannot_begin_keeps_no_other_from_it_and_its_workflow_is_gone_on_with(slurm, tmp_path):
    stuck, other = tmp_path / "stuck", tmp_path / "other"
    node = slurm.nodes[-1].node
    slurm.client("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        first = submit(stuck, job(stuck, "isr_0"), slurmDispatcher={"requestMemory": 200, "queue": "small"})
        wait_until(lambda: f"the dispatcher of {first} waits: " in str(report(first).specific_info))
        second = submit(other, job(other, "isr_0"))

        assert end_of(second).state is WmsStates.SUCCEEDED
        assert end_of(first).state is WmsStates.SUCCEEDED
    finally:
        slurm.client("scontrol", "update", f"nodename={node}", "state=resume")
    wait_until(lambda: not dispatcher_states(slurm))


def test_without_its_dispatcher_a_workflow_is_held_and_goes_on_when_it_is_resumed(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, "isr_0", "sleep 5"), job(folder, "cal_0")]
    wms_id = submit(folder, *jobs, edges=[("isr_0", "cal_0")])
    wait_until(lambda: running(wms_id, "isr_0") and "RUNNING" in dispatcher_states(slurm))

    cancel_dispatchers(slurm)
    wait_until(lambda: SlurmService({}).get_status(wms_id)[0] is WmsStates.HELD)
    assert "bps restart" in SlurmService({}).get_status(wms_id)[1]
    assert SlurmService({}).resume(wms_id)
    assert not SlurmService({}).resume(wms_id)

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "cal_0": 1, "finalJob": 1}


def test_a_killed_controller_loses_nothing(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, f"isr_{n}", "sleep 12") for n in range(3)] + [job(folder, f"cal_{n}") for n in range(3)]
    wms_id = submit(folder, *jobs, edges=[(f"isr_{n}", f"cal_{n}") for n in range(3)])
    saved, began = slurm.folder / "state" / "job_state", time.time()
    wait_until(lambda: running(wms_id, "isr_2"))
    # What it has accepted it writes down some seconds later.
    wait_until(lambda: saved.stat().st_mtime > began + 1.0)

    assert slurm.pid is not None
    os.kill(slurm.pid, signal.SIGKILL)
    wait_until(lambda: slurm.pid is None)
    with pytest.raises(Retriable, match="Slurm doesn't answer"):
        report(wms_id)
    time.sleep(5.0)
    slurm.start()

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "ended") == {each.name: 1 for each in jobs} | {"finalJob": 1}


def test_jobs_that_end_while_the_controller_is_away_are_followed_when_it_is_back(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, "isr_0", f"until [ -e {folder}/go ]; do sleep 0.2; done"), job(folder, "cal_0")]
    wms_id = submit(folder, *jobs, edges=[("isr_0", "cal_0")])
    wait_until(lambda: recorded(wms_id)["isr_0"] == "RUNNING")
    slurm.controller.stop()
    (folder / "go").touch()
    events = folder / "submit" / "events.log"
    wait_until(lambda: "scontrol: Slurm doesn't answer" in (events.read_text() if events.exists() else ""))

    slurm.start()

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "cal_0": 1, "finalJob": 1}
    assert "Slurm had forgotten" not in events.read_text()


def test_a_dispatcher_whose_time_is_over_while_the_controller_is_away_goes_on_when_it_is_back(slurm, tmp_path):
    folder = tmp_path / "w"
    jobs = [job(folder, "isr_0", f"until [ -e {folder}/go ]; do sleep 0.2; done"), job(folder, "cal_0")]
    wms_id = submit(folder, *jobs, edges=[("isr_0", "cal_0")])
    wait_until(lambda: recorded(wms_id)["isr_0"] == "RUNNING")
    command = ("launchers.slurm.dispatcher", wms_id)
    pids = [pid for node in slurm.nodes for pid in node.processes()]
    (conducting,) = [pid for pid in pids if all(word in Path(f"/proc/{pid}/cmdline").read_text() for word in command)]
    slurm.controller.stop()

    os.kill(conducting, signal.SIGUSR1)
    log = folder / "submit" / "dispatcher.log"
    wait_until(lambda: "it cannot go back into the queue: scontrol: Slurm doesn't answer" in log.read_text())
    slurm.start()
    wait_until(lambda: "RUNNING" not in dispatcher_states(slurm))
    (folder / "go").touch()

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 1, "cal_0": 1, "finalJob": 1}


def test_a_node_that_dies_takes_no_job_with_it(slurm, tmp_path):
    folder = tmp_path / "w"
    first = f"[ -e {folder}/second ] || (touch {folder}/second; sleep 600)"
    wms_id = submit(folder, job(folder, "isr_0", first, preemptible=False), job(folder, "cal_0", "sleep 5"))
    wait_until((folder / "second").exists)
    name = node_of(slurm, wms_id, "isr_0")
    (node,) = [each for each in slurm.nodes if each.node == name]

    assert node.pid is not None
    os.kill(node.pid, signal.SIGKILL)
    for pid in list(node.processes()):
        os.kill(pid, signal.SIGKILL)
    found = end_of(wms_id)
    slurm.start()

    assert found.state is WmsStates.SUCCEEDED
    assert times(folder, "ended")["isr_0"] == 1
    assert times(folder, "began")["isr_0"] == 2


@pytest.mark.parametrize(("preemptible", "attempts"), [(True, 1), (False, 2)])
def test_a_job_that_had_to_make_room_is_done_again(slurm, tmp_path, preemptible, attempts):
    folder = tmp_path / "w"
    first = f"[ -e {folder}/second ] || (touch {folder}/second; sleep 600)"
    whole_node = job(folder, "isr_0", first, request_cpus=8, preemptible=preemptible, number_of_retries=1)
    wms_id = submit(folder, whole_node, job(folder, "cal_0"), edges=[("isr_0", "cal_0")])
    wait_until((folder / "second").exists)
    node = node_of(slurm, wms_id, "isr_0")

    options = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null"]
    urgent = slurm.client("sbatch", "--parsable", *options, f"--wrap=until [ -e {folder}/go ]; do sleep 0.2; done")
    wait_until(lambda: slurm.client("squeue", "--noheader", f"--jobs={urgent.strip()}", "--format=%T") == "RUNNING\n")
    wait_until(lambda: states(report(wms_id))["isr_0"] == "PENDING")
    assert states(report(wms_id))["cal_0"] == "UNREADY"
    (folder / "go").touch()

    assert end_of(wms_id).state is WmsStates.SUCCEEDED
    assert times(folder, "began") == {"isr_0": 2, "cal_0": 1, "finalJob": 1}
    assert times(folder, "ended") == {"isr_0": 1, "cal_0": 1, "finalJob": 1}
    # What Slurm itself puts back is the same attempt; what it may not put back is preempted, and tried again by us.
    (done,) = [each for each in JobStore(Path(wms_id)).read()[0].jobs if each.name == "isr_0"]
    assert done.attempt == attempts


def test_a_concurrency_limit_holds_for_all_workflows_together(slurm, tmp_path):
    folders, most = [tmp_path / "one", tmp_path / "other"], LICENCES["db_limit"]
    command = f"until [ -e {tmp_path}/go ]; do sleep 0.2; done"
    ids = [
        submit(folder, *(job(folder, f"isr_{n}", command, concurrency_limit="db_limit") for n in range(most)))
        for folder in folders
    ]

    def began() -> int:
        return sum(times(folder, "began").total() for folder in folders)

    wait_until(lambda: began() == most)
    wait_until(lambda: slurm.client("squeue", "--noheader", "--array", "--format=%r").split().count("Licenses") == most)
    assert began() == most
    (tmp_path / "go").touch()

    assert [end_of(wms_id).state for wms_id in ids] == [WmsStates.SUCCEEDED] * 2


def test_a_concurrency_limit_that_the_cluster_does_not_know_limits_nothing_and_that_is_said(slurm, tmp_path):
    folder = tmp_path / "w"

    found = end_of(submit(folder, job(folder, "isr_0", concurrency_limit="gold,db_limit")))

    assert found.state is WmsStates.SUCCEEDED
    told = (folder / "submit" / "events.log").read_text()
    assert "isr: the cluster has no licence gold, so concurrencyLimit limits nothing" in told
    assert "db_limit" not in told


def test_a_workflow_is_found_by_the_number_of_its_dispatcher_too(slurm, tmp_path):
    wms_id = submit(tmp_path / "w", job(tmp_path / "w", "isr_0"))
    number = JobStore(Path(wms_id)).read_facts()["dispatcher_job"]

    assert SlurmService({}).report(wms_workflow_id=str(number))[0][0].wms_id == wms_id
    assert SlurmService({}).report(wms_workflow_id="987654") == ([], "no workflow was submitted from 987654")
    end_of(wms_id)
    assert [each.wms_id for each in SlurmService({}).report(hist=1)[0]] == [wms_id]
    assert SlurmService({}).report()[0] == []


def test_few_calls_submit_many_jobs(slurm, tmp_path, monkeypatch):
    calls: list[str] = []
    run = Commands._run

    def counted(self: Commands, program: str, *arguments: str, **options: Any) -> str:
        calls.append(program)
        return run(self, program, *arguments, **options)

    monkeypatch.setattr(Commands, "_run", counted)
    folder = tmp_path / "w"
    jobs = [job(folder, f"{label}_{n}", "sleep 600") for label in ("isr", "cal") for n in range(300)]
    wms_id = submit(folder, *jobs, edges=[(f"isr_{n}", f"cal_{n}") for n in range(300)])

    assert Counter(calls)["sbatch"] == 4
    report(wms_id)
    assert Counter(calls)["squeue"] == 2
    SlurmService({}).cancel(wms_id)
