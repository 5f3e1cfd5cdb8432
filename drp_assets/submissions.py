"""From a run of a step's asset to the request that the launchers carry out.

Belongs here: the request's content from site profile, release, plan and what the run changes. Doesn't: carrying it out
(`launchers`), telling Dagster what came of it (`drp_assets.reporting`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from launchers.attempts import attempts_of, rescued_work
from launchers.claiming import Others, claim_attempt
from launchers.memory import with_memory
from launchers.sites import merged, site_bps, url_on_workers
from launchers.submission import StepRequest, SubmissionKey
from planning.partitions import data_query
from planning.pipeline import Sharding, Step
from planning.release import Release
from resources.site import Site


class StepConfig(dg.Config):
    """What one run may change about a step."""

    config: list[str] = Field([], description="overrides for this run only, each task:field=value")
    skip_existing: bool = Field(False, description="leave out what an earlier run of this release has made")
    rescue: bool = Field(False, description="do only what earlier attempts at the same partitions have left")
    causes: list[str] = Field(
        [], description="of a rescue: regular expressions, found in 'task: exception: message'; none: all that failed"
    )
    memory_mb: dict[str, int] = Field({}, description="what jobs of a task ask for in this run only, by task label")


UNCHANGED = StepConfig.model_validate({})
"""What a run changes that changes nothing."""


def work_of(
    site: Site, release: Release, step: Step, partitions: Sequence[str], config: StepConfig, run_id: str
) -> list[tuple[SubmissionKey, tuple[str, ...]]]:
    """Say what a run of a step is an attempt at: its partitions, or what a rescue's partitions were a part of.

    Parameters
    ----------
    site, release, step
        Where, what for, which.
    partitions
        Keys; empty for a step that runs whole.
    config
        What this run changes.
    run_id
        The Dagster run's.

    Returns
    -------
    work
        Each piece of work, and the partitions of it that the run does.

    Raises
    ------
    resources.errors.Rejected
        A partition is not of the step's kind.
    """
    asked = SubmissionKey(release.name, step.short, tuple(sorted(partitions)))
    data_query(release, step, partitions)  # before a folder is claimed for something that makes no sense
    if not config.rescue:
        return [(asked, asked.partitions)]
    return rescued_work(attempts_of(site.submissions, release.name, step.short), asked, run_id)


def request_for(
    site: Site,
    release: Release,
    step: Step,
    work: SubmissionKey,
    partitions: Sequence[str],
    config: StepConfig,
    run_id: str,
    quarantined: Sequence[Mapping[str, int | str]] = (),
    others: Others | None = None,
) -> StepRequest:
    """Claim an attempt at a piece of work for a run, and write its request.

    Parameters
    ----------
    site, release, step
        Where, what for, which.
    work, partitions
        See `work_of`.
    config
        What this run changes.
    run_id
        The Dagster run's, which makes a resumed run find its own submission.
    quarantined
        Parts of data IDs that the release leaves out.
    others
        What is known of the runs before it.

    Raises
    ------
    resources.errors.Rejected
        See `launchers.claiming.claim_attempt`.
    """
    request = request_at(site, release, step, work, site.submissions, config, quarantined)
    request = dataclasses.replace(request, data_query=data_query(release, step, partitions))
    asked = request.asked(*(["rescue", *config.causes] if config.rescue else []))
    key, folder = claim_attempt(site.submissions, work, run_id, is_rescue=config.rescue, asked=asked, others=others)
    return dataclasses.replace(request, key=key, folder=folder)


def request_at(
    site: Site,
    release: Release,
    step: Step,
    key: SubmissionKey,
    folder: Path,
    config: StepConfig,
    quarantined: Sequence[Mapping[str, int | str]] = (),
) -> StepRequest:
    """Write the request of one attempt at all partitions of its work.

    Parameters
    ----------
    site, release, step
        Where, what for, which.
    key, folder
        The attempt's.
    config
        What its run changes.
    quarantined
        Parts of data IDs that the release leaves out.
    """
    settings = release.settings(step)
    return StepRequest(
        key=key,
        butler=site.butler.repository,
        pipeline=f"{release.pipeline}#{step.label}",
        input_collections=(release.chain,),
        output_chain=release.chain,
        data_query=data_query(release, step, key.partitions),
        folder=folder,
        partition_dimension=None if step.sharding is Sharding.WHOLE else step.sharding.value,
        config_overrides=(*settings.config, *config.config),
        skip_existing_in=(release.chain,) if config.skip_existing or config.rescue else (),
        bps=with_memory(merged(site_bps(site.wms), merged(_butler_on_workers(site), settings.bps)), config.memory_mb),
        quarantined=tuple(quarantined),
    )


def _butler_on_workers(site: Site) -> dict[str, Any]:
    seen = url_on_workers(site.butler.repository, site.wms.urls)
    return {} if seen == site.butler.repository else {"payload": {"butlerConfig": seen}}
