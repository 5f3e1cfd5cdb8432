"""A step's submission, from inside a Dagster op: launched once, watched, found again after any death, rescued.

Belongs here: `run_step`, which an asset's body calls, `launch_and_watch`, and how they behave when interrupted.
Doesn't: what is asked for (`planning`), what is decided about failures (`launchers.policies`), or what the asset tells
Dagster of the outcome (`drp_assets`).
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._utils.interrupts import capture_interrupts

from launchers import bps, policies, reattach, watch
from launchers.attempts import attempts_before
from launchers.bps import Handle
from launchers.cancelling import WATCH_LOCK, cancel_with_run, forget_cancelling, was_cancelled_with_run
from launchers.casebook import Casebook
from launchers.causes import describe
from launchers.claiming import Others, claim_attempt
from launchers.graph import NothingLeft, build_graph, read_summary
from launchers.judging import read_exit_codes, read_outcome, read_quanta
from launchers.outcome import Judgement, Outcome, Quantum
from launchers.processes import exclusive
from launchers.rescue import Remains, cause_of, not_tried, read_remains, rescue_request
from launchers.submission import StepRequest, SubmissionKey
from launchers.wanted import CANCELLED, interruption_of
from launchers.watch import SILENCE_S, Progress
from planning.policies import Action, Decision, FailurePolicy
from resources.errors import OperatorError, Rejected, Retriable

LOG_EVERY_S = 5.0
_LINES = 60
"""A submission that takes ten times as long has not ten times as many lines, but some hundred more."""


@dataclass(frozen=True, slots=True)
class FailureRules:
    """What a run does about failures.

    Parameters
    ----------
    policies
        The release's.
    casebook
        Where decisions are written.
    submissions
        Folder of all submissions at this site, for the rescues.
    is_rescue
        Whether the run itself is a rescue of earlier attempts at the same work.
    causes
        Of a rescue: which failures it does again; none: all.
    """

    policies: tuple[FailurePolicy, ...]
    casebook: Casebook
    submissions: Path
    is_rescue: bool = False
    causes: tuple[str, ...] = ()


def run_step(
    context: reattach.StepContext,
    request: StepRequest,
    rules: FailureRules,
    *,
    poll_s: float = 0.25,
    log_every_s: float = LOG_EVERY_S,
    silence_s: float = SILENCE_S,
) -> Outcome:
    """Run a submission to its end, and its rescues as far as the release's policies want them.

    Everything that is decided is in the run's log, in the outcome and in the casebook. A run that goes on after its
    worker's death comes to the same decisions, and finds its rescues again.

    Parameters
    ----------
    context
        Of the op or asset.
    request
        What to do.
    rules
        What to do about failures.
    poll_s, log_every_s, silence_s
        As for `launch_and_watch`.

    Returns
    -------
    outcome
        Of the submission and its rescues together; of a rescue, with all that was done before it.

    Raises
    ------
    resources.errors.OperatorError
        See `launch_and_watch`; `resources.errors.Rejected` where a rescue finds nothing that could be rescued.
    """
    so_far: Outcome | None = None
    if rules.is_rescue:
        remains = read_remains(request, attempts_before(rules.submissions, request.key), request.quarantined)
        if remains is not None:
            request = rescue_request(request, remains, rules.causes)
            so_far = _with_judgements(remains, rules.casebook)
        elif rules.causes:
            raise Rejected("no attempt at it is known", request.key.name, "rescue it without --cause")
    tried: Counter[Quantum] = Counter()
    while True:
        try:
            now = launch_and_watch(context, request, poll_s=poll_s, log_every_s=log_every_s, silence_s=silence_s)
        except NothingLeft:
            if so_far is None:
                raise
            left = not_tried(so_far.failures, (), request.quarantined)
            return policies.combine(so_far, None, left)
        # What waited for another quantum so far has its attempts before it.
        tried.update(failure.quantum for failure in now.failures)
        judgements = _judge(context, request, rules, now, tried, silence_s)
        now = dataclasses.replace(now, judgements=tuple(judgements))
        if so_far is not None:
            # What is in other partitions, was not asked for or is held has not been tried, and is left.
            left = not_tried(so_far.failures, read_quanta(request), request.quarantined)
            so_far = policies.combine(so_far, now, left)
        else:
            so_far = now
        if not policies.is_rescue_due(judgements, now):
            return so_far
        key, folder = claim_attempt(
            rules.submissions,
            _next(request.key),
            context.run_id,
            is_rescue=True,
            others=others_of(context, silence_s),
        )
        request = policies.rescue_of(request, judgements, key, folder)


@contextmanager
def rescue_turn(context: reattach.StepContext, submissions: Path, work: SubmissionKey) -> Iterator[None]:
    """Let a rescue wait for others of the same work: what each has left is what the next one begins with.

    Parameters
    ----------
    context
        Of the op or asset.
    submissions
        Folder of all submissions at this site.
    work
        Any attempt at it. None is claimed before it is the rescue's turn, so that attempts follow one another.
    """
    with in_turn(context, submissions / work.release / f"{work.work}.lock", f"{work.work} is rescued"):
        yield


def others_of(context: reattach.StepContext, silence_s: float = SILENCE_S) -> Others:
    """Give what a run can find out about the runs before it, from Dagster and from the batch system.

    Parameters
    ----------
    context
        Of the op or asset.
    silence_s
        How long the batch system may give no answer.
    """

    def lives(run_id: str) -> bool:
        run = context.instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        # A run that does several steps may be long done with this one.
        steps = context.instance.get_run_step_stats(run_id, [str(context.op_handle)])
        return all(each.status is None or each.status.value == "IN_PROGRESS" for each in steps)

    def still_runs(folder: Path) -> Handle | None:
        handle = _find(folder, silence_s)
        return None if handle is None or _look(handle, silence_s).is_over else handle

    def is_repeated(run_id: str) -> bool:
        me, other = context.instance.get_run_by_id(context.run_id), context.instance.get_run_by_id(run_id)
        is_parent = me is not None and me.parent_run_id == run_id
        return is_parent and other is not None and other.status is dg.DagsterRunStatus.FAILURE

    def state_of(folder: Path) -> str:
        handle = _find(folder, silence_s)
        return "" if handle is None else _look(handle, silence_s).state

    return Others(lives, still_runs, is_repeated, state_of, context.log.info)


def _with_judgements(remains: Remains, casebook: Casebook) -> Outcome:
    """Recall what was decided about what is left: what a run before has held is held until somebody rescues it."""
    before = remains.outcome
    submissions = [attempt.key for attempt in remains.attempts]
    cases = casebook.cases(submissions[0].release, submissions=[key.name for key in submissions])
    return dataclasses.replace(before, judgements=tuple(policies.judgements_from(cases, before.failures)))


def _next(key: SubmissionKey) -> SubmissionKey:
    return dataclasses.replace(key, attempt=key.attempt + 1)


def _judge(
    context: reattach.StepContext,
    request: StepRequest,
    rules: FailureRules,
    now: Outcome,
    tried: Mapping[Quantum, int],
    silence_s: float,
) -> list[Judgement]:
    """Decide about what failed, and write that down before anything is done."""
    handle = bps.find(request.folder)
    codes = read_exit_codes(handle) if handle is not None and now.failures else {}
    judgements = policies.judge(rules.policies, request, now.failures, codes, tried=tried)
    if handle is not None and now.failures and _look(handle, silence_s).state == "DELETED":
        # Whoever cancelled it in the batch system doesn't want to see it again by itself.
        judgements = [Judgement(each.failure, Decision(Action.HOLD, "cancelled")) for each in judgements]
    rules.casebook.note(policies.cases_of(request, judgements, context.run_id))
    for line in describe(judgements):
        context.log.warning(line)
    for data_id, judgement in policies.quarantined_in(judgements):
        why = f"{judgement.decision.policy}: {cause_of(judgement.failure)}"
        rules.casebook.quarantine(request.key.release, [data_id], why=why, by=f"policy, in run {context.run_id}")
    return judgements


def _find(folder: Path, silence_s: float) -> Handle | None:
    return watch.patiently(lambda: bps.find(folder), str(folder), silence_s=silence_s)


def _look(handle: Handle, silence_s: float) -> Progress:
    return watch.patiently(lambda: watch.look(handle), handle.name, silence_s=silence_s)


def launch_and_watch(
    context: reattach.StepContext,
    request: StepRequest,
    *,
    poll_s: float = 0.25,
    log_every_s: float = LOG_EVERY_S,
    silence_s: float = SILENCE_S,
) -> Outcome:
    """Run a submission to its end, whatever became of it before, and judge it.

    A submission of this name that exists is watched; one that was cancelled with its run goes on where it stopped, one
    that somebody has cancelled in the batch system stays so; only where there is none is a graph built and submitted.
    A batch system that is away is waited for, also by what is still to be submitted. When the step is interrupted, the
    submission is cancelled only if the run is being cancelled; a dying worker leaves it running, for the next one.

    Parameters
    ----------
    context
        Of the op or asset.
    request
        What to do.
    poll_s
        Time between two questions to the batch system.
    log_every_s
        Time between two lines of progress in the run's log, at least.
    silence_s
        How long the batch system may give no answer.

    Raises
    ------
    resources.errors.OperatorError
        See `launchers.graph.build_graph`, `launchers.bps.submit` and `launchers.watch.watch`.
    """
    try:
        # Two watchers would restart and judge it against each other.
        with in_turn(context, request.folder / WATCH_LOCK, f"{request.key.name} is watched", log_every_s):
            handle = _find_or_submit(context, request, poll_s, silence_s)
            summary = read_summary(request)
            teller = _Teller(context, log_every_s)
            last = watch.watch(
                handle,
                poll_s=poll_s,
                on_progress=teller.tell,
                on_poll=interruption_of(context),
                quanta_total=summary.total if summary else None,
                silence_s=silence_s,
            )
            teller.tell_last(last)
            return read_outcome(request, handle)
    except dg.DagsterExecutionInterruptedError:
        _leave_or_cancel(context, request)
        raise


@contextmanager
def in_turn(context: reattach.StepContext, path: Path, what: str, tell_every_s: float = LOG_EVERY_S) -> Iterator[None]:
    """Wait until no other run holds a lock, and hold it.

    Parameters
    ----------
    context
        Of the op or asset, whose log says for whom it waits.
    path
        The lock: its file system's, which lets go of it when its holder dies.
    what
        What is done meanwhile, such as ``X is watched``.
    tell_every_s
        How often to see who holds it now.
    """
    told = ""
    interrupt_unless_wanted = interruption_of(context)
    while True:
        interrupt_unless_wanted()
        with exclusive(path, wait_s=tell_every_s) as lock:
            if lock is not None:
                with suppress(OSError):  # a full disk holds no name, and the lock holds without one
                    lock.truncate(0)
                    lock.write(f"run {context.run_id}, process {os.getpid()} on {socket.gethostname()}".encode())
                    lock.flush()
                yield
                return
        holder = path.read_text(errors="replace")
        if holder != told:
            told = holder
            context.log.info(f"{what} by {holder} already: waiting")


def _find_or_submit(context: reattach.StepContext, request: StepRequest, poll_s: float, silence_s: float) -> Handle:
    name = request.key.name
    handle = _find(request.folder, silence_s)
    if handle is not None:
        if _look(handle, silence_s).state == "DELETED" and was_cancelled_with_run(request.folder):
            context.log.info(f"{name} had been cancelled with its run; it goes on where it stopped")
            bps.forget_provenance(request)
            handle = bps.record(request.folder, watch.restart(handle))
            forget_cancelling(request.folder)
        context.log.info(f"{name} was submitted before: watching it again ({handle.wms_id})")
        reattach.record_reattachment(context, handle)
        return handle
    graph = build_graph(request)
    quanta = ", ".join(f"{count} {task}" for task, count in graph.quanta.items())
    context.log.info(f"{name}: {graph.total} quanta ({quanta})")
    told = ""
    interrupt_unless_wanted = interruption_of(context)

    def submit() -> Handle:
        nonlocal told
        interrupt_unless_wanted()
        try:
            return bps.submit(request, graph)
        except (Retriable, OSError, RuntimeError) as error:
            if told != (told := str(error)):
                context.log.warning(f"{name} is not submitted yet, and tried again for {silence_s:.0f} s: {told}")
            raise

    handle = watch.patiently(submit, name, poll_s=poll_s, silence_s=silence_s)
    reattach.record_launch(context, handle)
    return handle


def _leave_or_cancel(context: reattach.StepContext, request: StepRequest) -> None:
    name = request.key.name
    run = context.instance.get_run_by_id(context.run_id)
    is_cancelling = run is not None and run.status in CANCELLED
    try:
        handle = bps.find(request.folder)
    except (OperatorError, OSError, RuntimeError) as error:
        context.log.warning(
            f"whether the batch system has {name} it doesn't say: {error}; "
            + ("see bps report, and end it with bps cancel" if is_cancelling else "the next worker asks again")
        )
        return
    if handle is None:
        return
    if is_cancelling:
        with capture_interrupts():  # a second one would leave it half cancelled
            is_cancelled, said = cancel_with_run(handle, context.run_id)
        (context.log.info if is_cancelled else context.log.warning)(said)
    else:
        context.log.info(f"the worker is going; {name} runs on")


class _Teller:
    """Puts progress into the run's log, but no flood of it: the longer it takes, the rarer the lines."""

    def __init__(self, context: reattach.StepContext, every_s: float) -> None:
        self._context = context
        self._every_s = every_s
        self._told_at = float("-inf")
        self._told = ""

    def tell(self, progress: Progress) -> None:
        """Tell, unless something was told a moment ago."""
        if time.monotonic() - self._told_at >= max(self._every_s, progress.elapsed_s / _LINES):
            self.tell_last(progress)

    def tell_last(self, progress: Progress) -> None:
        """Tell whatever the time, but nothing twice."""
        line = str(progress)
        if line != self._told:
            self._told, self._told_at = line, time.monotonic()
            self._context.log.info(line)
