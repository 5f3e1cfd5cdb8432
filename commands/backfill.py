"""`drp backfill`: reprocess a step over any of its partitions, as few submissions.

Belongs here: the command and its request to Dagster's API. Doesn't: how a backfill runs (`drp_assets.steps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import requests
import typer

from commands.console import make_console
from drp_assets.definitions import RELEASES
from drp_assets.keys import product_assets
from drp_assets.plans import plan_of
from planning.pipeline import PipelinePlan, Sharding, Step
from planning.release import Release, read_release
from resources.errors import Rejected, SiteFault
from resources.site import read_site

_TIMEOUT_S = 60
_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message }
  }
}
"""
_RUN = """
mutation Run($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message }
  }
}
"""
_SUCCESSES = ("LaunchBackfillSuccess", "LaunchRunSuccess")


def launch_backfill(
    url: str,
    release: Release,
    step: Step,
    partitions: list[str],
    config: list[str],
    *,
    skip_existing: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Ask Dagster to run a step again.

    Parameters
    ----------
    url
        Of the web UI.
    release, step
        What to run.
    partitions
        Keys; ignored for a step that runs whole.
    config
        Overrides for these runs, each ``task:field=value``.
    skip_existing
        Leave out what earlier runs have made.
    settings
        What else these runs change, as in `drp_assets.submissions.StepConfig`.

    Returns
    -------
    identifier
        Of the backfill, or of the run of a step that runs whole.

    Raises
    ------
    resources.errors.SiteFault
        Dagster doesn't answer.
    resources.errors.Rejected
        It refuses: no such partition, or it doesn't know the release.
    """
    keys = [{"path": list(asset.key.path)} for asset in product_assets(release, step)]
    operation = f"{release.name}__{step.short}"
    changes = {"config": config, "skip_existing": skip_existing, **(settings or {})}
    run_config = {"ops": {operation: {"config": changes}}}
    if step.sharding is Sharding.WHOLE:
        selector = {
            "repositoryLocationName": release.name,
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": keys,
        }
        answer = _ask(url, _RUN, {"selector": selector, "runConfigData": run_config})
        return str(answer["run"]["runId"])
    params = {
        "assetSelection": keys,
        "partitionNames": partitions,
        "runConfigData": run_config,
        "title": f"{release.name} {step.short}",
    }
    return str(_ask(url, _BACKFILL, params)["backfillId"])


def _ask(url: str, query: str, params: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = requests.post(
            f"{url}/graphql", json={"query": query, "variables": {"params": params}}, timeout=_TIMEOUT_S
        ).json()
    except (requests.RequestException, ValueError) as error:
        raise SiteFault(
            "Dagster's web server doesn't answer", url, "start it, or say where it is with --url"
        ) from error
    if "errors" in answer:
        raise Rejected(answer["errors"][0]["message"].splitlines()[0], url)
    (result,) = answer["data"].values()
    if result["__typename"] not in _SUCCESSES:
        raise Rejected(_complaint(result), url, "is the release in workspace.yaml, and its location loaded?")
    return dict(result)


def _complaint(result: Mapping[str, Any]) -> str:
    """Give the first line of what is wrong; the few kinds of error that say nothing have a name that does."""
    said = [result.get("message", ""), *(each["message"] for each in result.get("errors", ()))]
    lines = [line for text in said for line in text.strip().splitlines()]
    return lines[0] if lines else str(result["__typename"])


def find_release(name: str) -> Release:
    """Read a release by its name.

    Parameters
    ----------
    name
        As it is typed.

    Raises
    ------
    resources.errors.Rejected
        There is none of this name, or its file makes no sense.
    """
    path = RELEASES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RELEASES.glob("*.yaml")))
        raise Rejected(f"no release {name!r}", str(RELEASES), f"there are: {known or 'none'}")
    return read_release(path)


def find_step(name: str, step: str) -> tuple[Release, PipelinePlan, Step]:
    """Read a release and find one of its steps.

    Parameters
    ----------
    name
        The release's.
    step
        The step's label or its first word.
    """
    release = find_release(name)
    plan = plan_of(release, read_site().state / "plans")
    return release, plan, plan.step(step)


def backfill(
    release: Annotated[str, typer.Argument(help="name of the release")],
    step: Annotated[str, typer.Argument(help="such as step3a")],
    partitions: Annotated[list[str] | None, typer.Argument(help="day_obs or tracts; none for a whole step")] = None,
    url: Annotated[str, typer.Option(envvar="DRP_UI", help="address of Dagster's web UI")] = "http://127.0.0.1:3000",
    config: Annotated[list[str] | None, typer.Option("-c", help="task:field=value, for these runs only")] = None,
    skip_existing: Annotated[bool, typer.Option(help="leave out what earlier runs have made")] = False,
) -> None:
    """Run a step again over some of its partitions."""
    found, _, chosen = find_step(release, step)
    if chosen.sharding is not Sharding.WHOLE and not partitions:
        raise Rejected("no partition is named", chosen.label, f"name one or more {chosen.sharding.value}")
    if chosen.sharding is Sharding.WHOLE and partitions:
        raise Rejected(f"has no partition {', '.join(partitions)}", chosen.label, "it runs whole: name none")
    for override in config or []:
        _check_override(override, chosen)
    identifier = launch_backfill(url, found, chosen, partitions or [], config or [], skip_existing=skip_existing)
    make_console().print(f"{found.name} {chosen.label}: {identifier}, see {url}/runs")


def check_task(task: str, step: Step) -> None:
    """Refuse what is no task of a step, as far as its tasks are known.

    Parameters
    ----------
    task
        As it is typed.
    step
        Whose it is to be.

    Raises
    ------
    resources.errors.Rejected
        It isn't.
    """
    if step.tasks and task not in step.tasks:
        raise Rejected(f"no task of {step.label}", task, f"its tasks: {', '.join(step.tasks)}")


def _check_override(override: str, step: Step) -> None:
    task, has_field, rest = override.partition(":")
    field, has_value, _ = rest.partition("=")
    if not (task and has_field and field and has_value):
        raise Rejected("not of the form task:field=value", override, "such as calibrateImage:psfThreshold=4")
    check_task(task, step)
