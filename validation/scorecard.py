"""The scorecard: every threshold of a release beside what was measured, and the verdict.

Belongs here: the decision from a standing to a verdict (one table), the overall verdict, JSON in and out. Pure.
Doesn't: reading metrics (`validation.metrics`), judging a number (`validation.thresholds`), tables for people
(`validation.rendering`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError

from planning.release import Threshold, Waiver
from resources.errors import Rejected
from validation.bands import bands_in
from validation.metrics import Measurement
from validation.thresholds import Limit, Standing, standing_of


class Verdict(StrEnum):
    """What the scorecard says about a requirement, and about a release."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    NOT_MEASURABLE = "not measurable"
    WAIVED = "waived"


VERDICTS: Mapping[tuple[Standing, bool], Verdict] = MappingProxyType(
    {
        (Standing.MEETS_DESIGN, False): Verdict.PASSED,
        (Standing.MEETS_DESIGN, True): Verdict.PASSED,
        (Standing.MEETS_MINIMUM, False): Verdict.WARNED,
        (Standing.MEETS_MINIMUM, True): Verdict.WARNED,
        (Standing.MISSES_MINIMUM, False): Verdict.FAILED,
        (Standing.MISSES_MINIMUM, True): Verdict.WAIVED,
        (Standing.NOT_MEASURABLE, False): Verdict.NOT_MEASURABLE,
        (Standing.NOT_MEASURABLE, True): Verdict.NOT_MEASURABLE,
        (Standing.UNREPORTED, False): Verdict.NOT_MEASURABLE,
        (Standing.UNREPORTED, True): Verdict.NOT_MEASURABLE,
    }
)
"""The verdict from (standing, whether somebody waived the threshold): a waiver excuses a failure and nothing else."""

HOLDS: frozenset[Standing] = frozenset({Standing.MISSES_MINIMUM, Standing.UNREPORTED})
"""Standings with which a blocking threshold that nobody waived holds what depends on it. That the data can't tell
(NOT_MEASURABLE, said by the task that tried) doesn't; that nobody tried (UNREPORTED) does."""


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement in one band."""

    metric: str
    band: str
    value: float | None
    unit: str
    kind: str
    design: float | None
    minimum: Limit
    standing: Standing
    verdict: Verdict
    blocking: bool
    n: int
    detail: str
    source: str
    waiver: Waiver | None = None

    @property
    def holds(self) -> bool:
        """Whether it stops what depends on it."""
        return self.blocking and self.waiver is None and self.standing in HOLDS

    @property
    def label(self) -> str:
        """Metric and band, as in ``PA1 r``."""
        return f"{self.metric} {self.band}".strip()


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What a release, or a tract of it, was found to be.

    Parameters
    ----------
    scope
        What is judged, such as ``demo`` or ``demo, tract 0``.
    rows
        One a threshold and band, in the release file's order.
    unjudged
        What was measured and has no threshold.
    """

    scope: str
    rows: tuple[Row, ...]
    unjudged: tuple[Measurement, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The overall verdict.

        FAILED if a blocking row holds; NOT_MEASURABLE if nothing at all was measured; PASSED if every row is; WARNED
        otherwise: something informative failed, is waived, misses its design or couldn't be measured.
        """
        if self.holding:
            return Verdict.FAILED
        if all(row.verdict is Verdict.NOT_MEASURABLE for row in self.rows):
            return Verdict.NOT_MEASURABLE
        if all(row.verdict is Verdict.PASSED for row in self.rows):
            return Verdict.PASSED
        return Verdict.WARNED

    @property
    def holding(self) -> tuple[Row, ...]:
        """The rows that stop what depends on this."""
        return tuple(row for row in self.rows if row.holds)

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """How many rows have each verdict, zero included."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in Verdict}

    @property
    def summary(self) -> str:
        """One line: ``warned: 17 passed, 2 warned, 1 not measurable``."""
        parts = [f"{count} {verdict}" for verdict, count in self.counts.items() if count]
        return f"{self.verdict}: {', '.join(parts) or 'no thresholds'}"

    def to_json(self) -> str:
        """Write it as JSON that `from_json` reads back to the same value."""
        return _ADAPTER.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str, where: str = "scorecard") -> Scorecard:
        """Read what `to_json` wrote.

        Parameters
        ----------
        text
            JSON.
        where
            The file it comes from, for the message.

        Raises
        ------
        resources.errors.Rejected
            It isn't a scorecard.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise Rejected(f"is not a scorecard: {first['msg']}", f"{where}: {key}", "make it anew") from error


_ADAPTER = TypeAdapter(Scorecard)


def judge(thresholds: Sequence[Threshold], measurements: Iterable[Measurement], scope: str) -> Scorecard:
    """Compare what was measured with what is required.

    Parameters
    ----------
    thresholds
        Of the release. One that names bands gets a row for each of them; one that names none, a row for each band in
        which the metric was reported.
    measurements
        One a metric and band: a tract's, or `validation.metrics.combine`'s.
    scope
        What is judged.

    Returns
    -------
    Scorecard
        A threshold nobody reported a measurement for has a row that is not measurable; so has one whose unit isn't the
        measurement's.

    Raises
    ------
    resources.errors.Rejected
        A metric and band was given twice: tracts have to be combined first.
    """
    by_metric: dict[str, dict[str, Measurement]] = {}
    for measurement in measurements:
        bands = by_metric.setdefault(measurement.metric, {})
        if measurement.band in bands:
            raise Rejected(f"{measurement.metric} {measurement.band} measured twice", scope, "combine the tracts first")
        bands[measurement.band] = measurement
    named = {(t.metric, band) for t in thresholds for band in t.bands}
    rows = []
    for threshold in thresholds:
        bands = by_metric.get(threshold.metric, {})
        # A threshold for any band leaves out those that have one of their own.
        wanted = threshold.bands or bands_in(band for band in bands if (threshold.metric, band) not in named)
        if not wanted and not bands:
            wanted = ("",)
        rows += [_row(threshold, band, bands.get(band)) for band in wanted]
    judged = {(row.metric, row.band) for row in rows}
    unjudged = [m for bands in by_metric.values() for m in bands.values() if (m.metric, m.band) not in judged]
    return Scorecard(scope, tuple(rows), tuple(unjudged))


def _row(threshold: Threshold, band: str, measurement: Measurement | None) -> Row:
    value = None if measurement is None else measurement.value
    unit = threshold.unit or (measurement.unit if measurement else "")
    detail = measurement.detail if measurement else "nobody measured it"
    standing = standing_of(threshold, value) if measurement else Standing.UNREPORTED
    if measurement and value is not None and measurement.unit != unit:
        standing, value = Standing.UNREPORTED, None
        detail = f"measured in {measurement.unit or 'no unit'}, required in {unit}"
    return Row(
        metric=threshold.metric,
        band=band,
        value=value,
        unit=unit,
        kind=threshold.kind,
        design=threshold.design,
        minimum=threshold.minimum,
        standing=standing,
        verdict=VERDICTS[standing, threshold.waiver is not None],
        blocking=threshold.blocking,
        n=measurement.n if measurement else 0,
        detail=detail,
        source=threshold.source,
        waiver=threshold.waiver,
    )
