"""The failure sensor: one line for each failed run, addressed to whoever owns what failed.

Belongs here: routing a failure. Doesn't: finding its cause, which the run's own failure says.
"""

from __future__ import annotations

import json
import time

import dagster as dg

from resources.site import Site


def failure_line(run: dg.DagsterRun, message: str) -> dict[str, str]:
    """Write what an operator needs to know of a failed run.

    Parameters
    ----------
    run
        The run.
    message
        The first line of its failure.
    """
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": run.run_id,
        "assets": ", ".join(assets[:3]) + (f" and {len(assets) - 3} more" if len(assets) > 3 else ""),
        "partition": run.tags.get("dagster/partition", ""),
        "cause": message,
    }


def build_failure_sensor(site: Site) -> dg.SensorDefinition:
    """Build the sensor, which appends to ``failures.jsonl`` in the site's state folder.

    Parameters
    ----------
    site
        Where its state is.
    """

    @dg.run_failure_sensor(
        name="failures",
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Notes every failed run with its cause, a line each, for whatever alerts the operators.",
    )
    def failures(context: dg.RunFailureSensorContext) -> None:
        steps = context.get_step_failure_events()
        error = steps[0].step_failure_data.error if steps else None
        while error and error.cause:  # the outer ones only say which step it was
            error = error.cause
        message = (error.message if error else context.failure_event.message or "").strip().splitlines()
        with (site.state / "failures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(failure_line(context.dagster_run, message[0] if message else "")) + "\n")

    return failures
