"""Judging a release that lies in a Butler: metrics read, combined, judged; figures drawn; the report written.

Belongs here: the few calls by which assets and commands use this room. Doesn't: anything these calls are made of.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsst.daf.butler import Butler

from planning.release import Release
from validation.comparison import Comparison, compare
from validation.counts import CheckResult
from validation.figures.index import FigureIndex
from validation.metrics import Combination, combine, read_metrics
from validation.products import count_products
from validation.provenance import read_provenance
from validation.report import FailedQuantum, Report, write_report
from validation.scorecard import Scorecard, judge
from validation.thresholds import check_thresholds


@dataclass(frozen=True, slots=True)
class Assessment:
    """A release's scorecard and those of its tracts."""

    scorecard: Scorecard
    tracts: Mapping[int, Scorecard]


def assess(
    butler: Butler,
    release: Release,
    *,
    collections: str | Sequence[str] | None = None,
    tracts: Collection[int] | None = None,
    how: Combination = Combination.WORST,
) -> Assessment:
    """Judge a release by the metrics in the Butler.

    Parameters
    ----------
    butler
        Of the repository.
    release
        Its specification, with the thresholds.
    collections
        Where the metrics are looked for; the release's chain if None.
    tracts
        Only these; every tract that has metrics if None. A tract that is named and has none gets a scorecard too.
    how
        How tracts make up the release.

    Raises
    ------
    resources.errors.Rejected
        The thresholds contradict themselves or each other.
    """
    thresholds = release.validation.thresholds
    check_thresholds(thresholds, f"releases/{release.name}.yaml")
    measured = read_metrics(butler, collections or release.chain, tracts=tracts, skymap=release.skymap)
    named = sorted({*(tracts or ()), *(m.tract for m in measured if m.tract is not None)})
    scope = collections if isinstance(collections, str) else release.name
    return Assessment(
        judge(thresholds, combine(measured, thresholds, how), scope),
        {t: judge(thresholds, [m for m in measured if m.tract == t], f"{scope}, tract {t}") for t in named},
    )


def compare_collections(butler: Butler, release: Release, before: str, after: str) -> Comparison:
    """Judge two collections by one release's thresholds, side by side.

    Parameters
    ----------
    butler
        Of the repository.
    release
        Its thresholds are applied to both.
    before, after
        Collections with metrics, such as the run before a reprocessing and the chain after it.
    """
    first = assess(butler, release, collections=before).scorecard
    return compare(first, assess(butler, release, collections=after).scorecard)


def draw_tract(
    butler: Butler, release: Release, tract: int, folder: Path, *, only: Collection[str] | None = None
) -> FigureIndex:
    """Draw the figures of one tract of a release.

    Parameters
    ----------
    butler
        Of the repository.
    release
        Its specification.
    tract
        Which tract.
    folder
        Of the pictures and their index.
    only
        Names of figures; all if None.
    """
    # matplotlib takes a second to import, which those who only judge needn't wait for.
    from validation.figures.registry import draw

    return draw(butler, release.chain, tract, folder, skymap=release.skymap, instrument=release.instrument, only=only)


def report_release(
    butler: Butler,
    release: Release,
    folder: Path,
    *,
    failures: Sequence[FailedQuantum] = (),
    checks: Sequence[CheckResult] = (),
    before: Scorecard | None = None,
    known_issues: Sequence[str] = (),
    figures: Sequence[tuple[str, FigureIndex]] | None = None,
    made_at: dt.datetime | None = None,
) -> Path:
    """Judge a release, draw its tracts unless that has been done, and write the report.

    Parameters
    ----------
    butler
        Of the repository.
    release
        Its specification.
    folder
        Of the report.
    failures, checks, known_issues
        To be listed.
    before
        Scorecard of another run or release, to compare with; `Scorecard.from_json` reads one from its report.
    figures
        Heading and index of each tract's figures; if None, those of every tract that has metrics are drawn into
        ``figures/tract<N>`` in the folder.
    made_at
        Shown as the report's time; now if None.

    Returns
    -------
    pathlib.Path
        The page to open.
    """
    assessment = assess(butler, release, tracts=release.tracts or None)
    if figures is None:
        places = {tract: folder / "figures" / f"tract{tract}" for tract in assessment.tracts}
        figures = [(f"Tract {tract}", draw_tract(butler, release, tract, place)) for tract, place in places.items()]
    report = Report(
        release=release.name,
        scorecard=assessment.scorecard,
        made_at=made_at or dt.datetime.now(dt.UTC),
        description=release.description,
        tracts=assessment.tracts,
        figures=figures,
        comparison=compare(before, assessment.scorecard) if before else None,
        failures=failures,
        products=count_products(butler, release.chain),
        checks=checks,
        provenance=read_provenance(butler, release.chain, release.pipeline),
        known_issues=known_issues,
    )
    return write_report(report, folder)
