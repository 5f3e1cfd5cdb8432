"""Submissions that outlive everything: ``make soak NAME=launchers``.

On a real Slurm with two nodes, and Dagster on PostgreSQL, one submission after the other is made, and each meets one
fault: something is killed at a moment drawn by lot, or the work itself gives trouble. Each time there has to be one
submission, an honest end in Dagster, Slurm, provenance and Butler alike, and nothing left: exit code 1 if not.

Belongs here: the command and its tables. Doesn't: any fault (`benchmarks.soak.launcher_faults`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.report import RESULTS, Machine, Report, Result
from benchmarks.soak.keeping import empty_folder
from benchmarks.soak.launcher_faults import FAULTS, Fault, TrialResult, try_fault
from benchmarks.soak.launcher_site import LauncherSite

NAME = "soak-launchers"
TIMES = 10
PATIENCE_S = 600.0


def soak(
    folder: Path, faults: Sequence[Fault], times: int, seed: int, patience_s: float, say: Callable[[str], None]
) -> list[TrialResult]:
    """Do all trials, every fault once before any comes again.

    Parameters
    ----------
    folder
        For everything that is made; it is empty.
    faults
        What goes wrong.
    times
        How often each.
    seed
        Of the moments.
    patience_s
        How long anything may take that has to happen by itself.
    say
        Told what happens.
    """
    done: list[TrialResult] = []
    site = LauncherSite(folder)
    with site.running() as instance:
        say("the site is up")
        for number in range(1, times + 1):
            for fault in faults:
                name = f"{fault.name.replace(' ', '-').lower()}-{number}"
                result = try_fault(site, instance, fault, name, f"{seed} {name}", patience_s)
                verdict = "; ".join(result.broken) or "all promises kept"
                say(f"{name}: {result.what}: over after {result.seconds:.1f} s: {verdict}")
                done.append(result)
                if result.broken:
                    site.make_whole(instance)
    return done


def report_of(done: Sequence[TrialResult], machine: Machine, patience_s: float) -> Report:
    """Give what was found as every benchmark reports it.

    Parameters
    ----------
    done
        All trials.
    machine
        Where.
    patience_s
        The longest that an end may take.
    """
    figures = []
    for fault in dict.fromkeys(result.fault for result in done):
        some = [result for result in done if result.fault == fault]
        seconds = [result.seconds for result in some]
        figures += [
            Result(f"{fault}: trials", len(some), ""),
            Result(f"{fault}: trials with a broken promise", sum(bool(one.broken) for one in some), "", 0),
            Result(f"{fault}: until the run's end, median", round(median(seconds), 1), "s"),
            Result(f"{fault}: until the run's end, longest", round(max(seconds), 1), "s", patience_s),
        ]
    return Report(NAME, machine, tuple(figures))


def fault_table(done: Sequence[TrialResult], faults: Sequence[Fault]) -> Table:
    """Render the trials, a line a fault and a line for each that broke a promise.

    Parameters
    ----------
    done
        All trials.
    faults
        What was to be.
    """
    table = Table(title="what went wrong", title_justify="left", box=None, pad_edge=False)
    table.add_column("fault")
    for column in ("times", "recovered", "median", "worst"):
        table.add_column(column, justify="right")
    table.add_column("what was checked")
    for fault in faults:
        some = [result for result in done if result.fault == fault.name]
        if not some:
            continue
        seconds = [result.seconds for result in some]
        kept = sum(not result.broken for result in some)
        colour = "green" if kept == len(some) else "red"
        table.add_row(
            fault.name,
            str(len(some)),
            f"[{colour}]{kept}[/]",
            f"{median(seconds):.1f} s",
            f"{max(seconds):.1f} s",
            str(fault.expected),
        )
        for result in some:
            for promise in result.broken:
                table.add_row(f"  {result.name}", "", "", "", "", escape(promise))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, print what was found and write it as figures and text, and say whether all promises were kept."""
    parser = argparse.ArgumentParser(prog="make soak NAME=launchers", description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help="how often each fault is tried")
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], help="this fault alone")
    parser.add_argument("--seed", type=int, default=20261101)
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds that anything may take")
    parser.add_argument("--folder", type=Path, help="keep everything here, in place of what an earlier soak has left")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args(arguments)
    faults = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    console = Console(width=200, record=True)
    began = time.monotonic()
    machine = Machine.here()
    with empty_folder(options.folder) as folder:
        done = soak(
            folder,
            faults,
            options.times,
            options.seed,
            options.patience,
            lambda line: console.print(f"{time.monotonic() - began:7.1f} s  {line}", markup=False, highlight=False),
        )
    console.print(fault_table(done, faults), "")
    path = report_of(done, machine, options.patience).write(options.results)
    broken = sum(bool(result.broken) for result in done)
    console.print(f"{path}: promises broken in {broken} of {len(done)} trials")
    console.save_text(str(path.with_suffix(".txt")))
    return 1 if broken or not done else 0


if __name__ == "__main__":
    sys.exit(main())
