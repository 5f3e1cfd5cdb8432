"""Submissions that outlive everything: ``make soak NAME=launchers``.

On a real Slurm with two nodes, and Dagster on PostgreSQL, one submission after the other is made, and each meets one
fault: something is killed at a moment drawn by lot, or the work itself gives trouble. Each time there has to be one
submission, an honest end in Dagster, Slurm, provenance and Butler alike, and nothing left: exit code 1 if not.

It may be stopped at any time: what is done is reported, and ``--resume`` does what is left.

Belongs here: the command. Doesn't: any fault (`benchmarks.soak.launcher_faults`), or what is told of the trials
(`benchmarks.soak.launcher_record`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.ending import end_in_order
from benchmarks.report import RESULTS, Machine
from benchmarks.soak.keeping import empty_folder
from benchmarks.soak.launcher_faults import FAULTS, Fault, TrialResult, try_fault
from benchmarks.soak.launcher_record import Trials, due, fault_table, report_of
from benchmarks.soak.launcher_site import LauncherSite

TIMES = 10
PATIENCE_S = 600.0


def soak(
    folder: Path, trials: Iterable[tuple[Fault, str]], seed: int, patience_s: float, say: Callable[[str], None]
) -> Iterator[TrialResult]:
    """Do trials one after the other, and give each when it is done.

    Parameters
    ----------
    folder
        For everything that is made; it is empty.
    trials
        Faults, and the trials' names.
    seed
        Of the moments.
    patience_s
        How long anything may take that has to happen by itself.
    say
        Told what happens.
    """
    site = LauncherSite(folder)
    with site.running() as instance:
        say("the site is up")
        for fault, name in trials:
            result = try_fault(site, instance, fault, name, f"{seed} {name}", patience_s)
            verdict = "; ".join(result.broken) or "all promises kept"
            say(f"{name}: {result.what}: over after {result.seconds:.1f} s: {verdict}")
            yield result
            if result.broken:
                site.make_whole(instance)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, print what was found and write it as figures and text, and say whether all promises were kept."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="make soak NAME=launchers", description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help="how often each fault is tried")
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], help="this fault alone")
    parser.add_argument("--resume", action="store_true", help="go on with the trials of the soak before")
    parser.add_argument("--seed", type=int, default=20261101)
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds that anything may take")
    parser.add_argument("--folder", type=Path, help="keep everything here, in place of what an earlier soak has left")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args(arguments)
    faults = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    console, machine, began = Console(width=200, record=True), Machine.here(), time.monotonic()
    trials = Trials(options.results)
    if not options.resume:
        trials.forget()
    left = list(due(faults, options.times, {one.name for one in trials.read()}))

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - began:7.1f} s  {line}", markup=False, highlight=False)

    was_stopped = False
    try:
        with empty_folder(options.folder) as folder:
            for result in soak(folder, left, options.seed, options.patience, say):
                trials.add(result)
                report_of(trials.read(), machine, options.patience).write(options.results)
    except KeyboardInterrupt:
        was_stopped = True
        say("stopped; --resume does what is left")
    done = trials.read()
    path = report_of(done, machine, options.patience).write(options.results)
    console.print(fault_table(done, FAULTS), "")
    broken = sum(bool(result.broken) for result in done)
    console.print(f"{path}: promises broken in {broken} of {len(done)} trials")
    console.save_text(str(path.with_suffix(".txt")))
    return 1 if broken or was_stopped or not done else 0


if __name__ == "__main__":
    sys.exit(main())
