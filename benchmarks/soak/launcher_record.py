"""The launchers' soak on disk and on paper: every trial when it is done, so that a soak that is stopped has counts.

Belongs here: the file of trials, which of them are due, and the report and table made of them. Doesn't: doing any
(`benchmarks.soak.launcher_faults`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.markup import escape
from rich.table import Table

from benchmarks.report import Machine, Report, Result
from benchmarks.soak.launcher_faults import Fault, TrialResult

NAME = "soak-launchers"


class Trials:
    """The trials that are done, a line each.

    Parameters
    ----------
    folder
        Of the soak's results.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"{NAME}.jsonl"

    def forget(self) -> None:
        """Begin anew."""
        self._file.unlink(missing_ok=True)

    def add(self, done: TrialResult) -> None:
        """Note one that is done."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(done)) + "\n")

    def read(self) -> list[TrialResult]:
        """Give all of them, in their order."""
        if not self._file.exists():
            return []
        documents = map(json.loads, self._file.read_text(encoding="utf-8").splitlines())
        return [TrialResult(**{**document, "broken": tuple(document["broken"])}) for document in documents]


def due(faults: Sequence[Fault], times: int, done: Collection[str]) -> Iterator[tuple[Fault, str]]:
    """Give what is still to be tried and the trials' names, every fault once before any comes again.

    Parameters
    ----------
    faults
        What goes wrong.
    times
        How often each.
    done
        Names of trials that need not be done again.
    """
    for number in range(1, times + 1):
        for fault in faults:
            name = f"{fault.name.replace(' ', '-').lower()}-{number}"
            if name not in done:
                yield fault, name


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
    figures = [
        Result("trials", len(done), ""),
        Result("trials with a broken promise", sum(bool(one.broken) for one in done), "", 0),
    ]
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
