"""What the platform costs beside the work itself: ``python -m benchmarks.overhead``.

A simulated survey goes through the whole platform as in ``drp demo``. Then all services are stopped, and on the same,
now quiet machine follow the definitions, trivial quanta through the launchers, and the survey's own quanta bare.

``definitions_load``
    Seconds from starting a fresh Python process to its end, in which it has loaded the site's location and the
    release's as a code server does (the pipeline's plan is in its cache). Median of three processes.
``definitions_load_connections``
    The most that one of these processes connected to or resolved, or had as an open socket at the end. No service runs
    meanwhile.
``submission_fixed_median``, ``submission_fixed_largest``
    Over all successful Dagster runs that made a submission: from the run's creation to its end, less the time from its
    first quantum's start to its last one's end (preparation, initialisation and running of a quantum, as provenance
    tells). Counted are: starting the run's worker, graph, BPS, starting the first jobs, the final job, watching,
    outcome, reports. Runs share the machine with others that are under way, and with the services.
``submission_without_quantum_median``, ``submission_without_quantum_largest``
    The same, less only the time in which at least one of the run's quanta was being executed: jobs that start between
    two stages, and logs and metadata of single quanta, are counted too.
``marginal_cost``
    What one more quantum costs a submission: the wall time from graph to outcome of 420 trivial quanta, less that of
    the same quanta executed by two warm processes with nothing around them (`benchmarks.bare`); less the same
    difference for 20 quanta; for each of the 400 between. Median of three such pairs, after one submission that nobody
    counts.
``marginal_cost_beside_quanta``
    The same, less only the time that the quanta were prepared, initialised and run in the submission itself, by two
    jobs at a time: making each quantum's Butler and writing its log and metadata, which bare execution has to do as
    well, are counted too.
``steps_platform``, ``steps_bare``, ``steps_ratio``
    Sum of all steps' run times, each from the Dagster run's creation to its end, and beside it the time of the same
    quanta executed bare in the same way; of several runs for the same partitions, the last. Two runs at the same time
    count twice.
``steps_elapsed_ratio``
    The same with the time in which at least one of these runs was under way: what the machine was taken for, as bare
    execution takes it. The target is this one's.
``submissions_repeated``, ``submissions_not_compared``, ``bare_quanta_failed``
    How far the figures above can be trusted: runs for partitions that were run again later; runs whose graph would be
    another one now; quanta that raised when they were executed bare.

Belongs here: the order of things, and the figures from what was measured. Doesn't: the measuring itself
(`benchmarks.loading`, `benchmarks.finished`, `benchmarks.toy_submissions`, `benchmarks.comparison`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arithmetic import covered_s, marginal_s, median
from benchmarks.comparison import BareRelease, Comparison
from benchmarks.ending import end_in_order
from benchmarks.finished import FinishedSubmission, finished_submissions, last_attempts
from benchmarks.loading import Loading, time_loading
from benchmarks.report import Machine, Report, Result
from benchmarks.toy_submissions import Timing, time_submissions
from commands.demonstration import Demonstration
from commands.progress import ReleaseProgress, Standing
from drp_assets.plans import plan_of
from launchers import warm
from resources.errors import SiteFault
from simulator.survey import PRESETS

LOAD_TARGET_S = 4.0
FIXED_TARGET_S = 8.0
MARGINAL_TARGET_MS = 5.0
RATIO_TARGETS: Mapping[str, float] = {"demo": 2.5, "acceptance": 1.25}
_ROUNDS = 3
_FEW, _MANY = 20, 420
_SHOW_EVERY_S = 10.0


def process_release(demonstration: Demonstration, console: Console) -> list[FinishedSubmission]:
    """Take the survey through the platform, unless that is done already, and stop every service.

    Parameters
    ----------
    demonstration
        The survey and its platform.
    console
        Is told how far it is.

    Raises
    ------
    resources.errors.SiteFault
        The release can't be completed.
    """
    shown_at = float("-inf")

    def show(progress: ReleaseProgress) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= _SHOW_EVERY_S or progress.complete:
            shown_at = time.monotonic()
            done = sum(step.complete for step in progress.steps)
            running = ", ".join(step.label for step in progress.steps if step.running)
            console.print(f"  {done}/{len(progress.steps)} steps done; running: {running or 'none'}")

    try:
        delivery = demonstration.start(lambda _: None)
        demonstration.publish(delivery)
        if demonstration.watch(delivery, show) is not Standing.COMPLETE:
            failures = "; ".join(f"{asset}: {cause}" for asset, cause in demonstration.failures().items())
            raise SiteFault(f"the release is stuck: {failures}", str(demonstration.state), "see its runs in the UI")
        with demonstration.instance() as instance:
            return finished_submissions(instance)
    finally:
        demonstration.stop()


def time_trivial_quanta(folder: Path, settings: Mapping[str, Any], console: Console) -> list[Timing]:
    """Make submissions of few and of many trivial quanta, in turns; nothing of them stays.

    Parameters
    ----------
    folder
        For the time being.
    settings
        The site's BPS settings.
    console
        Is told how far it is.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[warm.STATE_VARIABLE] = str(folder)
    warm.start(folder)
    try:
        sizes = (_FEW, *(size for _ in range(_ROUNDS) for size in (_FEW, _MANY)))
        return time_submissions(folder, sizes, settings, lambda what: console.print(f"  {what}"))[1:]
    finally:
        del os.environ[warm.STATE_VARIABLE]
        warm.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def loading_results(loadings: Sequence[Loading]) -> tuple[Result, ...]:
    """Give the figures of loading definitions.

    Parameters
    ----------
    loadings
        Of fresh processes.
    """
    connections = max(len(loading.connections) for loading in loadings)
    return (
        Result("definitions_load", median([loading.wall_s for loading in loadings]), "s", LOAD_TARGET_S),
        Result("definitions_load_connections", connections, "", 0),
    )


def submission_results(submissions: Sequence[FinishedSubmission]) -> tuple[Result, ...]:
    """Give the figures of single submissions.

    Parameters
    ----------
    submissions
        All.
    """
    around = [submission.around_s for submission in submissions]
    without = [submission.without_quantum_s for submission in submissions]
    return (
        Result("submission_fixed_median", median(around), "s", FIXED_TARGET_S),
        Result("submission_fixed_largest", max(around), "s", FIXED_TARGET_S),
        Result("submission_without_quantum_median", median(without), "s", FIXED_TARGET_S),
        Result("submission_without_quantum_largest", max(without), "s", FIXED_TARGET_S),
    )


def marginal_results(timings: Sequence[Timing]) -> tuple[Result, ...]:
    """Give the figure of trivial quanta.

    Parameters
    ----------
    timings
        Small and large submissions in turns.
    """
    beside_bare = marginal_s([timing.beside_bare for timing in timings])
    beside_quanta = marginal_s([timing.beside_quanta for timing in timings])
    return (
        Result("marginal_cost", 1000.0 * beside_bare, "ms/quantum", MARGINAL_TARGET_MS),
        Result("marginal_cost_beside_quanta", 1000.0 * beside_quanta, "ms/quantum"),
    )


def step_results(
    submissions: Sequence[FinishedSubmission], comparisons: Sequence[Comparison], target: float | None
) -> tuple[Result, ...]:
    """Give the figures of all steps together.

    Parameters
    ----------
    submissions
        All, those that were made again among them.
    comparisons
        Those that could be compared.
    target
        The most that the ratio may be.
    """
    platform_s = sum(each.submission.wall_s for each in comparisons)
    elapsed_s = covered_s(each.submission.run for each in comparisons)
    bare_s = sum(each.bare.wall_s for each in comparisons)
    last = last_attempts(submissions)
    return (
        Result("steps_platform", platform_s, "s"),
        Result("steps_bare", bare_s, "s"),
        Result("steps_ratio", platform_s / bare_s, ""),
        Result("steps_elapsed_ratio", elapsed_s / bare_s, "", target),
        Result("submissions_repeated", len(submissions) - len(last), ""),
        Result("submissions_not_compared", len(last) - len(comparisons), "", 0),
        Result("bare_quanta_failed", sum(each.bare.failed for each in comparisons), "", 0),
    )


def submissions_table(comparisons: Sequence[Comparison]) -> Table:
    """Render the submissions, one a line.

    Parameters
    ----------
    comparisons
        What to show.
    """
    table = Table(title="submissions, in seconds", title_justify="left", box=None, pad_edge=False)
    table.add_column("submission")
    for column in ("quanta", "run", "bare", "around its quanta", "without a quantum"):
        table.add_column(column, justify="right")
    for each in comparisons:
        submission = each.submission
        seconds = (submission.wall_s, each.bare.wall_s, submission.around_s, submission.without_quantum_s)
        table.add_row(submission.name, str(sum(submission.quanta.values())), *(f"{value:.2f}" for value in seconds))
    return table


def measure(survey: str, state: Path, console: Console, *, fresh: bool) -> Report:
    """Measure everything.

    Parameters
    ----------
    survey
        Name of a preset.
    state
        Folder of the demonstration; stays.
    console
        Is told how far it is.
    fresh
        Whether a release that is there already is made again.

    Returns
    -------
    report
        The figures.
    """
    machine = Machine.here()
    state.mkdir(parents=True, exist_ok=True)
    # Nothing is noted in the user's home.
    os.environ["XDG_STATE_HOME"] = str(state.resolve() / "home")
    demonstration = Demonstration(state, PRESETS[survey])
    if fresh:
        demonstration.forget()
    release, site = demonstration.release, demonstration.site
    console.print(f"1/4 The {survey} survey through the platform, in {demonstration.state}")
    submissions = process_release(demonstration, console)
    console.print("2/4 Loading definitions")
    loadings = [time_loading(("site", release.name)) for _ in range(_ROUNDS)]
    for connection in {connection for loading in loadings for connection in loading.connections}:
        console.print(f"  connected: {connection}")
    console.print("3/4 Trivial quanta")
    timings = time_trivial_quanta(demonstration.state / "trivial", site.wms.bps, console)
    console.print("4/4 The survey's quanta, bare")
    bare_release = BareRelease(
        site,
        release,
        plan_of(release, site.state / "plans"),
        demonstration.state / "bare",
        lambda what: console.print(f"  {what}"),
    )
    comparisons = bare_release.compare(last_attempts(submissions))
    console.print(submissions_table(comparisons))
    return Report(
        name="overhead" if survey == "demo" else f"overhead-{survey}",
        machine=machine,
        results=(
            *loading_results(loadings),
            *submission_results(submissions),
            *marginal_results(timings),
            *step_results(submissions, comparisons, RATIO_TARGETS.get(survey)),
        ),
    )


def main() -> None:
    """Measure, print, and write the results' file; a missed target is no error."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="benchmarks.overhead", description="What the platform costs.")
    parser.add_argument("--survey", choices=sorted(PRESETS), default="demo", help="what is processed")
    parser.add_argument("--state", type=Path, help="folder of all state; by default .state/overhead-<survey>")
    parser.add_argument("--fresh", action="store_true", help="make a release that is there already again")
    options = parser.parse_args()
    console = Console(highlight=False)
    state = options.state or Path(".state") / f"overhead-{options.survey}"
    report = measure(options.survey, state, console, fresh=options.fresh)
    console.print(report.table())
    console.print(f"Written to {report.write()}")


if __name__ == "__main__":
    main()
