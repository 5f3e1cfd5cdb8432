"""When a partition runs by itself: all it needs is there, has passed its blocking checks, and overlaps it on the sky.

Belongs here: the automation conditions and what they ask the Butler. Doesn't: starting work on messages (`sensors`), or
the rule itself where no Dagster is needed (`planning.partitions.ready`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.asset_graph_view.entity_subset import EntitySubset
from dagster._core.definitions.declarative_automation.operators import DepsAutomationCondition
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus

from drp_assets.grouping import GroupedAutomationSensor
from drp_assets.keys import COMPLETE, inputs_key
from drp_assets.severity import BlockingCheckFailedBadly, Severities, failed_badly
from planning.partitions import ready
from planning.pipeline import Sharding
from planning.release import Release
from resources.butler import open_butler
from resources.site import Site

_REMEMBERED_S = 5.0
"""How long an answer of the Butler's about overlaps is taken for granted."""


class SkyOverlap:
    """Which day_obs and tracts of a release overlap, as the Butler's visits say.

    Parameters
    ----------
    site, release
        Where to ask, and about what.
    """

    def __init__(self, site: Site, release: Release) -> None:
        self._site = site
        self._release = release
        self._asked_at = -_REMEMBERED_S
        self._pairs: frozenset[tuple[str, str]] = frozenset()

    def pairs(self) -> frozenset[tuple[str, str]]:
        """Give every (day_obs, tract) that a visit of the release's range connects."""
        if time.monotonic() - self._asked_at >= _REMEMBERED_S:
            self._pairs = self._ask()
            self._asked_at = time.monotonic()
        return self._pairs

    def needs(self, sharding: Sharding) -> Mapping[str, frozenset[str]]:
        """Give, for each partition of one sharding, the overlapping ones of the other.

        Parameters
        ----------
        sharding
            Of the partitions that are asked about.
        """
        found: dict[str, set[str]] = defaultdict(set)
        for day_obs, tract in self.pairs():
            if sharding is Sharding.TRACT:
                found[tract].add(day_obs)
            else:
                found[day_obs].add(tract)
        return {key: frozenset(others) for key, others in found.items()}

    def _ask(self) -> frozenset[tuple[str, str]]:
        release = self._release
        butler = open_butler(self._site.butler)
        with butler.query() as query:
            rows = (
                query.join_dimensions(["visit", "tract"])
                .where(
                    "day_obs >= first_day AND day_obs <= last_day",
                    instrument=release.instrument,
                    skymap=release.skymap,
                    bind={"first_day": release.inputs.first_day_obs, "last_day": release.inputs.last_day_obs},
                )
                .data_ids(["visit", "tract"])
            )
            pairs = {(str(row["day_obs"]), str(row["tract"])) for row in rows}
        return frozenset(p for p in pairs if not release.tracts or int(p[1]) in release.tracts)


class OverlapDone(dg.AutomationCondition):
    """True for partitions whose overlapping partitions, in the step they depend on, are all done and found complete.

    Done is what isn't being made again, and needn't be.

    Parameters
    ----------
    overlap
        Knows what overlaps.
    upstream
        An asset of the step depended on, whose partitions are of the other sharding.
    inputs
        The release's inputs: until they have come for every day_obs, what overlaps isn't known.
    sharding
        Of the partitions that wait; what runs whole waits for every tract that a visit touches.
    """

    def __init__(self, overlap: SkyOverlap, upstream: dg.AssetKey, inputs: dg.AssetKey, sharding: Sharding) -> None:
        self._overlap = overlap
        self._upstream = upstream
        self._inputs = inputs
        self._sharding = sharding
        self._unsettled = _outdated() | dg.AutomationCondition.in_progress()
        self._severities = Severities()

    @property
    def children(self) -> Sequence[dg.AutomationCondition[Any]]:
        """What is asked about the step depended on."""
        return [self._unsettled]

    @property
    def name(self) -> str:
        """Say what is waited for, in the UI's words."""
        return f"overlapping partitions of {self._upstream.to_user_string()} are done"

    @property
    def description(self) -> str:
        """Say it in the evaluation's table too."""
        return self.name

    async def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:  # type: ignore[override]
        """Evaluate the candidates.

        Parameters
        ----------
        context
            Gives the candidates and the instance's view of what is materialised.
        """
        view = context.asset_graph_view
        # Asked every time, whether anybody waits or not: it remembers what has changed since it was asked last.
        about_upstream = context.for_child_condition(
            child_condition=self._unsettled,
            child_indices=[0],
            candidate_subset=view.get_full_subset(key=self._upstream),
        )
        unsettled = await about_upstream.evaluate_async()
        runnable = await self._runnable(context, unsettled.true_subset.expensively_compute_partition_keys())
        return dg.AutomationResult(context, runnable, child_results=[unsettled])

    async def _runnable(self, context: dg.AutomationContext[Any], unsettled: AbstractSet[str]) -> EntitySubset[Any]:
        view = context.asset_graph_view
        come = await view.compute_materialized_asset_subset(self._inputs)
        candidates = context.candidate_subset
        if candidates.is_empty or not view.get_full_subset(key=self._inputs).compute_difference(come).is_empty:
            return context.get_empty_subset()
        done = await self._good_enough(view) - unsettled
        if self._sharding is Sharding.WHOLE:
            tracts = frozenset(tract for _, tract in self._overlap.pairs())
            return candidates if tracts and tracts <= done else context.get_empty_subset()
        wanted = candidates.expensively_compute_partition_keys()
        runnable = ready(wanted, self._overlap.needs(self._sharding), done)
        return view.compute_intersection_with_partition_keys(set(runnable), candidates)

    async def _good_enough(self, view: AssetGraphView) -> frozenset[str]:
        """Give the upstream partitions that were found complete, or at least that only warn."""
        check, status = dg.AssetCheckKey(self._upstream, COMPLETE), AssetCheckExecutionResolvedStatus
        every = view.get_full_subset(key=check)
        passed = await view.compute_subset_with_status(check, status.SUCCEEDED, every)
        failed = await view.compute_subset_with_status(check, status.FAILED, every)
        badly = await failed_badly(view, self._severities, check, every)
        warned = failed.compute_difference(badly)
        return frozenset(passed.compute_union(warned).expensively_compute_partition_keys())


def when_ready() -> dg.AutomationCondition[Any]:
    """Give the condition of what depends on partitions of its own kind, or on all of them."""
    return _wanted() & ~_deps_missing() & ~_deps_rejected() & ~_deps_unsettled() & ~_being_made()


def when_overlap_ready(
    site: Site, release: Release, sharding: Sharding, crossing: Sequence[dg.AssetKey]
) -> dg.AutomationCondition[Any]:
    """Give the condition of what depends on partitions of another sharding.

    Parameters
    ----------
    site, release
        Where to ask what overlaps.
    sharding
        Of what waits.
    crossing
        One asset of each upstream step whose partitions are of the other sharding.
    """
    overlap = SkyOverlap(site, release)
    elsewhere = dg.AssetSelection.assets(*crossing)
    whole = _wanted() & ~_being_made()
    for disturbed in (_deps_missing(), _deps_rejected(), _deps_unsettled()):
        whole = whole & ~disturbed.ignore(elsewhere)
    for key in crossing:
        whole = whole & OverlapDone(overlap, key, inputs_key(release), sharding)
    return whole


def _wanted() -> dg.AutomationCondition[Any]:
    """Missing and not failed, or made from something older than what is there now."""
    condition = dg.AutomationCondition
    return (condition.missing() & ~condition.execution_failed()) | _outdated()


def _outdated() -> dg.AutomationCondition[Any]:
    """Something depended on was made after this was begun: a run sees what is there when it begins, not what comes."""
    condition = dg.AutomationCondition
    # Not Dagster's `any_deps_updated`, which is also true when a dependency is about to be asked for in this run.
    updated = condition.any_deps_match(condition.newly_updated())
    # Not `initial_evaluation`, which is always true where a step asks about another one of other partitions.
    return updated.since(condition.newly_requested() | condition.in_progress().newly_true())


def _deps_missing() -> DepsAutomationCondition[Any]:
    """Something depended on is not there, even if it will be requested now: a run is one step, never a row of them."""
    return dg.AutomationCondition.any_deps_match(dg.AutomationCondition.missing())


def _deps_rejected() -> DepsAutomationCondition[Any]:
    """Something depended on has failed a blocking check; one partition is enough where many are depended on."""
    return dg.AutomationCondition.any_deps_match(BlockingCheckFailedBadly())


def _deps_unsettled() -> DepsAutomationCondition[Any]:
    """Something depended on is being made, is about to be, or ought to be."""
    condition = dg.AutomationCondition
    return condition.any_deps_match(condition.will_be_requested() | condition.in_progress() | _outdated())


def _being_made() -> dg.AutomationCondition[Any]:
    return dg.AutomationCondition.in_progress()


def automation_sensor(site: Site, release: Release) -> GroupedAutomationSensor:
    """Give the sensor that evaluates a release's conditions.

    Parameters
    ----------
    site
        Says how often.
    release
        Its name makes the sensor's.
    """
    return GroupedAutomationSensor(
        f"{release.name}_automation",
        target=dg.AssetSelection.all(),
        use_user_code_server=True,
        # A backfill would start at the next turn of its daemon, half a minute later.
        emit_backfills=False,
        minimum_interval_seconds=site.automation_interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Runs each partition of the release once all that it needs is there.",
    )
