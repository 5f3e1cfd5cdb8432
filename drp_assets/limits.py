"""How much runs at a time: the site profile's limits, as Dagster's own queue and pools hold them.

Belongs here: names and sizes of pools, and the ``concurrency`` of ``dagster.yaml``. Doesn't: queueing (Dagster), or how
many jobs a submission has at a time (the batch system's).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from launchers.run_coordinator import RELEASE_TAG
from planning.pipeline import Step
from planning.release import Release
from resources.errors import Rejected
from resources.site import RunLimits


def pool_of(release: Release, step: Step) -> str:
    """Name the pool in which the runs of a step are counted.

    Parameters
    ----------
    release, step
        Of which.
    """
    return f"{release.name}/{step.short}"


def pool_limits(limits: RunLimits, release: Release, steps: Iterable[Step]) -> dict[str, int]:
    """Give the size of each step's pool.

    Parameters
    ----------
    limits
        The site's.
    release, steps
        Of which.
    """
    return {pool_of(release, step): limits.steps.get(step.short, limits.step) for step in steps}


def concurrency(limits: RunLimits, template: Any, where: str = "dagster.yaml") -> dict[str, Any]:
    """Give the ``concurrency`` of a site's ``dagster.yaml``.

    Parameters
    ----------
    limits
        The site's.
    template
        What the project's ``dagster.yaml`` says; limits of other tags stay as they are.
    where
        That file.

    Raises
    ------
    resources.errors.Rejected
        Dagster wouldn't understand it.
    """
    template = _holding(dict, template, f"{where}: concurrency")
    runs = _holding(dict, template.get("runs"), f"{where}: concurrency.runs")
    place = f"{where}: concurrency.runs.tag_concurrency_limits"
    tagged = [_holding(dict, each, place) for each in _holding(list, runs.get("tag_concurrency_limits"), place)]
    if any("key" not in each for each in tagged):
        raise Rejected("a limit has no key", place, "say which tag it limits")
    others = [each for each in tagged if each["key"] != RELEASE_TAG]
    by_release = {"key": RELEASE_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": limits.release}
    return {
        **template,
        "runs": {**runs, "max_concurrent_runs": limits.site, "tag_concurrency_limits": [by_release, *others]},
        # A run waits in the queue, not in a worker that does nothing.
        "pools": {"granularity": "run", "default_limit": limits.step},
    }


def _holding[K: (dict[str, Any], list[Any])](kind: type[K], value: Any, where: str) -> K:
    """Give what is under a key, where nothing is as good as nothing in it."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise Rejected(f"is no {'list' if kind is list else 'mapping'}: {value!r}", where, "correct it")
    return value


def set_pool_limits(instance: dg.DagsterInstance, limits: Mapping[str, int]) -> None:
    """Write the sizes of pools into Dagster's storage, where the UI shows them.

    Parameters
    ----------
    instance
        The site's.
    limits
        By pool.
    """
    for pool, limit in limits.items():
        instance.event_log_storage.set_concurrency_slots(pool, limit)
