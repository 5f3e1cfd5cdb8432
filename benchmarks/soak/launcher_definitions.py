"""The code location of the launchers' soak: a sensor that asks for trials, and the job that submits and watches one.

Belongs here: those two. Doesn't: what a trial is (`benchmarks.soak.launcher_trials`).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from benchmarks.soak.launcher_trials import Trial, site_bps

FOLDER_VARIABLE = "SOAK_FOLDER"
"""Names the folder of the soak's site."""

TRIAL_TAG = "soak/trial"
ASKED = "asked"
"""Folder with a file for each time that a trial is asked for."""

POLL_S = 0.5


@dg.op
def step(context: dg.OpExecutionContext) -> None:
    """Submit what the run's trial asks for, and watch it to its end."""
    # The middleware takes seconds to import, which the code server can do without.
    from launchers.step_run import launch_and_watch

    folder = Path(os.environ[FOLDER_VARIABLE])
    trial = Trial.parse(next(iter(sorted((folder / ASKED).glob(f"{context.run.tags[TRIAL_TAG]}.*")))).read_text())
    outcome = launch_and_watch(context, trial.request(folder, site_bps()), poll_s=POLL_S)
    told = f"{outcome.succeeded} of {outcome.expected} quanta succeeded"
    context.log.info(told)
    if not outcome.complete:
        causes = {f"{each.task} {dict(each.data_id)}: {each.exception}: {each.message}" for each in outcome.failures}
        raise dg.Failure(f"{told}; {'; '.join(sorted(causes))}", allow_retries=False)


@dg.job(executor_def=dg.in_process_executor)
def trial_job() -> None:
    """Do one trial."""
    step()


@dg.sensor(job=trial_job, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def trials(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
    """Ask for a run for each file that asks for a trial, once."""
    for asked in sorted((Path(os.environ[FOLDER_VARIABLE]) / ASKED).glob("*.*")):
        yield dg.RunRequest(run_key=asked.name, tags={TRIAL_TAG: asked.stem})


definitions = dg.Definitions(jobs=[trial_job], sensors=[trials])
