"""Two scorecards side by side: before and after a reprocessing, this release and the last.

Belongs here: pairing rows, deltas, what changed for better or worse, and its rendering. Pure but for rendering.
Doesn't: making the scorecards (`validation.scorecard`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rich.table import Table as RichTable
from rich.text import Text

from validation.rendering import STYLES, markdown_table, number_text, verdict_text
from validation.scorecard import Row, Scorecard, Verdict
from validation.thresholds import badness

SAME_WITHIN = 0.01
"""Relative change below which a number counts as the same."""


class Change(StrEnum):
    """What became of a row."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    APPEARED = "appeared"
    VANISHED = "vanished"


_CHANGE_STYLES = {
    Change.BETTER: "green",
    Change.WORSE: "red",
    Change.SAME: "dim",
    Change.APPEARED: "cyan",
    Change.VANISHED: "yellow",
}


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One requirement in one band, twice; a side on which it doesn't exist is None."""

    before: Row | None
    after: Row | None

    @property
    def either(self) -> Row:
        """The later side that exists, for metric, band and unit."""
        row = self.after or self.before
        assert row is not None, "a compared row has a side"
        return row

    @property
    def delta(self) -> float | None:
        """After minus before, in the row's unit; None unless both were measured in the same unit."""
        if self.before is None or self.after is None or self.before.value is None or self.after.value is None:
            return None
        return self.after.value - self.before.value if self.before.unit == self.after.unit else None

    @property
    def verdict_changed(self) -> bool:
        """Whether the two verdicts differ."""
        return _verdict(self.before) is not _verdict(self.after)

    @property
    def change(self) -> Change:
        """Better or worse by the threshold's own direction; within 1 % is the same."""
        before = self.before.value if self.before else None
        after = self.after.value if self.after else None
        if before is None and after is None:
            return Change.SAME
        if before is None:
            return Change.APPEARED
        if after is None:
            return Change.VANISHED
        was, now = badness(self.either, before), badness(self.either, after)
        if abs(now - was) <= SAME_WITHIN * max(abs(was), abs(now)):
            return Change.SAME
        return Change.WORSE if now > was else Change.BETTER


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two scorecards, row by row."""

    before: Scorecard
    after: Scorecard
    rows: tuple[ComparedRow, ...]

    @property
    def changed_verdicts(self) -> tuple[ComparedRow, ...]:
        """The rows an operator looks at first."""
        return tuple(row for row in self.rows if row.verdict_changed)

    @property
    def counts(self) -> Mapping[Change, int]:
        """How many rows went which way, zero included."""
        found = Counter(row.change for row in self.rows)
        return {change: found[change] for change in Change}

    @property
    def summary(self) -> str:
        """One line: ``3 better, 1 worse, 12 same; 1 verdict changed; warned → passed``."""
        parts = [f"{count} {change}" for change, count in self.counts.items() if count]
        changed = len(self.changed_verdicts)
        verdicts = f"{changed} verdict{'' if changed == 1 else 's'} changed"
        return f"{', '.join(parts) or 'no rows'}; {verdicts}; {self.before.verdict} → {self.after.verdict}"


def compare(before: Scorecard, after: Scorecard) -> Comparison:
    """Pair the rows of two scorecards by metric and band.

    Parameters
    ----------
    before, after
        Judged by the same thresholds or not.

    Returns
    -------
    Comparison
        In the order of ``after``, then what only ``before`` has.
    """
    old = {(row.metric, row.band): row for row in before.rows}
    new = {(row.metric, row.band): row for row in after.rows}
    keys = [*new, *(key for key in old if key not in new)]
    return Comparison(before, after, tuple(ComparedRow(old.get(key), new.get(key)) for key in keys))


def comparison_table(comparison: Comparison) -> RichTable:
    """Render a comparison for the terminal.

    Parameters
    ----------
    comparison
        Any.
    """
    title = f"{comparison.before.scope} → {comparison.after.scope}"
    table = RichTable(title=title, caption=comparison.summary, title_style="bold")
    for name in ("metric", "band", "before", "after", "change"):
        table.add_column(name, justify="left" if name in {"metric", "band"} else "right", no_wrap=True)
    table.add_column("")
    table.add_column("verdict")
    for row in comparison.rows:
        table.add_row(
            row.either.metric,
            row.either.band,
            _value(row.before),
            _value(row.after),
            number_text(row.delta, signed=True),
            Text(row.change, style=_CHANGE_STYLES[row.change]),
            _verdict_change(row),
        )
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """Render a comparison for Dagster's metadata.

    Parameters
    ----------
    comparison
        Any.
    """
    rows = [
        (
            row.either.metric,
            row.either.band,
            _value(row.before),
            _value(row.after),
            number_text(row.delta, signed=True),
            str(row.change),
            f"**{_verdict_change(row)}**" if row.verdict_changed else str(_verdict_change(row)),
        )
        for row in comparison.rows
    ]
    head = ("metric", "band", "before", "after", "change", "", "verdict")
    title = f"**{comparison.before.scope} → {comparison.after.scope}** — {comparison.summary}"
    return f"{title}\n\n{markdown_table(head, rows, right=(2, 3, 4))}"


def _value(row: Row | None) -> str:
    return number_text(row.value, row.unit) if row else "–"


def _verdict(row: Row | None) -> Verdict | None:
    return row.verdict if row else None


def _verdict_change(row: ComparedRow) -> Text:
    after = _side(row.after)
    return Text.assemble(_side(row.before), " → ", after) if row.verdict_changed else after


def _side(row: Row | None) -> Text:
    return Text(verdict_text(row.verdict), style=STYLES[row.verdict]) if row else Text("absent", style="dim")
