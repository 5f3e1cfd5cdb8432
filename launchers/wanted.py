"""Whether a run is still wanted, as its own worker sees it: who cancels it may be on a machine that can't signal it.

Belongs here: asking Dagster, now and then, and interrupting as the launcher's signal does. Doesn't: sending that signal
(`launchers.run_launcher`), or what an interrupted worker does about its submission (`launchers.step_run`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import dagster as dg

from launchers.reattach import StepContext

ASK_EVERY_S = 5.0

CANCELLED = frozenset({dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED})
"""Somebody wants the run to end; Dagster may have given up waiting for that."""


def interruption_of(context: StepContext) -> Callable[[], None]:
    """Give what whoever waits calls as often as he likes, and which interrupts him once his run is cancelled or over.

    Parameters
    ----------
    context
        Of the op or asset.
    """
    asked_at = time.monotonic()

    def interrupt_unless_wanted() -> None:
        nonlocal asked_at
        if time.monotonic() - asked_at < ASK_EVERY_S:
            return
        asked_at = time.monotonic()
        try:
            run = context.instance.get_run_by_id(context.run_id)
        except Exception:  # Dagster's storages have no error in common, and batch jobs don't wait for a database
            return
        if run is not None and (run.is_finished or run.status in CANCELLED):
            raise dg.DagsterExecutionInterruptedError(f"its run is {run.status.value.lower()}")

    return interrupt_unless_wanted
