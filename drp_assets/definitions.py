"""Table of contents of the code locations: the site's, and one for each release.

Belongs here: which definitions make up a location. Doesn't: how any of them works. Loading reads the site profile, the
release files and their pipelines' plans, and touches no service.
"""

from __future__ import annotations

import functools
from pathlib import Path

import dagster as dg

from drp_assets.arrival_checks import ARRIVALS, build_arrival_checks
from drp_assets.automation import automation_sensor
from drp_assets.inputs import build_inputs
from drp_assets.keys import RAW, SITE_PRODUCTS
from drp_assets.partitions import SITE_DAY_OBS
from drp_assets.plans import code_version_of, plan_of
from drp_assets.raws import build_site_assets
from drp_assets.rescue import build_rescue_jobs
from drp_assets.scorecard import build_scorecard
from drp_assets.steps import build_step
from drp_assets.transfers import TRANSFER_DAYS, TRANSFERS, build_transfers
from planning.release import Release, read_release
from resources.site import Site, read_site
from sensors.arrivals import build_arrivals_sensor
from sensors.failures import build_failure_sensor
from sensors.transfers import build_transfers_sensor

RELEASES = Path(__file__).parent.parent / "releases"


def build_site_definitions(profile: Site) -> dg.Definitions:
    """Build what all releases share: what arrives.

    Parameters
    ----------
    profile
        The site.
    """
    return dg.Definitions(
        assets=[*build_site_assets(profile), build_transfers(profile)],
        asset_checks=[build_arrival_checks(profile)],
        sensors=[
            build_arrivals_sensor(profile, RAW, SITE_PRODUCTS, ARRIVALS, SITE_DAY_OBS),
            build_transfers_sensor(profile, TRANSFERS, TRANSFER_DAYS),
            build_failure_sensor(profile),
        ],
        executor=dg.in_process_executor,
    )


def build_release_definitions(profile: Site, release: Release) -> dg.Definitions:
    """Build one release: its inputs, its steps, its scorecard, and what starts them.

    Parameters
    ----------
    profile
        The site.
    release
        The release.
    """
    plan = plan_of(release, profile.state / "plans")
    code_version = code_version_of(release, plan)
    steps = [step for step in plan.steps if release.settings(step).enabled]
    return dg.Definitions(
        assets=[
            dg.AssetSpec(RAW, partitions_def=SITE_DAY_OBS, description="Raws at this site, of all releases."),
            dg.AssetSpec(SITE_PRODUCTS, description="Calibrations and other products at this site, of all releases."),
            build_inputs(profile, release),
            *(build_step(profile, release, plan, step, code_version) for step in steps),
            build_scorecard(profile, release, plan),
        ],
        jobs=build_rescue_jobs(release, steps),
        sensors=[automation_sensor(profile, release)],
        executor=dg.in_process_executor,
    )


@functools.cache
def __getattr__(name: str) -> dg.Definitions:
    """Build a location when it is asked for: ``site``, or a release by its name."""
    if name == "site":
        return build_site_definitions(read_site())
    path = RELEASES / f"{name}.yaml"
    if not path.is_file():
        raise AttributeError(f"module {__name__!r} has no location {name!r}: no {path}")
    return build_release_definitions(read_site(), read_release(path))
