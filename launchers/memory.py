"""Memory of a task's jobs: what they ask for, may have and have tried, as BPS reads it from its settings.

Belongs here: reading and changing those settings, as functions of values. Doesn't: deciding who gets more
(`planning.policies`), or writing a submission's settings (`launchers.bps`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from launchers.job_ends import OUT_OF_MEMORY
from launchers.outcome import LOST, QuantumFailure

DEFAULT_MEMORY_MB = 2048
"""What ctrl_bps asks for where nothing is said."""

DEFAULT_LIMIT_MB = 491_520
"""What ctrl_bps takes for the largest node where nothing is said (``memoryLimit``)."""

_DEFAULT_MULTIPLIER = 2.0
"""By what ctrl_bps multiplies the memory of a job that ran out of it where nothing is said (``memoryMultiplier``)."""


def memory_of(bps: Mapping[str, Any], task: str) -> int:
    """Give the memory that a task's jobs ask for at first, in MB.

    Parameters
    ----------
    bps
        BPS settings.
    task
        Task label.
    """
    return int(_setting(bps, task, "requestMemory", DEFAULT_MEMORY_MB))


def limit_of(bps: Mapping[str, Any], task: str) -> int:
    """Give the most memory that a task's jobs may ask for, in MB.

    Parameters
    ----------
    bps
        BPS settings.
    task
        Task label.
    """
    limits = (("memoryLimit", DEFAULT_LIMIT_MB), ("requestMemoryMax", math.inf))
    return int(min(float(_setting(bps, task, key, default)) for key, default in limits))


def memory_tried(bps: Mapping[str, Any], failure: QuantumFailure) -> int:
    """Give the most memory that a failed quantum's jobs have asked for, in MB: BPS grants more to what ran out of it.

    Parameters
    ----------
    bps
        BPS settings.
    failure
        What failed.
    """
    first = memory_of(bps, failure.task)
    # A job that could say why it failed isn't tried again with more, nor one of which its batch system knows better.
    if failure.exception != LOST or (failure.node and not failure.message.startswith(OUT_OF_MEMORY)):
        return first
    multiplier = float(_setting(bps, failure.task, "memoryMultiplier", _DEFAULT_MULTIPLIER))
    retries = int(_setting(bps, failure.task, "numberOfRetries", 0))
    return max(first, min(int(first * max(multiplier, 1.0) ** retries), limit_of(bps, failure.task)))


def with_memory(bps: Mapping[str, Any], memory_mb: Mapping[str, int]) -> dict[str, Any]:
    """Give BPS settings in which some tasks ask for more memory, and may have it, and the clusters that they are in.

    Parameters
    ----------
    bps
        BPS settings.
    memory_mb
        By task label.
    """
    pipetasks = {label: dict(settings) for label, settings in bps.get("pipetask", {}).items()}
    clusters = {label: dict(settings) for label, settings in bps.get("cluster", {}).items()}
    for task, asked in memory_mb.items():
        pipetasks.setdefault(task, {})["requestMemory"] = asked
        if int(_setting(bps, task, "requestMemoryMax", asked)) < asked:
            pipetasks[task]["requestMemoryMax"] = asked
        for label, _ in _clusters_with(bps, task):
            for key in {"requestMemory", "requestMemoryMax"} & clusters[label].keys():
                clusters[label][key] = max(asked, int(clusters[label][key]))
    changed: dict[str, Any] = dict(bps)
    if pipetasks:
        changed["pipetask"] = pipetasks
    if clusters:
        changed["cluster"] = clusters
    return changed


def _setting(bps: Mapping[str, Any], task: str, key: str, default: Any) -> Any:
    """Read a setting of a task's jobs where BPS reads it."""
    places = [
        *(cluster for _, cluster in _clusters_with(bps, task)),
        bps.get("pipetask", {}).get(task, {}),
        bps.get("site", {}).get(bps.get("computeSite"), {}),
        bps,
    ]
    return next((place[key] for place in places if key in place), default)


def _clusters_with(bps: Mapping[str, Any], task: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (label, settings)
        for label, settings in bps.get("cluster", {}).items()
        if task in re.split(r"\s*,\s*", settings.get("pipetasks", ""))
    ]
