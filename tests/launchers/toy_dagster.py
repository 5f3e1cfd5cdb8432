"""A Dagster job whose one op runs the toy pipeline, with what it needs in its run's tags."""

from pathlib import Path

import dagster as dg
from toy_repository import make_request

from launchers.step_run import launch_and_watch


@dg.op
def step(context: dg.OpExecutionContext) -> None:
    tags = context.run.tags
    request = make_request(
        tags["toy/root"], Path(tags["toy/folder"]), config_overrides=(f"double:behaviour={tags['toy/behaviour']}",)
    )
    outcome = launch_and_watch(context, request, poll_s=0.1)
    context.log.info(f"outcome: {outcome.succeeded} of {outcome.expected}")


@dg.job(executor_def=dg.in_process_executor)
def toy_job() -> None:
    step()
