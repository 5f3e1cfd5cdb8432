"""The release's scorecard: its metrics against its thresholds, with report and figures.

Belongs here: the asset ``<release>/scorecard`` and a check for each threshold. Doesn't: judging or drawing
(`validation`), or measuring (`drp_tasks`).
"""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from drp_assets.automation import when_ready
from drp_assets.events import log_check, log_materialization, one_line_failures, output_for
from drp_assets.keys import product_assets, scorecard_key
from drp_assets.pictures import figures_folder, link
from drp_assets.reporting import read_failures
from planning.pipeline import PipelinePlan
from planning.release import Release
from resources.butler import open_butler
from resources.site import Site
from validation.metrics import combine, read_metrics
from validation.products import count_products
from validation.provenance import read_provenance
from validation.rendering import scorecard_markdown, verdict_text
from validation.report import Report, write_report
from validation.scorecard import Row, Scorecard, Verdict, judge


def judge_release(site: Site, release: Release) -> Scorecard:
    """Judge a release by the metrics that its chain holds now.

    Parameters
    ----------
    site, release
        Where, what.
    """
    butler = open_butler(site.butler)
    measured = read_metrics(butler, release.chain, skymap=release.skymap, tracts=release.tracts or None)
    thresholds = release.validation.thresholds
    return judge(thresholds, combine(measured, thresholds), release.name)


def build_scorecard(site: Site, release: Release, plan: PipelinePlan) -> dg.AssetsDefinition:
    """Build the asset ``<release>/scorecard``.

    Parameters
    ----------
    site, release
        Where, what for.
    plan
        The scorecard waits for every step of it that nothing else waits for.
    """
    key = scorecard_key(release)
    names = list(dict.fromkeys(threshold.metric for threshold in release.validation.thresholds))
    checks = {
        name: dg.AssetCheckSpec(
            _check_name(name),
            asset=key,
            description=f"{name}: {', '.join(t.source for t in release.validation.thresholds if t.metric == name)}",
        )
        for name in names
    }

    @dg.multi_asset(
        name=f"{release.name}__scorecard",
        specs=[
            dg.AssetSpec(
                key,
                deps=_last_assets(release, plan),
                skippable=True,
                group_name="5_validation",
                kinds={"report"},
                owners=[release.owner],
                description="Whether the release is good: every metric against its threshold, with figures.",
                automation_condition=when_ready(),
            )
        ],
        check_specs=list(checks.values()),
    )
    def scorecard(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with one_line_failures():
            found = judge_release(site, release)
            report = _write_report(site, release, found)
        log_materialization(
            context,
            key,
            None,
            {
                "verdict": verdict_text(found.verdict),
                "scorecard": dg.MetadataValue.md(scorecard_markdown(found)),
                "report": link(site, report),
                **{f"rows {verdict}": count for verdict, count in found.counts.items()},
            },
        )
        for name, spec in checks.items():
            rows = [row for row in found.rows if row.metric == name]
            _log_rows(context, spec, rows)
            yield output_for(spec.key)

    return scorecard


def _write_report(site: Site, release: Release, found: Scorecard) -> Path:
    from validation.figures.registry import draw

    butler = open_butler(site.butler)
    measured = read_metrics(butler, release.chain, skymap=release.skymap, tracts=release.tracts or None)
    tracts = sorted({m.tract for m in measured if m.tract is not None})
    thresholds = release.validation.thresholds
    figures = [
        (
            f"tract {tract}",
            draw(
                butler,
                release.chain,
                tract,
                figures_folder(site, release, str(tract)),
                skymap=release.skymap,
                instrument=release.instrument,
            ),
        )
        for tract in tracts
    ]
    report = Report(
        release.name,
        found,
        dt.datetime.now(dt.UTC),
        release.description,
        tracts={t: judge(thresholds, [m for m in measured if m.tract == t], f"tract {t}") for t in tracts},
        figures=figures,
        failures=read_failures(site, release),
        products=count_products(butler, release.chain),
        provenance=read_provenance(butler, release.chain, Path(release.pipeline).name),
    )
    return write_report(report, site.reports / release.name)


def _log_rows(context: dg.AssetExecutionContext, spec: dg.AssetCheckSpec, rows: list[Row]) -> None:
    good = {Verdict.PASSED, Verdict.WARNED, Verdict.WAIVED}
    log_check(
        context,
        spec.asset_key,
        spec.name,
        None,
        passed=all(row.verdict in good for row in rows) and bool(rows),
        severity=dg.AssetCheckSeverity.ERROR if any(row.holds for row in rows) else dg.AssetCheckSeverity.WARN,
        metadata={f"{row.label} ({row.unit})": row.value for row in rows if row.value is not None},
        description="; ".join(f"{row.label} {verdict_text(row.verdict)}" for row in rows) or "nobody measured it",
    )


def _last_assets(release: Release, plan: PipelinePlan) -> list[dg.AssetKey]:
    """Give one asset of each step that no other step depends on: when those are done, all is."""
    steps = [step for step in plan.steps if release.settings(step.label).enabled]
    depended_on = {upstream.label for step in steps for upstream in plan.upstream(step)}
    last = [step for step in steps if step.label not in depended_on]
    metrics = [a.key for s in steps for a in product_assets(release, s) if a.dataset_type.endswith("_metrics")]
    return list(dict.fromkeys([*metrics, *(product_assets(release, step)[0].key for step in last)]))


def _check_name(metric: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in metric)
