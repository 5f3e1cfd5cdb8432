"""A step's submission, from inside a Dagster op: launched once, watched, found again after any death.

Belongs here: `launch_and_watch`, which an asset's body calls, and how it behaves when it is interrupted.
Doesn't: what is asked for (`planning`), or what the asset tells Dagster of the outcome (`drp_assets`).
"""

from __future__ import annotations

import time

import dagster as dg

from launchers import bps, outcome, reattach, watch
from launchers.bps import Handle
from launchers.graph import build_graph, read_summary
from launchers.outcome import Outcome
from launchers.submission import StepRequest
from launchers.watch import Progress

LOG_EVERY_S = 5.0


def launch_and_watch(
    context: reattach.StepContext, request: StepRequest, *, poll_s: float = 0.25, log_every_s: float = LOG_EVERY_S
) -> Outcome:
    """Run a submission to its end, whatever became of it before, and judge it.

    A submission of this name that exists is watched; one that was cancelled goes on where it stopped; only where there
    is none is a graph built and submitted. When the step is interrupted, the submission is cancelled only if the run is
    being cancelled; a dying worker leaves it running, for the next one.

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

    Raises
    ------
    resources.errors.OperatorError
        See `launchers.graph.build_graph`, `launchers.bps.submit` and `launchers.watch.watch`.
    """
    try:
        handle = _find_or_submit(context, request)
        summary = read_summary(request)
        teller = _Teller(context, log_every_s)
        last = watch.watch(
            handle, poll_s=poll_s, on_progress=teller.tell, quanta_total=summary.total if summary else None
        )
        teller.tell_last(last)
    except dg.DagsterExecutionInterruptedError:
        _leave_or_cancel(context, request)
        raise
    return outcome.read_outcome(request, handle)


def _find_or_submit(context: reattach.StepContext, request: StepRequest) -> Handle:
    name = request.key.name
    handle = bps.find(request.folder)
    if handle is not None:
        if watch.look(handle).state == "DELETED":
            context.log.info(f"{name} had been cancelled; it goes on where it stopped")
            request.provenance_path.unlink(missing_ok=True)
            handle = watch.restart(handle)
        context.log.info(f"{name} was submitted before: watching it again ({handle.wms_id})")
        reattach.record_reattachment(context, handle)
        return handle
    graph = build_graph(request)
    quanta = ", ".join(f"{count} {task}" for task, count in graph.quanta.items())
    context.log.info(f"{name}: {graph.total} quanta ({quanta})")
    handle = bps.submit(request, graph)
    reattach.record_launch(context, handle)
    return handle


def _leave_or_cancel(context: reattach.StepContext, request: StepRequest) -> None:
    run = context.instance.get_run_by_id(context.run_id)
    handle = bps.find(request.folder)
    if handle is None:
        return
    if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
        message = watch.cancel(handle)
        context.log.info(f"{handle.name} cancelled with its run{': ' + message if message else ''}")
    else:
        context.log.info(f"the worker is going; {handle.name} runs on")


class _Teller:
    """Puts progress into the run's log, but no flood of it."""

    def __init__(self, context: reattach.StepContext, every_s: float) -> None:
        self._context = context
        self._every_s = every_s
        self._told_at = float("-inf")
        self._told = ""

    def tell(self, progress: Progress) -> None:
        """Tell, unless something was told a moment ago."""
        if time.monotonic() - self._told_at >= self._every_s:
            self.tell_last(progress)

    def tell_last(self, progress: Progress) -> None:
        """Tell whatever the time, but nothing twice."""
        line = str(progress)
        if line != self._told:
            self._told, self._told_at = line, time.monotonic()
            self._context.log.info(line)
