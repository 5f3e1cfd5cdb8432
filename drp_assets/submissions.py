"""From a run of a step's asset to the request that the launchers carry out.

Belongs here: which attempt a run is, and the request's content from site profile, release and plan. Doesn't: carrying
it out (`launchers`), telling Dagster what came of it (`drp_assets.reporting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from pydantic import Field

from launchers.submission import StepRequest, SubmissionKey
from planning.partitions import data_query
from planning.pipeline import Sharding, Step
from planning.release import Release
from resources.site import Site

_CLAIM = "dagster_run"


class StepConfig(dg.Config):
    """What one run may change about a step."""

    config: list[str] = Field([], description="overrides for this run only, each task:field=value")
    skip_existing: bool = Field(False, description="leave out what an earlier run of this release has made")


def claim_attempt(submissions: Path, first: SubmissionKey, run_id: str) -> tuple[SubmissionKey, Path]:
    """Find which attempt at the same work a run is: its own again when it resumes, else the next free one.

    Parameters
    ----------
    submissions
        Folder of all submissions at this site.
    first
        The work, as attempt 1.
    run_id
        The Dagster run's.

    Returns
    -------
    key
        The same work with this run's attempt.
    folder
        The submission's own folder, which now exists.
    """
    attempt = first.attempt
    while True:
        key = SubmissionKey(first.release, first.step, first.partitions, attempt)
        folder = submissions / key.release / key.name
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            claim = folder / _CLAIM
            if claim.is_file() and claim.read_text() == run_id:
                return key, folder
            attempt += 1
        else:
            (folder / _CLAIM).write_text(run_id)
            return key, folder


def request_for(
    site: Site, release: Release, step: Step, partitions: Sequence[str], config: StepConfig, run_id: str
) -> StepRequest:
    """Write the request of one run of a step.

    Parameters
    ----------
    site, release, step
        Where, what for, which.
    partitions
        Keys; empty for a step that runs whole.
    config
        What this run changes.
    run_id
        The Dagster run's, which makes a resumed run find its own submission.

    Raises
    ------
    resources.errors.Rejected
        A partition is not of the step's kind.
    """
    first = SubmissionKey(release.name, step.short, tuple(sorted(partitions)))
    query = data_query(release, step, partitions)
    key, folder = claim_attempt(site.submissions, first, run_id)
    settings = release.settings(step.label)
    return StepRequest(
        key=key,
        butler=site.butler.repository,
        pipeline=f"{release.pipeline}#{step.label}",
        input_collections=(release.chain,),
        output_chain=release.chain,
        data_query=query,
        folder=folder,
        partition_dimension=None if step.sharding is Sharding.WHOLE else step.sharding.value,
        config_overrides=(*settings.config, *config.config),
        skip_existing_in=(release.chain,) if config.skip_existing else (),
        bps={
            "wmsServiceClass": site.wms.service,
            "computeSite": site.wms.compute_site,
            **site.wms.bps,
            **settings.bps,
        },
    )
