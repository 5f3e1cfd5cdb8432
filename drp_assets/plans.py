"""The plan of a release's pipeline, without paying for its imports each time definitions load.

Belongs here: choosing between an exported plan and one built now, and keeping what was built. Doesn't: what a plan is
(`planning.pipeline`).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from planning.pipeline import PipelinePlan, build_plan, plan_digest, read_plan
from planning.release import Release


def plan_of(release: Release, cache: Path) -> PipelinePlan:
    """Give the plan of a release's pipeline.

    Parameters
    ----------
    release
        A release that names an exported plan gets that one.
    cache
        Folder of plans built before, each named by all it depends on, so that none is ever stale.

    Raises
    ------
    resources.errors.Rejected
        The pipeline or the exported plan is wrong, or the release names steps or tasks that it doesn't have.
    """
    plan = read_plan(release.plan) if release.plan is not None else _built(release.pipeline, cache)
    release.check_against(plan)
    return plan


def code_version_of(release: Release, plan: PipelinePlan) -> str:
    """Name the version of the code that makes a release's products.

    Parameters
    ----------
    release, plan
        Of which.
    """
    pipeline = Path(release.pipeline)
    return (plan_digest(pipeline) if pipeline.is_file() else None) or plan.digest


def _built(uri: str, cache: Path) -> PipelinePlan:
    pipeline = Path(uri)
    digest = plan_digest(pipeline) if pipeline.is_file() else None
    if digest is None:
        return build_plan(uri)
    kept = cache / f"{pipeline.stem}-{digest}.json"
    if kept.is_file():
        return read_plan(kept)
    plan = build_plan(uri)
    with suppress(OSError):  # who may not write there builds it each time
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_text(plan.model_dump_json(indent=1))
        partial.replace(kept)
    return plan
