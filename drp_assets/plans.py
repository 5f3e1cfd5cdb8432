"""The plan of a release's pipeline, without paying for its imports each time definitions load.

Belongs here: choosing between an exported plan and one built now, and keeping what was built. Doesn't: what a plan is
(`planning.pipeline`).
"""

from __future__ import annotations

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
        The pipeline or the exported plan is wrong.
    """
    if release.plan is not None:
        return read_plan(release.plan)
    pipeline = Path(release.pipeline)
    if not pipeline.is_file():
        return build_plan(release.pipeline)
    kept = cache / f"{pipeline.stem}-{plan_digest(pipeline)}.json"
    if kept.is_file():
        return read_plan(kept)
    plan = build_plan(release.pipeline)
    cache.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial")
    partial.write_text(plan.model_dump_json(indent=1))
    partial.replace(kept)
    return plan
