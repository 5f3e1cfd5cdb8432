"""How a workflow stands, in ctrl_bps's words.

Belongs here: `standing`, from the record and Slurm's queue to states, and the report made of it. Doesn't: asking Slurm
or reading files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsst.ctrl.bps import WmsJobReport, WmsRunReport, WmsSpecificInfo, WmsStates

from launchers.slurm.dispatcher import dispatchers, kept_waiting
from launchers.slurm.ends import KILLED, End, Ending, Mark
from launchers.slurm.jobs import Element, Job, JobState
from launchers.slurm.plan import Plan
from launchers.slurm.queue import Queue, Queued

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Standing:
    """How a workflow stands.

    Parameters
    ----------
    submit_path
        Its folder.
    plan
        Its jobs, as recorded.
    facts
        What is known of it as a whole, what keeps it from going on among it.
    state
        Its state.
    states
        Its jobs' states, as they are now.
    """

    submit_path: Path
    plan: Plan
    facts: Mapping[str, Any]
    state: WmsStates
    states: list[WmsStates]


def standing(
    submit_path: Path,
    plan: Plan,
    facts: Mapping[str, Any],
    queue: Queue | None,
    *,
    is_cancelled: bool = False,
    marks: Mapping[Element, Mark] | None = None,
) -> Standing:
    """Tell how a workflow stands.

    Parameters
    ----------
    submit_path
        Its folder.
    plan, facts
        The record.
    queue
        Slurm's; None where it doesn't matter.
    is_cancelled
        Whether somebody wanted the whole workflow to end.
    marks
        What jobs have left behind that nobody has taken note of.
    """
    for position, job in enumerate(plan.jobs):
        mark = marks.get(job.element) if marks and job.element else None
        if mark is not None and job.state.is_with_slurm and _queued(job, queue) is None:
            plan.ended(position, End(Ending.FAILED if mark.exit_code else Ending.SUCCEEDED, mark.exit_code, mark))
    states = [_state_of(job, queue) for job in plan.jobs]
    if queue is not None and (waiting := kept_waiting(queue)):
        why = "; ".join(f"the dispatcher of {each.folder} waits: {each.reason}" for each in waiting)
        facts = {**facts, "trouble": why}
    state = (
        _end_state(states, is_cancelled) if facts.get("ended_at") else _live_state(submit_path, facts, states, queue)
    )
    return Standing(submit_path, plan, facts, state, states)


def _queued(job: Job, queue: Queue | None) -> Queued | None:
    return queue.elements.get(job.element) if queue is not None and job.element is not None else None


def _state_of(job: Job, queue: Queue | None) -> WmsStates:
    state = job.state
    queued = _queued(job, queue)
    if queued is not None and state.is_with_slurm:
        # The record may be a moment behind.
        alive = queued.alive
        ended_well = queued.is_over and queued.state == "COMPLETED"
        state = alive or (JobState.SUCCEEDED if ended_well else state)
    return WmsStates[state.name]


def _end_state(states: list[WmsStates], is_cancelled: bool) -> WmsStates:
    if set(states) <= {WmsStates.SUCCEEDED}:
        return WmsStates.SUCCEEDED
    # Single jobs that somebody has cancelled are failures of a workflow that he let go on.
    return WmsStates.DELETED if is_cancelled and WmsStates.DELETED in states else WmsStates.FAILED


def _live_state(submit_path: Path, facts: Mapping[str, Any], states: list[WmsStates], queue: Queue | None) -> WmsStates:
    if queue is None:
        return WmsStates.UNREADY
    dispatcher = dispatchers(queue).get(str(submit_path))
    if dispatcher is None:
        # Without a dispatcher nothing counts that was submitted before.
        return WmsStates.HELD if "dispatcher_job" in facts else WmsStates.UNREADY
    begun = {WmsStates.RUNNING, WmsStates.SUCCEEDED, WmsStates.FAILED}
    return WmsStates.RUNNING if begun.intersection(states) else WmsStates.PENDING


def held_message(seen: Standing) -> str:
    """Say what to do about a workflow that nothing makes go on."""
    log = seen.submit_path / "dispatcher.log"
    return f"the dispatcher of this workflow is gone, see {log}; bps restart --id {seen.submit_path} goes on"


def report_of(seen: Standing) -> WmsRunReport:
    """Report on a workflow.

    Parameters
    ----------
    seen
        How it stands.
    """
    facts, jobs = seen.facts, seen.plan.jobs
    by_label: defaultdict[str, Counter[WmsStates]] = defaultdict(Counter)
    codes: defaultdict[str, list[int]] = defaultdict(list)
    for job, state in zip(jobs, seen.states, strict=True):
        by_label[job.label][state] += 1
        if state is WmsStates.FAILED:
            codes[job.label].append(KILLED if job.exit_code is None else job.exit_code)
    total = sum(by_label.values(), Counter())
    return WmsRunReport(
        wms_id=str(seen.submit_path),
        path=str(seen.submit_path),
        label=facts["name"],
        run=facts["name"],
        project=facts["project"],
        campaign=facts["campaign"],
        payload=facts["payload"],
        operator=facts["operator"],
        site=facts["site"],
        run_summary=";".join(f"{label}:{sum(counts.values())}" for label, counts in by_label.items()),
        state=seen.state,
        jobs=[
            WmsJobReport(str(job.element or job.name), job.name, job.label, state)
            for job, state in zip(jobs, seen.states, strict=True)
        ],
        total_number_jobs=len(jobs),
        job_state_counts={each: total[each] for each in WmsStates},
        job_summary={label: {each: counts[each] for each in WmsStates} for label, counts in by_label.items()},
        exit_code_summary={label: codes[label] for label in by_label},
        specific_info=_specific_info(seen),
    )


def _specific_info(seen: Standing) -> WmsSpecificInfo:
    info = WmsSpecificInfo()
    payload = [job for job in seen.plan.jobs if not job.is_final]
    info.add_message(
        "Quanta: {quanta_succeeded} succeeded, {quanta_failed} failed",
        quanta_succeeded=sum(job.quanta for job in payload),
        quanta_failed=sum(job.quanta_failed for job in payload),
    )
    largest = max(seen.plan.jobs, key=lambda job: job.usage.memory_mb, default=None)
    if largest is not None and largest.usage.memory_mb:
        info.add_message(
            "CPU hours: {cpu_hours}; most memory: {memory_mb} MB ({memory_job})",
            cpu_hours=round(sum(job.usage.cpu_s for job in seen.plan.jobs) / _SECONDS_PER_HOUR, 3),
            memory_mb=round(largest.usage.memory_mb),
            memory_job=largest.name,
        )
    tried_again = sum(job.retries for job in seen.plan.jobs)
    if tried_again:
        info.add_message("Tried again: {tried_again}", tried_again=tried_again)
    endings = Counter(job.ending for job in seen.plan.jobs if job.state is JobState.FAILED and job.ending)
    lines = [f"{count} {ending.value}" for ending, count in endings.items() if ending is not Ending.FAILED]
    if lines:
        info.add_message("Not by their own fault: {endings}", endings=", ".join(lines))
    if seen.facts.get("trouble"):
        info.add_message("{trouble}", trouble=seen.facts["trouble"])
    if seen.state is WmsStates.HELD:
        info.add_message("{held}", held=held_message(seen))
    return info
