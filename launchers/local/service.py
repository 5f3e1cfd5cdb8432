"""The service that ``bps`` talks to on one machine.

Belongs here: `LocalService`, the whole of ctrl_bps's interface (prepare, submit, restart, report, get_status, cancel,
list_submitted_jobs, run_submission_checks, ping). A workflow's id is the path of its submit folder.
Doesn't: running jobs; ``submit`` starts a detached `launchers.local.driver`, and everything else reads what that
writes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
import signal
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lsst.ctrl.bps import (
    BaseWmsService,
    BpsConfig,
    GenericWorkflow,
    WmsJobReport,
    WmsRunReport,
    WmsSpecificInfo,
    WmsStates,
)

from launchers.job_ends import OUT_OF_TIME, JobEnd, by_quantum, log_url
from launchers.local.driver import end_groups, job_log, job_script
from launchers.local.jobs import Job, JobState, Plan
from launchers.local.store import JobStore
from launchers.local.workflow import LocalWorkflow
from launchers.oneline import in_one_line
from launchers.processes import ProcessIdentity, start_detached

_STARTING_S = 15.0
_PROGRESS = re.compile(rb"Executed (\d+) quanta successfully, (\d+) failed and (\d+) remain")
_LOG_TAIL_BYTES = 16_384


class LocalService(BaseWmsService):
    """Runs BPS workflows on this machine, ``localCores`` at a time, in a process that outlives its submitter."""

    @property
    def defaults(self) -> dict[str, Any]:
        """BPS settings that suit one machine."""
        return {
            "computeSite": "local",
            "memoryMultiplier": 1,
            "numberOfRetries": 1,
            "clusterAlgorithm": "launchers.clustering.balanced_clustering",
            "finalJob": {"requestCpus": 1, "requestMemory": 2048},
        }

    @in_one_line
    def prepare(
        self, config: BpsConfig, generic_workflow: GenericWorkflow, out_prefix: str | None = None
    ) -> LocalWorkflow:
        """Write the workflow into its submit folder."""
        folder = str(Path(out_prefix or ".").absolute())
        service_class = f"{type(self).__module__}.{type(self).__name__}"
        workflow = LocalWorkflow.from_generic_workflow(config, generic_workflow, folder, service_class)
        workflow.write(folder)
        return workflow

    @in_one_line
    def submit(self, workflow: LocalWorkflow, **kwargs: Any) -> LocalWorkflow:
        """Start the driver and come back at once."""
        submit_path = Path(workflow.submit_path)
        JobStore(submit_path).write_facts(submitted_at=time.time())
        _note_submission(submit_path)
        _start_driver(submit_path)
        workflow.run_id = str(submit_path)
        return workflow

    @in_one_line
    def resume(self, wms_workflow_id: str) -> bool:
        """Start the driver again where it died; False when it lives or has nothing left to do."""
        store = JobStore(Path(wms_workflow_id))
        if not store.exists or _driver_is_alive(store) or "ended_at" in store.read_facts():
            return False
        _start_driver(store.submit_path)
        return True

    @in_one_line
    def restart(self, wms_workflow_id: str) -> tuple[str | None, str | None, str]:
        """Do again what did not succeed, and the final job; jobs that still run are taken over."""
        store = JobStore(Path(wms_workflow_id).absolute())
        if not store.exists:
            return None, None, f"no workflow was submitted from {wms_workflow_id}"
        if _driver_is_alive(store):
            return None, None, "the workflow still runs; cancel it first"
        plan = Plan(store.read_jobs())
        facts = {"cancel_requested": False, "submitted_at": time.time()}
        running = store.read_running()
        changed = plan.restart()
        if plan.is_over and "ended_at" in store.read_facts():
            return None, None, "the workflow has succeeded already"
        end_groups([process for job in changed if job.name in running and (process := running[job.name].process)])
        store.write_jobs(changed, facts)
        store.forget_fact("ended_at")
        _start_driver(store.submit_path)
        return str(store.submit_path), store.read_facts()["name"], ""

    @in_one_line
    def list_submitted_jobs(
        self,
        wms_id: str | None = None,
        user: str | None = None,
        require_bps: bool = True,
        pass_thru: str | None = None,
        is_global: bool = False,
    ) -> list[str]:
        """List the submit folders of the workflows that are not over, or the one that was named."""
        if wms_id is not None:
            return [str(store.submit_path) for store in _stores(wms_id)]
        return [str(store.submit_path) for store in _stores(None) if not _is_over(store)]

    @in_one_line
    def report(
        self,
        wms_workflow_id: str | None = None,
        user: str | None = None,
        hist: float = 0,
        pass_thru: str | None = None,
        is_global: bool = False,
        return_exit_codes: bool = False,
    ) -> tuple[list[WmsRunReport], str]:
        """Report on one workflow, or on all that are not over (and those submitted in the last ``hist`` days)."""
        reports = []
        for store in _stores(wms_workflow_id):
            facts = store.read_facts()
            recent = time.time() - facts.get("submitted_at", 0.0) < (hist or 0) * 86400.0
            wanted = wms_workflow_id is not None or recent or "ended_at" not in facts
            if wanted and user in {None, facts["operator"]}:
                reports.append(_report(store, facts))
        message = "" if reports or wms_workflow_id is None else f"no workflow was submitted from {wms_workflow_id}"
        return reports, message

    @in_one_line
    def get_status(self, wms_workflow_id: str, hist: float = 1, is_global: bool = False) -> tuple[WmsStates, str]:
        """Tell a workflow's state."""
        for store in _stores(wms_workflow_id):
            facts = store.read_facts()
            state = _run_state(store, facts, store.read_jobs())
            return state, _held_message(store) if state is WmsStates.HELD else ""
        return WmsStates.UNKNOWN, f"no workflow was submitted from {wms_workflow_id}"

    @in_one_line
    def cancel(self, wms_id: str, pass_thru: str | None = None) -> tuple[bool, str]:
        """End a workflow and every process of its jobs, whether its driver lives or not."""
        store = JobStore(Path(wms_id))
        if not store.exists:
            return False, f"no workflow was submitted from {wms_id}"
        if _is_over(store):
            return False, "the workflow is over"
        store.write_facts(cancel_requested=True)
        driver = _driver(store)
        if driver is not None and driver.send(signal.SIGTERM):
            deadline = time.monotonic() + 30.0
            while driver.is_alive and time.monotonic() < deadline:
                time.sleep(0.05)
        if not _is_over(store):
            end_groups([job.process for job in store.read_running().values() if job.process])
            store.write_jobs(Plan(store.read_jobs()).cancel(), {"ended_at": time.time()})
        return True, ""

    @in_one_line
    def job_ends(self, wms_workflow_id: str, quanta: Collection[uuid.UUID]) -> dict[uuid.UUID, JobEnd]:
        """Tell how the jobs ended that some quanta were in, as far as they did not succeed."""
        store = JobStore(Path(wms_workflow_id).absolute())
        took_s = store.read_durations()
        bad = (job for job in store.read_jobs() if job.state in {JobState.FAILED, JobState.DELETED})
        ends = (
            (job_script(store.submit_path, job.name), _job_end(store, job, took_s.get(job.name, 0.0)))
            for job in bad
            if not job.is_final
        )
        return by_quantum(quanta, ends)

    def run_submission_checks(self) -> None:
        """Nothing outside this machine is needed to submit."""

    def ping(self, pass_thru: str | None = None) -> tuple[int, str]:
        """Answer for this machine."""
        return 0, ""


def _registry() -> Path:
    """Where this user's submissions are noted, one folder a line."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "lsst-local-wms" / "submissions"


def _note_submission(submit_path: Path) -> None:
    registry = _registry()
    # Only ``bps report`` without an id needs it: an unwritable home is no reason not to run.
    with contextlib.suppress(OSError):
        registry.parent.mkdir(parents=True, exist_ok=True)
        with registry.open("a", encoding="utf-8") as lines:
            lines.write(f"{submit_path}\n")


def _stores(wms_id: str | None) -> Iterator[JobStore]:
    if wms_id is not None:
        paths = [Path(wms_id).absolute()]
    else:
        try:
            paths = [Path(line) for line in dict.fromkeys(_registry().read_text(encoding="utf-8").splitlines())]
        except OSError:
            paths = []
    return (store for store in map(JobStore, paths) if store.exists)


def _start_driver(submit_path: Path) -> None:
    start_detached([sys.executable, "-m", "launchers.local.driver", str(submit_path)], submit_path / "driver.log")


def _driver(store: JobStore) -> ProcessIdentity | None:
    driver = store.read_facts().get("driver")
    return ProcessIdentity.parse(driver) if driver else None


def _driver_is_alive(store: JobStore) -> bool:
    driver = _driver(store)
    return driver is not None and driver.is_alive


def _is_over(store: JobStore) -> bool:
    return "ended_at" in store.read_facts()


def _held_message(store: JobStore) -> str:
    return f"the process that ran this workflow is gone; bps restart --id {store.submit_path} goes on"


def _run_state(store: JobStore, facts: dict[str, Any], jobs: list[Job]) -> WmsStates:
    states = {job.state for job in jobs}
    if "submitted_at" not in facts:
        return WmsStates.UNREADY
    if "ended_at" not in facts:
        if _driver_is_alive(store):
            return WmsStates.RUNNING
        is_starting = (
            time.time() - facts["submitted_at"] < _STARTING_S
            and facts.get("driver_started_at", 0.0) < facts["submitted_at"]
        )
        # The driver may have ended between the two looks.
        if "ended_at" not in store.read_facts():
            return WmsStates.PENDING if is_starting else WmsStates.HELD
        states = {job.state for job in store.read_jobs()}
    if JobState.DELETED in states and facts.get("cancel_requested"):
        return WmsStates.DELETED
    return WmsStates.SUCCEEDED if states == {JobState.SUCCEEDED} else WmsStates.FAILED


def _report(store: JobStore, facts: dict[str, Any]) -> WmsRunReport:
    jobs = store.read_jobs()
    by_label: defaultdict[str, Counter[WmsStates]] = defaultdict(Counter)
    codes: defaultdict[str, list[int]] = defaultdict(list)
    for job in jobs:
        by_label[job.label][WmsStates[job.state.name]] += 1
        if job.state is JobState.FAILED and job.exit_code is not None:
            codes[job.label].append(job.exit_code)
    total = sum(by_label.values(), Counter())
    state = _run_state(store, facts, jobs)
    return WmsRunReport(
        wms_id=str(store.submit_path),
        path=str(store.submit_path),
        label=facts["name"],
        run=facts["name"],
        project=facts["project"],
        campaign=facts["campaign"],
        payload=facts["payload"],
        operator=facts["operator"] or getpass.getuser(),
        site=facts["site"],
        run_summary=";".join(f"{label}:{sum(counts.values())}" for label, counts in by_label.items()),
        state=state,
        jobs=[WmsJobReport(job.name, job.name, job.label, WmsStates[job.state.name]) for job in jobs],
        total_number_jobs=len(jobs),
        job_state_counts={each: total[each] for each in WmsStates},
        job_summary={label: {each: counts[each] for each in WmsStates} for label, counts in by_label.items()},
        exit_code_summary={label: codes[label] for label in by_label},
        specific_info=_specific_info(store, state, jobs),
    )


def _specific_info(store: JobStore, state: WmsStates, jobs: list[Job]) -> WmsSpecificInfo:
    info = WmsSpecificInfo()
    succeeded = failed = 0
    for job in jobs:
        if job.attempt and job.has_command and not job.is_final:
            done, lost = _quanta_in_log(job_log(store.submit_path, job.name, job.attempt))
            succeeded, failed = succeeded + done, failed + lost
    info.add_message("Quanta: {quanta_succeeded} succeeded, {quanta_failed} failed",
                     quanta_succeeded=succeeded, quanta_failed=failed)  # fmt: skip
    if state is WmsStates.HELD:
        info.add_message("{held}", held=_held_message(store))
    return info


def _job_end(store: JobStore, job: Job, took_s: float) -> JobEnd:
    is_late = job.state is JobState.FAILED and job.walltime_s is not None and took_s >= job.walltime_s
    log = log_url(job_log(store.submit_path, job.name, job.attempt))
    return JobEnd(OUT_OF_TIME if is_late else "", platform.node(), log=log)


def _quanta_in_log(log: Path) -> tuple[int, int]:
    """Read how many quanta a job says it has executed, from the last such line of its log."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            found = _PROGRESS.findall(stream.read())
    except OSError:
        return 0, 0
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)
