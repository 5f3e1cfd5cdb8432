"""What a soak tells: each promise with how it was looked at, each incident with how things went on.

Belongs here: tables and figures of what is known. Doesn't: finding it out (`benchmarks.soak.chaos`,
`benchmarks.soak.oracle`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from rich.table import Table

from benchmarks.report import Result
from benchmarks.soak.chaos import Incident
from benchmarks.soak.oracle import Verdict


def incident_table(incidents: Sequence[Incident]) -> Table:
    """Render what was broken, and how things went on."""
    table = Table(title="what was broken", title_justify="left", box=None, pad_edge=False)
    for column in ("#", "at", "shift", "victim", "what"):
        table.add_column(column)
    for column in ("published", "recorded", "backlog", "mended", "works again", "ledger goes on", "caught up"):
        table.add_column(column, justify="right")
    for one in incidents:
        recorded, backlog = (f"{one.before.recorded:,}", f"{one.before.backlog:,}") if one.before else ("?", "?")
        table.add_row(
            str(one.number),
            f"{one.at_s:.1f} s",
            str(one.shift),
            one.victim,
            one.what,
            f"{one.published:,}",
            recorded,
            backlog,
            *(f"{seconds:.1f} s" for seconds in (one.outage_s, one.works_s, one.progress_s, one.caught_up_s)),
        )
    return table


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    """Render what was promised, how it was looked at, and whether it was kept."""
    table = Table(title="what was promised", title_justify="left", box=None, pad_edge=False)
    for column in ("promise", "looked at", "otherwise", ""):
        table.add_column(column, justify="right" if column == "otherwise" else "left")
    for verdict in verdicts:
        kept = "[green]kept[/]" if verdict.kept else "[red]broken[/]"
        table.add_row(verdict.promise, verdict.checked, f"{verdict.violations:,}", kept)
        for example in verdict.examples:
            table.add_row("", f"  {example}", "", "")
    return table


def results(verdicts: Iterable[Verdict], incidents: Sequence[Incident], patience_s: float) -> list[Result]:
    """Give the figures: of each promise how often it was broken, of each kind of incident how long things took.

    Parameters
    ----------
    verdicts, incidents
        What was found.
    patience_s
        The longest that anything may take.
    """
    figures = [
        Result(f"not so: {verdict.promise} ({verdict.checked})", verdict.violations, "", 0) for verdict in verdicts
    ]
    for victim in dict.fromkeys(one.victim for one in incidents):
        some = [one for one in incidents if one.victim == victim]
        for what, times in (
            ("works again", [one.works_s for one in some]),
            ("the ledger goes on", [one.progress_s for one in some]),
        ):
            figures.append(Result(f"{victim} struck: {what}, median of {len(some)}", round(median(times), 2), "s"))
            figures.append(Result(f"{victim} struck: {what}, longest", round(max(times), 2), "s", patience_s))
    for one in incidents:
        place = f"{one.number}. {one.victim}, {one.what}, in the shift of {one.shift}"
        figures.append(Result(f"struck: {place}: after the start", round(one.at_s, 2), "s"))
        figures.append(Result(f"struck: {place}: mended after", round(one.outage_s, 2), "s"))
        figures.append(Result(f"struck: {place}: the ledger goes on after", round(one.progress_s, 2), "s", patience_s))
    return figures
