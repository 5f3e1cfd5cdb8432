"""How verdicts, numbers and limits look to people: one wording, symbol and colour each, in terminal and markdown.

Belongs here: text of scorecards for the terminal (rich) and for Dagster's metadata (markdown), and the words they share
with comparisons and the report. Doesn't: deciding anything, HTML (`validation.report`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from rich.table import Table as RichTable
from rich.text import Text

from validation.scorecard import Row, Scorecard, Verdict
from validation.thresholds import limit_text

SYMBOLS: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.PASSED: "✔",
        Verdict.WARNED: "!",
        Verdict.FAILED: "✘",
        Verdict.NOT_MEASURABLE: "–",
        Verdict.WAIVED: "~",
    }
)
"""A sign a verdict, so that none is told by its colour alone."""

STYLES: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.PASSED: "green",
        Verdict.WARNED: "yellow",
        Verdict.FAILED: "bold red",
        Verdict.NOT_MEASURABLE: "dim",
        Verdict.WAIVED: "magenta",
    }
)


def number_text(value: float | None, unit: str = "", *, signed: bool = False) -> str:
    """Write a number with three significant digits and its unit; a dash where there is none.

    Parameters
    ----------
    value
        The number.
    unit
        Shown after it; ``%`` too.
    signed
        With a plus sign where positive.
    """
    if value is None:
        return "–"
    sign = "+" if signed else ""
    if value == 0 or 0.001 <= abs(value) < 1e5:
        digits = f"{value:{sign}.3g}" if abs(value) < 1000 else f"{value:{sign}.0f}"
    else:
        digits = f"{value:{sign}.1e}"
    return f"{digits} {unit}".rstrip()


def verdict_text(verdict: Verdict) -> str:
    """Write a verdict with its sign.

    Parameters
    ----------
    verdict
        Of a row or a scorecard.
    """
    return f"{SYMBOLS[verdict]} {verdict}"


def remark(row: Row) -> str:
    """Say what a reader has to know beside the numbers: who waived it, whether it holds, how it was measured.

    Parameters
    ----------
    row
        Of a scorecard.
    """
    parts = [
        f"waived by {row.waiver.by}: {row.waiver.why}" if row.waiver and row.verdict is Verdict.WAIVED else "",
        "blocks what depends on it" if row.holds else "",
        row.detail,
    ]
    return "; ".join(part for part in parts if part)


def scorecard_table(scorecard: Scorecard) -> RichTable:
    """Render a scorecard for the terminal: bands that nobody could measure on one line, remarks where all isn't well.

    Parameters
    ----------
    scorecard
        Any.
    """
    table = RichTable(
        title=f"Scorecard of {scorecard.scope}",
        caption=scorecard.summary,
        caption_style=STYLES[scorecard.verdict],
        title_style="bold",
    )
    table.add_column("metric", no_wrap=True)
    table.add_column("band")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("design", justify="right", no_wrap=True)
    table.add_column("minimum", justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("verdict", no_wrap=True)
    table.add_column("remarks", overflow="fold")
    for row, bands in _condensed(scorecard.rows):
        table.add_row(
            Text(row.metric),
            bands,
            Text(number_text(row.value, row.unit)),
            limit_text(row.kind, row.design),
            limit_text(row.kind, row.minimum),
            str(row.n) if row.n else "",
            Text(verdict_text(row.verdict), style=STYLES[row.verdict]),
            Text("" if row.verdict is Verdict.PASSED else remark(row)),
        )
    return table


def scorecard_markdown(scorecard: Scorecard) -> str:
    """Render a scorecard for Dagster's metadata.

    Parameters
    ----------
    scorecard
        Any.
    """
    rows = [
        (
            row.metric,
            row.band,
            number_text(row.value, row.unit),
            limit_text(row.kind, row.design),
            limit_text(row.kind, row.minimum),
            str(row.n) if row.n else "",
            verdict_text(row.verdict),
            remark(row),
        )
        for row in scorecard.rows
    ]
    head = ("metric", "band", "measured", "design", "minimum", "n", "verdict", "remarks")
    return f"**{scorecard.scope}** — {scorecard.summary}\n\n{markdown_table(head, rows, right=(2, 3, 4, 5))}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Write a table in markdown; a bar or line break in a cell can't break it.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Cells, as many as names.
    right
        Positions of the columns that hold numbers.
    """
    rule = ["--:" if position in right else ":--" for position in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _condensed(rows: Iterable[Row]) -> Iterator[tuple[Row, str]]:
    """Give rows and their bands, with neighbouring bands of a metric as one if none of them has a number."""
    for _, same in itertools.groupby(rows, key=lambda row: (row.metric, None if row.value is None else row.band)):
        together = list(same)
        alike = {(row.standing, row.holds, row.minimum) for row in together}
        if len(alike) == 1:
            yield together[0], " ".join(row.band for row in together)
        else:
            yield from ((row, row.band) for row in together)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
