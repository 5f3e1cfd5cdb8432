"""Watching a submission: what its batch system says of it, until it is over.

Belongs here: asking the service, in its own words and through ctrl_bps's interface alone, and counting; bringing back a
workflow whose runner died, where the service knows how to.
Doesn't: deciding to cancel, judging success (`launchers.outcome`), or anything that depends on where the jobs run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from lsst.ctrl.bps import WmsRunReport, WmsStates

from launchers.bps import Handle
from resources.errors import Retriable, SiteFault

_OVER = frozenset({WmsStates.SUCCEEDED, WmsStates.FAILED, WmsStates.DELETED})
_ENDED = _OVER | {WmsStates.PRUNED}
_MAX_RESUMES = 5
"""So often may what runs the jobs die without a single job's end in between."""

SILENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a submission is.

    Parameters
    ----------
    state
        The workflow's state, one of ``WmsStates``' names.
    jobs
        Number of jobs by state, without those of which there are none.
    quanta_done, quanta_failed
        Quanta executed so far; None where the service doesn't tell.
    quanta_total
        Quanta in the graph; None where it isn't known.
    elapsed_s
        Time since watching began.
    left_s
        Time until all quanta are done at the pace of those done since watching began; None where that can't be said.
    trouble
        What keeps the batch system from going on with it; empty where nothing does.
    """

    state: str
    jobs: Mapping[str, int] = field(default_factory=dict)
    quanta_done: int | None = None
    quanta_failed: int | None = None
    quanta_total: int | None = None
    elapsed_s: float = 0.0
    left_s: float | None = None
    trouble: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the workflow has ended, well or not."""
        return WmsStates[self.state] in _OVER

    @property
    def ended(self) -> int:
        """Something that grows whenever a job or a quantum comes to its end."""
        jobs = sum(count for state, count in self.jobs.items() if WmsStates[state] in _ENDED)
        return jobs + (self.quanta_done or 0) + (self.quanta_failed or 0)

    def __str__(self) -> str:
        jobs = ", ".join(f"{count} {state.lower()}" for state, count in self.jobs.items())
        quanta = ""
        if self.quanta_done is not None:
            total = "" if self.quanta_total is None else f" of {self.quanta_total}"
            failed = f", {self.quanta_failed} failed" if self.quanta_failed else ""
            left = "" if self.left_s is None or self.is_over else f", about {_duration(self.left_s)} left"
            quanta = f"; quanta: {self.quanta_done}{total} done{failed}{left}"
        but = f", but: {self.trouble}" if self.trouble and not self.is_over else ""
        return f"{self.state.lower()} after {self.elapsed_s:.0f} s{but}; jobs: {jobs or 'none'}{quanta}"


def look(handle: Handle) -> Progress:
    """Ask once.

    Raises
    ------
    resources.errors.Retriable
        The service has no answer now.
    """
    reports, message = handle.service().report(wms_workflow_id=handle.wms_id)
    if not reports:
        raise Retriable(f"the batch system doesn't know it: {message}", handle.name, "ask again")
    return _progress(reports[0])


def watch(
    handle: Handle,
    *,
    poll_s: float = 0.25,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_poll: Callable[[], None] = lambda: None,
    quanta_total: int | None = None,
    silence_s: float = SILENCE_S,
) -> Progress:
    """Watch until the workflow is over; leaves it alone whatever interrupts the watching.

    Parameters
    ----------
    handle
        The submission.
    poll_s
        Time between two questions.
    on_progress
        Called when something other than the time has changed.
    on_poll
        Called before each question, also while there is no answer; what it raises ends the watching.
    quanta_total
        Quanta in the graph, for the reports.
    silence_s
        How long the service may give no answer.

    Raises
    ------
    resources.errors.SiteFault
        No answer for that long, or the workflow's runner died again and again.
    """
    began = time.monotonic()
    told: tuple[object, ...] = ()
    resumes = ended = 0
    first: Progress | None = None

    def ask() -> tuple[Progress, bool]:
        on_poll()
        return _look_and_resume(handle)

    while True:
        seen, resumed = patiently(ask, handle.name, poll_s=poll_s, silence_s=silence_s)
        progress = replace(seen, quanta_total=quanta_total, elapsed_s=time.monotonic() - began)
        first = first or progress
        progress = replace(progress, left_s=time_left(first, progress))
        now = (progress.state, dict(progress.jobs), progress.quanta_done, progress.quanta_failed, progress.trouble)
        if now != told:
            told = now
            on_progress(progress)
        if progress.is_over:
            return progress
        if progress.ended > ended:
            resumes, ended = 0, progress.ended
        resumes += resumed
        if resumes > _MAX_RESUMES:
            raise SiteFault(
                f"what runs the jobs died {resumes} times",
                handle.submit_path,
                "see the logs there, then bps restart",
            )
        time.sleep(poll_s)


def patiently[T](ask: Callable[[], T], name: str, *, poll_s: float = 0.25, silence_s: float = SILENCE_S) -> T:
    """Ask a batch system until it answers: its servers are restarted, and its clients time out.

    Parameters
    ----------
    ask
        The question.
    name
        What it is about.
    poll_s
        Time between two tries.
    silence_s
        How long to go on trying.

    Raises
    ------
    resources.errors.SiteFault
        No answer for that long.
    """
    asked = time.monotonic()
    while True:
        try:
            return ask()
        except (Retriable, OSError, RuntimeError) as error:
            if time.monotonic() - asked > silence_s:
                raise SiteFault(
                    f"the batch system is silent for {silence_s:.0f} s: {error}",
                    name,
                    "ask it by hand with bps report; once it answers, re-execute the run",
                ) from error
        time.sleep(poll_s)


def time_left(first: Progress, now: Progress) -> float | None:
    """Say how long it takes until all quanta are done, at the pace of those done so far.

    Parameters
    ----------
    first, now
        What was seen when watching began, and what is seen now.
    """
    if first.quanta_done is None or now.quanta_done is None or now.quanta_total is None:
        return None
    done = now.quanta_done - first.quanta_done
    passed_s = now.elapsed_s - first.elapsed_s
    left = now.quanta_total - now.quanta_done - (now.quanta_failed or 0)
    return left * passed_s / done if done > 0 and passed_s > 0 and left > 0 else None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def cancel(handle: Handle) -> tuple[bool, str]:
    """Cancel a submission; returns whether its service has done so, and what it had to say."""
    service = handle.service()
    answers = [service.cancel(wms_id) for wms_id in service.list_submitted_jobs(handle.wms_id)]
    if not answers:
        return False, "the batch system doesn't know it"
    return all(done for done, _ in answers), "; ".join(message for _, message in answers if message)


def restart(handle: Handle) -> Handle:
    """Let the service do again what did not succeed, in the same submission.

    Raises
    ------
    resources.errors.SiteFault
        The service will not.
    """
    wms_id, _, message = handle.service().restart(handle.wms_id)
    if wms_id is None:
        raise SiteFault(f"it cannot be restarted: {message}", handle.name, "see the batch system")
    return replace(handle, wms_id=str(wms_id))


def _look_and_resume(handle: Handle) -> tuple[Progress, bool]:
    seen = look(handle)
    return seen, seen.state == WmsStates.HELD.name and _resume(handle)


def _resume(handle: Handle) -> bool:
    """Let the service go on where its runner died; other services than ours do so by themselves, or need a person."""
    resume = getattr(handle.service(), "resume", None)
    return bool(resume and resume(handle.wms_id))


def _progress(report: WmsRunReport) -> Progress:
    counts = report.job_state_counts or {}
    facts = report.specific_info.context if report.specific_info else {}
    return Progress(
        state=(report.state or WmsStates.UNKNOWN).name,
        jobs={state.name: count for state, count in counts.items() if count},
        quanta_done=facts.get("quanta_succeeded"),
        quanta_failed=facts.get("quanta_failed"),
        trouble=facts.get("trouble", ""),
    )
