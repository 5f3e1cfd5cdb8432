"""Measurements of merit, as the pipeline's validation step left them in the Butler.

Belongs here: reading metric tables from a release's chain, and combining the tracts' rows into one a release.
Doesn't: computing a metric (the validation step's tasks), or judging it (`validation.scorecard`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from planning.release import Threshold
from validation.thresholds import badness

if TYPE_CHECKING:
    from astropy.table import Table
    from lsst.daf.butler import Butler

METRIC_TABLES = ("calibration_metrics", "object_metrics", "truth_metrics")
"""Dataset types whose rows are metric, band, value, unit, n, measurable, detail."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric in one band of one tract.

    Parameters
    ----------
    metric
        Its name, such as PA1.
    band
        Lower case; empty where the metric has none.
    value
        None where it couldn't be measured.
    unit
        Of the value; empty for a pure number.
    n
        How many stars, pairs or objects it comes from.
    detail
        How it was measured, or why it couldn't be.
    tract
        None for the whole release.
    """

    metric: str
    band: str
    value: float | None
    unit: str = ""
    n: int = 0
    detail: str = ""
    tract: int | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)


class Combination(StrEnum):
    """How the tracts' values of a metric become the release's."""

    WORST = "worst"
    MEDIAN = "median"


def measurements_of(table: Table, tract: int | None = None) -> tuple[Measurement, ...]:
    """Turn a metric table's rows into values.

    Parameters
    ----------
    table
        Columns metric, band, value, unit, n, measurable, detail.
    tract
        The tract it is about.

    Returns
    -------
    tuple of Measurement
        In the table's order; a row that isn't measurable has no value, whatever its number says.
    """
    return tuple(
        Measurement(
            metric=str(row["metric"]),
            band=str(row["band"]),
            value=float(row["value"]) if row["measurable"] else None,
            unit=str(row["unit"]),
            n=int(row["n"]),
            detail=str(row["detail"]),
            tract=tract,
        )
        for row in table
    )


def read_metrics(
    butler: Butler,
    collections: str | Sequence[str],
    *,
    tracts: Collection[int] | None = None,
    skymap: str | None = None,
    tables: Sequence[str] = METRIC_TABLES,
) -> tuple[Measurement, ...]:
    """Read the metrics of a release.

    Parameters
    ----------
    butler
        Of the repository.
    collections
        The release's chain, or whatever is searched, first found first.
    tracts
        Only these; every tract that has metrics if None.
    skymap
        Only this skymap's; any if None.
    tables
        Dataset types of the metric tables; one that isn't there yet has no rows.

    Returns
    -------
    tuple of Measurement
        By table, tract, and the table's order.
    """
    from lsst.daf.butler import MissingDatasetTypeError

    measurements: list[Measurement] = []
    for name in tables:
        try:
            found = butler.query_datasets(name, collections=collections, explain=False, limit=None)
        except MissingDatasetTypeError:
            continue
        wanted = [
            ref
            for ref in found
            if (tracts is None or ref.dataId["tract"] in tracts) and (skymap is None or ref.dataId["skymap"] == skymap)
        ]
        for ref in sorted(wanted, key=lambda ref: int(ref.dataId["tract"])):
            measurements += measurements_of(butler.get(ref), int(ref.dataId["tract"]))
    return tuple(measurements)


def combine(
    measurements: Iterable[Measurement],
    thresholds: Iterable[Threshold] = (),
    how: Combination = Combination.WORST,
) -> tuple[Measurement, ...]:
    """Make one measurement a metric and band out of those of many tracts.

    Parameters
    ----------
    measurements
        Of any number of tracts.
    thresholds
        They tell which end is the worse one; a metric without any is taken by its median.
    how
        The worst tract, or the tracts' median.

    Returns
    -------
    tuple of Measurement
        With no tract; n summed; the detail says which tract it was and how many couldn't measure it. In the order in
        which metrics appear. A metric is measurable if any tract could measure it.
    """
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.metric, measurement.band, measurement.unit), []).append(measurement)
    # A tract that couldn't measure may not have known the unit either: it joins those that did.
    for metric, band, unit in [key for key in groups if not key[2]]:
        others = [key for key in groups if key[:2] == (metric, band) and key[2]]
        if others and all(m.value is None for m in groups[metric, band, unit]):
            groups[others[0]] += groups.pop((metric, band, unit))
    rules = _rules(thresholds)
    return tuple(
        _combine_one(group, rules.get((metric, band), rules.get((metric, ""))), how, unit)
        for (metric, band, unit), group in groups.items()
    )


def _rules(thresholds: Iterable[Threshold]) -> Mapping[tuple[str, str], Threshold]:
    return {(t.metric, band): t for t in thresholds for band in t.bands or ("",)}


def _combine_one(group: list[Measurement], rule: Threshold | None, how: Combination, unit: str) -> Measurement:
    first = group[0]
    tracts = len({m.tract for m in group})
    measured = [(m.value, m) for m in group if m.value is not None]
    n = sum(m.n for _, m in measured)
    if tracts == 1 and len(group) == 1:
        return Measurement(first.metric, first.band, first.value, unit, first.n, first.detail)
    if not measured:
        return Measurement(first.metric, first.band, None, unit, 0, f"{first.detail} (all {tracts} tracts)".strip())
    lacking = len(group) - len(measured)
    shortfall = f"; not measurable in {lacking}" if lacking else ""
    if how is Combination.MEDIAN or rule is None:
        value = statistics.median(value for value, _ in measured)
        return Measurement(first.metric, first.band, value, unit, n, f"median of {len(measured)} tracts{shortfall}")
    value, worst = max(measured, key=lambda pair: badness(rule, pair[0]))
    detail = f"worst of {len(measured)} tracts: {worst.tract}{shortfall}" + (
        f"; {worst.detail}" if worst.detail else ""
    )
    return Measurement(first.metric, first.band, value, unit, n, detail)
