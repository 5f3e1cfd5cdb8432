"""How far a release is: what `drp demo` shows while it runs, read from the ledger and from Dagster.

Belongs here: reading and rendering progress, and the decision whether a release is complete, stuck or under way.
Doesn't: starting or stopping anything (`commands.demonstration`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from rich.table import Table
from rich.text import Text

from arrivals.ledger import Ledger
from arrivals.states import State
from drp_assets.keys import inputs_key, product_assets, scorecard_key
from drp_assets.partitions import day_obs_partitions, tract_partitions
from planning.pipeline import PipelinePlan, Sharding, Step
from planning.release import Release
from sensors.arrivals import UNFINISHED


class Standing(enum.StrEnum):
    """Where a release stands as a whole."""

    COMPLETE = "complete"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One line of the table: how many partitions of a step are done, and how its quanta fared."""

    label: str
    expected: int
    done: int
    running: int
    failed: int
    quanta_done: int = 0
    quanta_failed: int = 0

    @property
    def complete(self) -> bool:
        """Whether every partition is done and nothing runs."""
        return self.expected > 0 and self.done >= self.expected and not self.running


@dataclass(frozen=True, slots=True)
class ReleaseProgress:
    """All lines of the table."""

    messages: Mapping[State, int]
    steps: tuple[StepProgress, ...]
    running: int
    failures: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every step is."""
        return all(step.complete for step in self.steps) and not self.running


def read_progress(
    instance: dg.DagsterInstance, ledger_url: str, release: Release, plan: PipelinePlan
) -> ReleaseProgress:
    """Read how far a release is.

    Parameters
    ----------
    instance
        Dagster's.
    ledger_url
        The arrivals' ledger.
    release, plan
        Which.
    """
    ledger = Ledger(ledger_url)
    try:
        messages = ledger.counts()
    finally:
        ledger.close()
    active = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    days = _expected(instance, release, Sharding.DAY_OBS)
    steps = [_line(instance, "inputs", inputs_key(release), days, active, failed)]
    for step in plan.steps:
        if release.settings(step).enabled:
            # A step's products are recorded together: the last one recorded tells of all.
            key = product_assets(release, step)[-1].key
            expected = _expected(instance, release, step.sharding)
            line = _line(instance, step.label, key, expected, active, failed)
            steps.append(_with_quanta(instance, line, release, step))
    steps.append(_line(instance, "scorecard", scorecard_key(release), frozenset({""}), active, failed))
    unresolved = [s for s in steps if s.failed and not s.complete]
    return ReleaseProgress(messages, tuple(steps), len(active), tuple(s.label for s in unresolved))


def _expected(instance: dg.DagsterInstance, release: Release, sharding: Sharding) -> frozenset[str]:
    match sharding:
        case Sharding.DAY_OBS:
            return frozenset(day_obs_partitions(release).get_partition_keys())
        case Sharding.TRACT:
            return frozenset(instance.get_dynamic_partitions(str(tract_partitions(release).name)))
        case Sharding.WHOLE:
            return frozenset({""})


def _line(
    instance: dg.DagsterInstance,
    label: str,
    key: dg.AssetKey,
    expected: frozenset[str],
    active: Sequence[dg.DagsterRun],
    failed: Sequence[dg.DagsterRun],
) -> StepProgress:
    done = _materialized(instance, key, expected)
    running = sum(key in (run.asset_selection or ()) for run in active)
    failures = sum(key in (run.asset_selection or ()) for run in failed)
    return StepProgress(label, len(expected), done, running, failures)


def _materialized(instance: dg.DagsterInstance, key: dg.AssetKey, expected: frozenset[str]) -> int:
    if expected == {""}:
        return int(instance.get_latest_materialization_event(key) is not None)
    return len(expected & instance.get_materialized_partitions(key))


def _with_quanta(instance: dg.DagsterInstance, line: StepProgress, release: Release, step: Step) -> StepProgress:
    if not line.done:
        return line
    last = {}
    for asset in product_assets(release, step):
        if asset.product is None or asset.product.task in last:
            continue
        event = instance.get_latest_materialization_event(asset.key)
        if event and event.asset_materialization:
            values = event.asset_materialization.metadata
            last[asset.product.task] = (
                int(str(values["quanta done"].value)),
                int(str(values["quanta failed"].value)),
            )
    done, bad = (sum(pair[i] for pair in last.values()) for i in (0, 1))
    return StepProgress(line.label, line.expected, line.done, line.running, line.failed, done, bad)


def progress_table(progress: ReleaseProgress, elapsed_s: float) -> Table:
    """Render progress for the terminal.

    Parameters
    ----------
    progress
        What to show.
    elapsed_s
        Since the command began.
    """
    arrived = progress.messages.get(State.INGESTED, 0) + progress.messages.get(State.DUPLICATE, 0)
    total = sum(progress.messages.values())
    waiting = progress.messages.get(State.WAITING, 0)
    quarantined = progress.messages.get(State.QUARANTINED, 0)
    head = f"messages settled {arrived}/{total}, waiting {waiting}, quarantined {quarantined}; {elapsed_s:.0f} s"
    table = Table(title=head, title_justify="left", box=None, pad_edge=False)
    for column in ("step", "partitions", "quanta done", "failed", ""):
        table.add_column(column, justify="left" if column in {"step", ""} else "right")
    for step in progress.steps:
        state, style = _state(step)
        table.add_row(
            step.label,
            f"{step.done}/{step.expected}",
            str(step.quanta_done or ""),
            str(step.quanta_failed or ""),
            Text(state, style=style),
        )
    return table


def _state(step: StepProgress) -> tuple[str, str]:
    if step.running:
        return "running", "yellow"
    if step.complete:
        return "done", "green"
    if step.failed:
        return "failed", "red"
    return "waiting", "dim"
