"""The release's scorecard: its metrics against its thresholds, with report and figures.

Belongs here: the asset ``<release>/scorecard`` and a check for each threshold. Doesn't: judging or drawing
(`validation`), or measuring (`drp_tasks`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from drp_assets.automation import when_overlap_ready
from drp_assets.events import log_check, log_materialization, one_line_failures, output_for
from drp_assets.keys import product_assets, scorecard_key
from drp_assets.pictures import link
from drp_assets.reporting import read_failures
from planning.pipeline import PipelinePlan, Sharding
from planning.release import Release
from resources.butler import open_butler
from resources.site import Site
from validation.rendering import scorecard_markdown, verdict_text
from validation.scorecard import Row, Scorecard, Verdict


def judge_release(site: Site, release: Release) -> Scorecard:
    """Judge a release by the metrics that its chain holds now.

    Parameters
    ----------
    site, release
        Where, what.
    """
    from validation.assessment import assess  # definitions load without the middleware, which takes seconds

    return assess(open_butler(site.butler), release).scorecard


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
    last = _last_assets(release, plan)
    crossing = [asset.key for asset in last if asset.sharding is Sharding.TRACT]
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
                deps=[asset.key for asset in last],
                skippable=True,
                group_name="5_validation",
                kinds={"report"},
                owners=[release.owner],
                description="Whether the release is good: every metric against its threshold, with figures.",
                automation_condition=when_overlap_ready(site, release, Sharding.WHOLE, crossing),
            )
        ],
        check_specs=list(checks.values()),
    )
    def scorecard(context: dg.AssetExecutionContext) -> Iterator[Any]:
        from validation.assessment import report_release

        with one_line_failures():
            found = judge_release(site, release)
            folder = site.reports / release.name
            failures = read_failures(site, release)
            report = report_release(open_butler(site.butler), release, folder, failures=failures)
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


@dataclass(frozen=True, slots=True)
class _Awaited:
    key: dg.AssetKey
    sharding: Sharding


def _last_assets(release: Release, plan: PipelinePlan) -> list[_Awaited]:
    """Give the metrics, and one asset of each step that no other step depends on: when those are done, all is."""
    steps = [step for step in plan.steps if release.settings(step).enabled]
    depended_on = {upstream.label for step in steps for upstream in plan.upstream(step)}
    awaited = [
        _Awaited(asset.key, step.sharding)
        for step in steps
        for asset in product_assets(release, step)
        if asset.dataset_type.endswith("_metrics")
    ]
    last = [step for step in steps if step.label not in depended_on]
    awaited += [_Awaited(product_assets(release, step)[0].key, step.sharding) for step in last]
    return list(dict.fromkeys(awaited))


def _check_name(metric: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in metric)
