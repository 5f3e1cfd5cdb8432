"""Dagster's view of partitions: day_obs, a release's tracts, or none.

Belongs here: partition definitions and the mappings between them. Doesn't: what a partition means to the Butler
(`planning.partitions`).
"""

from __future__ import annotations

import datetime as dt

import dagster as dg

from planning.pipeline import Sharding
from planning.release import Release, parse_day_obs

DAY_OBS_FORMAT = "%Y%m%d"
_ROLLOVER_HOUR = 12
"""A day_obs begins at 12:00 (TAI, which UTC serves for here)."""

SITE_DAY_OBS = dg.DailyPartitionsDefinition(
    "20250601", fmt=DAY_OBS_FORMAT, hour_offset=_ROLLOVER_HOUR, end_offset=1, timezone="UTC"
)
"""Every day_obs since the survey's first light, including the one now under way."""


def day_obs_partitions(release: Release) -> dg.DailyPartitionsDefinition:
    """Give the day_obs that a release is made from.

    Parameters
    ----------
    release
        Its `inputs` name the range and the day_obs without data.
    """
    # A window that ends after the end date is left out: two days beyond the last one's start take it in.
    end = parse_day_obs(release.inputs.last_day_obs) + dt.timedelta(days=2)
    noon = dt.time(_ROLLOVER_HOUR)
    return dg.DailyPartitionsDefinition(
        str(release.inputs.first_day_obs),
        end_date=f"{end:{DAY_OBS_FORMAT}}",
        fmt=DAY_OBS_FORMAT,
        hour_offset=_ROLLOVER_HOUR,
        timezone="UTC",
        exclusions=[dt.datetime.combine(parse_day_obs(d), noon) for d in release.inputs.without_data] or None,
    )


def tract_partitions(release: Release) -> dg.DynamicPartitionsDefinition:
    """Give a release's tracts, which are added as visits that overlap them arrive.

    Parameters
    ----------
    release
        Its name makes the partitions' name.
    """
    return dg.DynamicPartitionsDefinition(name=f"{release.name}_tract")


def partitions_of(release: Release, sharding: Sharding) -> dg.PartitionsDefinition | None:
    """Give the partitions of the steps of one sharding.

    Parameters
    ----------
    release
        The release.
    sharding
        How the step's work is divided.
    """
    match sharding:
        case Sharding.DAY_OBS:
            return day_obs_partitions(release)
        case Sharding.TRACT:
            return tract_partitions(release)
        case Sharding.WHOLE:
            return None


def mapping_between(upstream: Sharding, downstream: Sharding) -> dg.PartitionMapping | None:
    """Say which upstream partitions a downstream one depends on.

    Between day_obs and tract the sky decides, which `drp_assets.automation` asks the Butler: for the lineage it is all.

    Parameters
    ----------
    upstream, downstream
        The two steps' shardings.
    """
    if upstream is downstream or Sharding.WHOLE in (upstream, downstream):
        return None
    return dg.AllPartitionMapping()


def crosses(upstream: Sharding, downstream: Sharding) -> bool:
    """Say whether only the Butler knows which upstream partitions are needed: visits decide which tracts there are.

    Parameters
    ----------
    upstream, downstream
        The two steps' shardings.
    """
    return upstream is not downstream and Sharding.TRACT in (upstream, downstream) and upstream is not Sharding.WHOLE
