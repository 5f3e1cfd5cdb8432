"""Partitions of a step's work, and the data query that names them to the Butler.

Belongs here: pure functions from (release, step, partitions) to Butler expressions, and which partitions may run.
Doesn't: Dagster's partition definitions (`drp_assets.partitions`), asking the Butler anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from planning.pipeline import Sharding, Step
from planning.release import Release
from resources.errors import Rejected


def quote(text: str) -> str:
    """Quote a value for a Butler expression.

    Parameters
    ----------
    text
        Any text without a quote; names of instruments and skymaps have none.

    Raises
    ------
    resources.errors.Rejected
        It holds a quote, which no Butler name may.
    """
    if "'" in text:
        raise Rejected(f"{text!r} can't be part of a data query", "release", "remove the quote")
    return f"'{text}'"


def data_query(release: Release, step: Step, partitions: Sequence[str]) -> str:
    """Write the Butler expression that selects a step's partitions.

    Parameters
    ----------
    release
        Gives instrument, skymap and this site's tracts.
    step
        Its sharding says what the partitions are.
    partitions
        Keys: day_obs as YYYYMMDD, tract numbers; ignored for a step that runs whole.

    Raises
    ------
    resources.errors.Rejected
        A key is not a number, or none is given.
    """
    terms = [f"instrument = {quote(release.instrument)}"]
    if step.needs_skymap:
        terms.append(f"skymap = {quote(release.skymap)}")
    if step.sharding is not Sharding.WHOLE:
        terms.append(f"{step.sharding.value} IN ({', '.join(map(str, _numbers(step, partitions)))})")
    elif step.needs_skymap and release.tracts:
        terms.append(f"tract IN ({', '.join(map(str, release.tracts))})")
    return " AND ".join(terms)


def ready(
    wanted: Iterable[str],
    needs: Mapping[str, frozenset[str]],
    done: frozenset[str],
) -> frozenset[str]:
    """Say which partitions may run: those that need something, all of which is done.

    Parameters
    ----------
    wanted
        Partitions of a step.
    needs
        For each, the partitions of another sharding that overlap it on the sky. One that overlaps nothing isn't ready:
        nothing of it has come.
    done
        The other sharding's finished partitions.
    """
    return frozenset(key for key in wanted if needs.get(key) and needs[key] <= done)


def _numbers(step: Step, partitions: Sequence[str]) -> list[int]:
    if not partitions:
        raise Rejected("no partition is named", step.label, f"name one or more {step.sharding.value}")
    try:
        return sorted(int(key) for key in partitions)
    except ValueError as error:
        raise Rejected(f"not a {step.sharding.value}: {error}", step.label, "partition keys are numbers") from error
