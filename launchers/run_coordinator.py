"""The run queue, in which every run says which release it is of, so that a release can be limited.

Belongs here: that label. Doesn't: the limits, which are Dagster's own (``concurrency`` in ``dagster.yaml``, from the
site profile by `drp_assets.limits`), or starting a run (`launchers.run_launcher`).
"""

from __future__ import annotations

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

RELEASE_TAG = "drp/release"


class LabelledRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue; whoever asks for a run, its tag ``drp/release`` is the name of its code location."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Label a run and queue it.

        Parameters
        ----------
        context
            The run's.
        """
        run = context.dagster_run
        origin = run.remote_job_origin
        if origin is not None:
            location = origin.repository_origin.code_location_origin.location_name
            self._instance.add_run_tags(run.run_id, {RELEASE_TAG: location})
            labelled = self._instance.get_run_by_id(run.run_id)
            context = SubmitRunContext(labelled or run, context.workspace)
        return super().submit_run(context)
