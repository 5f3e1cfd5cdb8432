"""Rescues from the UI: a job a step, to be launched with the partitions that a rescue is wanted for.

Belongs here: those jobs. Doesn't: what a rescue does (`launchers.rescue`), or the same from the command line
(`commands.rescue`).
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from drp_assets.keys import product_assets
from planning.pipeline import Step
from planning.release import Release


def build_rescue_jobs(release: Release, steps: Iterable[Step]) -> list[dg.UnresolvedAssetJobDefinition]:
    """Build the jobs that do again what failed, and nothing else.

    Parameters
    ----------
    release
        Its assets.
    steps
        Those that it runs.
    """
    return [
        dg.define_asset_job(
            f"rescue_{step.short}",
            selection=dg.AssetSelection.assets(*(asset.key for asset in product_assets(release, step))),
            config={"ops": {f"{release.name}__{step.short}": {"config": {"rescue": True}}}},
            tags={"drp/rescue": step.short},
            description=f"Does what earlier attempts at {step.label} have left, and nothing else. "
            "With `causes` in the launchpad only what failed for these, with `memory_mb` in more memory.",
        )
        for step in steps
    ]
