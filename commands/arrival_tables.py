"""How arrivals look to an operator: tables and lines for people, JSON for scripts.

Belongs here: turning values of `arrivals` into text. Doesn't: getting them (`commands.ingest`), or judging them
(`arrivals.health`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from arrivals.completeness import DayCompleteness, ranges
from arrivals.health import Finding, Observation, counted, duration
from arrivals.months import RetiredFile
from arrivals.overview import CauseGroup, Pace, TransferTimes
from arrivals.records import DayObsSummary, LedgerRow
from arrivals.states import State

_LONGEST_REASON = 160


def print_json(value: Any) -> None:
    """Print a value for scripts: times in ISO 8601, keys as text.

    Parameters
    ----------
    value
        Dataclasses, mappings, sequences and plain values.
    """
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Give a value as JSON has it.

    Parameters
    ----------
    value
        As for `print_json`.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {"none" if key is None else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def clock(time: datetime | None) -> str:
    """Write a time in UTC, to the second.

    Parameters
    ----------
    time
        None: an empty string.
    """
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def ago(time: datetime, now: datetime) -> str:
    """Write how long ago a time is; ``soon`` where it is yet to come.

    Parameters
    ----------
    time, now
        In UTC.
    """
    seconds = (now - time).total_seconds()
    return f"in {duration(-seconds)}" if seconds < 0 else f"{duration(seconds)} ago"


def size(count: float) -> str:
    """Write a number of bytes with three digits.

    Parameters
    ----------
    count
        Of bytes.
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"


def status_lines(site: str, seen: Observation, findings: Sequence[Finding], paces: Sequence[Pace]) -> list[Text]:
    """Say how arrivals are, the worst in colour.

    Parameters
    ----------
    site
        Its name.
    seen, findings, paces
        What was observed and judged, and how fast things went.
    """
    counts = ", ".join(f"{seen.rows(state):,} {state}" for state in State)
    total = sum(count.rows for count in seen.states)
    lines = [
        Text(f"{site}, {clock(seen.now)} UTC: {counted(total, 'message')}", style="bold"),
        Text(f"  {counts}"),
    ]
    last = seen.last_received_at
    lines.append(Text(f"  the newest came {ago(last, seen.now)}" if last else "  none has ever come"))
    for pace in paces:
        line = (
            f"  in the last {duration(pace.window_s)}: {pace.received:,} received, {pace.ingested:,} ingested "
            f"({60 * pace.ingested / pace.window_s:,.1f} a minute, {size(pace.ingested_bytes)})"
        )
        if pace.median_s is not None and pace.p95_s is not None:
            line += f"; from message to dataset {pace.median_s:,.0f} s in the median, {pace.p95_s:,.0f} s for 95 %"
        lines.append(Text(line))
    for finding in findings:
        mark, style = ("ok ", "green") if finding.passed else ("!! ", "bold red")
        lines.append(Text.assemble("  ", (mark, style), finding.message))
    return lines


def day_table(days: Iterable[DayObsSummary]) -> Table:
    """Count messages by day_obs and state.

    Parameters
    ----------
    days
        In the order to be shown.
    """
    table = _table("day_obs", *State, "size", "last received")
    for day in days:
        counts = [f"{day.counts[state]:,}" for state in State]
        table.add_row(str(day.day_obs or "none"), *counts, size(day.bytes), clock(day.last_received_at))
    return table


def _table(first: str, *others: str) -> Table:
    """A table that loses nothing on a narrow terminal: what tells lines apart stays whole, all else is folded."""
    table = Table()
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, overflow="fold")
    return table


def cause_table(groups: Iterable[CauseGroup], now: datetime) -> Table:
    """List causes, one a line however many messages have it.

    Parameters
    ----------
    groups
        In the order to be shown.
    now
        The time.
    """
    table = _table("messages", "kind", "since", "tried again", "cause, and an example of it")
    for group in groups:
        again = ago(group.retry_at, now) if group.retry_at else ""
        again = "now" if group.retry_at and group.retry_at <= now else again
        said = Text(group.cause)
        if group.example != group.cause:
            said.append(f"\n{shortened(group.example)}", style="dim")
        since = ago(group.first_received_at, now)
        table.add_row(f"{group.rows:,}", group.kind or "not understood", since, again, said)
    return table


def row_table(rows: Iterable[LedgerRow]) -> Table:
    """List messages one by one.

    Parameters
    ----------
    rows
        In the order to be shown.
    """
    table = _table("message", "DID", "state", "attempts", "received", "reason")
    for row in rows:
        reason = Text(shortened(row.reason))
        did = row.did if row.name else "not understood"
        table.add_row(place_of(row), Text(did), row.state, str(row.attempts), clock(row.received_at), reason)
    return table


def day_lines(day: DayCompleteness, *, everything: bool) -> Table:
    """Compare what is here of each exposure with what was expected, the missing detectors with what is known of them.

    Parameters
    ----------
    day
        One day_obs.
    everything
        Also the exposures that are complete.
    """
    table = _table("exposure", "arrived", "messages unfinished", "quarantined", "missing detectors, and why")
    for exposure in day.exposures if everything else day.incomplete:
        arrived = f"{len(exposure.arrived)}/{len(exposure.expected) or '?'}"
        missing = "\n".join(f"{ranges(detectors)}: {shortened(why)}" for why, detectors in exposure.why_missing.items())
        if not exposure.arrived and not exposure.expected:
            missing = "all: nothing of this day_obs has arrived that would tell which"
        unfinished, quarantined = str(exposure.unfinished), str(exposure.quarantined)
        table.add_row(str(exposure.exposure), arrived, unfinished, quarantined, Text(missing))
    return table


def story(row: LedgerRow, times: TransferTimes, datasets: Sequence[str], now: datetime) -> list[Text]:
    """Tell one message's whole story.

    Parameters
    ----------
    row, times
        What the ledger knows.
    datasets
        What the Butler has because of it, a line each.
    now
        The time.
    """
    numbers = ", ".join(
        f"{name} {value}"
        for name, value in (("day_obs", row.day_obs), ("exposure", row.exposure), ("detector", row.detector))
        if value is not None
    )
    stages = "; ".join(
        f"{name} {clock(time)}"
        for name, time in (
            ("submitted", times.submitted_at),
            ("started", times.started_at),
            ("transferred", times.transferred_at),
            ("announced", times.created_at),
            ("received", row.received_at),
        )
        if time is not None
    )
    state = f"{row.state} since {clock(row.since)}, {counted(row.attempts, 'attempt')}"
    if row.retry_at:
        state += f", tried again {'now' if row.retry_at <= now else ago(row.retry_at, now)}"
    lines = [
        Text(f"{place_of(row)} of cluster {row.cluster}: {row.did if row.name else 'not understood'}", style="bold"),
        Text(f"  what       {row.kind or 'unknown'}{', ' if numbers else ''}{numbers}"),
        Text(f"  file       {row.url or 'unknown'} ({_contents(row)})"),
        Text(f"  transfer   {times.event_type or 'unknown'}, {times.src_rse or '?'} → {times.dst_rse or '?'}"),
        Text(f"  when       {stages} (UTC)"),
        Text(f"  state      {state}"),
    ]
    if row.reason:
        lines.append(Text(f"  reason     {row.reason}"))
    if row.waits_for:
        lines.append(Text(f"  waits for  {row.waits_for}"))
    if row.excerpt:
        lines.append(Text(f"  it begins  {printable(row.excerpt)}"))
    lines += [Text(f"  {'datasets' if not index else '':9}  {line}") for index, line in enumerate(datasets)]
    return lines


def remembered(file: RetiredFile) -> Text:
    """Tell what is left of a file's story once its messages were retired.

    Parameters
    ----------
    file
        What the ledger remembers.
    """
    return Text(f"{file.did}: ingested; its messages were retired since ({_contents(file)})", style="bold")


def _contents(file: RetiredFile | LedgerRow) -> str:
    known = size(file.bytes) if file.bytes is not None else "size unknown"
    return f"{known}, adler32 {file.adler32 or 'unknown'}"


def place_of(row: LedgerRow) -> str:
    """Write where a message stands in Kafka.

    Parameters
    ----------
    row
        The ledger's.
    """
    return f"{row.topic}[{row.partition}]@{row.offset}"


def printable(text: str) -> str:
    """Write a text that anybody may have sent in one line, without anything that a terminal would obey.

    Parameters
    ----------
    text
        Any.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str) -> str:
    """Cut a text that is too long for a table, and say so.

    Parameters
    ----------
    text
        One line.
    """
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"
