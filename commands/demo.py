"""`drp demo`: one command takes a survey from Kafka messages to a validated catalogue.

Belongs here: the command's options and what it prints. Doesn't: what it does (`commands.demonstration`).
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from commands.console import make_console
from commands.demonstration import SITES, Demonstration
from commands.progress import ReleaseProgress, Standing, progress_table
from commands.services import service_faults
from drp_assets.scorecard import judge_release
from resources.errors import Rejected
from simulator.delivery import Delivery
from simulator.survey import PRESETS
from validation.comparison import compare, comparison_table
from validation.rendering import scorecard_table
from validation.scorecard import Verdict

SECOND_COADD = "assembleDeepCoadd:bestSeeingFraction=0.67"
"""What the second act changes: fewer visits, the sharpest ones."""

_PLAIN_EVERY_S = 10.0
"""Where the output is no terminal, progress is a line this often."""


def demo(
    survey: Annotated[str, typer.Option(help=f"which survey: {', '.join(PRESETS)}")] = "demo",
    state: Annotated[Path | None, typer.Option(help="folder of all state; by default .state/<survey>")] = None,
    leave: Annotated[bool, typer.Option("--exit", help="stop when done; exit code 0 only if all is well")] = False,
    reprocess: Annotated[
        bool, typer.Option("--reprocess", help="then coadd again with another configuration, and compare")
    ] = False,
    config: Annotated[list[str] | None, typer.Option("-c", help="of the second coaddition, task:field=value")] = None,
    fresh: Annotated[bool, typer.Option(help="forget an earlier run first")] = False,
    site: Annotated[str, typer.Option(help=f"where it runs: {', '.join(SITES)}")] = "laptop",
    stop: Annotated[bool, typer.Option(help="only stop what an earlier run left running")] = False,
) -> None:
    """Simulate a survey, let it arrive, process and validate it; a second call goes on where the first one ended."""
    if survey not in PRESETS:
        raise Rejected(f"no survey {survey!r}", "--survey", f"one of {', '.join(PRESETS)}")
    if site not in SITES:
        raise Rejected(f"no site {site!r} on one machine", "--site", f"one of {', '.join(SITES)}")
    folder = state or Path(".state") / (survey if site == "laptop" else f"{survey}-{site}")
    console = make_console()
    with service_faults():
        demonstration = Demonstration(folder, PRESETS[survey], site)
        if stop:
            demonstration.stop()
            return
        if fresh:
            demonstration.forget()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        began = time.monotonic()
        console.print(f"State is kept in {demonstration.state}")
        try:
            delivery = _start(demonstration, console, began)
            standing = _watch(demonstration, delivery, console, began, judged_since=0.0)
            _conclude(demonstration, console, standing, time.monotonic() - began)
            if reprocess and standing is Standing.COMPLETE:
                standing = _reprocess(demonstration, delivery, console, config or [SECOND_COADD])
            if leave:
                sys.exit(0 if standing is Standing.COMPLETE and _is_good(demonstration) else 1)
            console.print(Text.assemble("Dagster's UI: ", (demonstration.ui, "bold"), "  (Ctrl-C stops it)"))
            while True:
                time.sleep(3600)
        finally:
            demonstration.stop()


def _start(demonstration: Demonstration, console: Console, began: float) -> Delivery:
    with console.status("starting") as status:
        last = ""

        def report(what: str) -> None:
            nonlocal last
            status.update(what)
            stage = what.rstrip("0123456789/ ")
            if not console.is_terminal and stage != last:
                console.print(f"{time.monotonic() - began:5.0f} s  {stage}")
            last = stage

        delivery = demonstration.start(report)
        report("publishing messages")
        count = demonstration.publish(delivery)
    console.print(f"{count} messages published; the UI is at {demonstration.ui}")
    return delivery


def _watch(
    demonstration: Demonstration, delivery: Delivery, console: Console, began: float, *, judged_since: float
) -> Standing:
    with Live(console=console, refresh_per_second=2, transient=False) as live:
        shown_at = 0.0

        def show(progress: ReleaseProgress) -> None:
            nonlocal shown_at
            elapsed = time.monotonic() - began
            if console.is_terminal:
                live.update(progress_table(progress, elapsed))
            elif elapsed - shown_at >= _PLAIN_EVERY_S or progress.complete:
                shown_at = elapsed
                done = [step.label for step in progress.steps if step.complete]
                running = [step.label for step in progress.steps if step.running]
                console.print(
                    f"{elapsed:5.0f} s  {len(done)}/{len(progress.steps)} steps done; running: {', '.join(running)}"
                )
            if progress.complete and not console.is_terminal:
                console.print(progress_table(progress, elapsed))

        return demonstration.watch(delivery, show, judged_since=judged_since)


def _reprocess(demonstration: Demonstration, delivery: Delivery, console: Console, config: list[str]) -> Standing:
    before = judge_release(demonstration.site, demonstration.release)
    backfill, started_at = demonstration.reprocess(config)
    console.print(f"Second act: step3a again with {', '.join(config)} (backfill {backfill})")
    standing = _watch(demonstration, delivery, console, time.monotonic(), judged_since=started_at)
    if standing is Standing.COMPLETE:
        after = judge_release(demonstration.site, demonstration.release)
        console.print(comparison_table(compare(before, after)))
    return standing


def _conclude(demonstration: Demonstration, console: Console, standing: Standing, elapsed_s: float) -> None:
    if standing is Standing.STUCK:
        console.print(Text.assemble(("The release is stuck.", "bold red"), " What failed:"))
        for asset, cause in demonstration.failures().items():
            console.print(f"  {asset}: {cause}")
        return
    console.print(scorecard_table(judge_release(demonstration.site, demonstration.release)))
    console.print(
        f"Complete after {elapsed_s:.0f} s. Report: {demonstration.site.reports / demonstration.release.name}"
    )


def _is_good(demonstration: Demonstration) -> bool:
    return judge_release(demonstration.site, demonstration.release).verdict is not Verdict.FAILED
