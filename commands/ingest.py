"""`drp ingest`: what has come, what waits, what was refused, what is missing; and having it tried again.

Belongs here: the commands, thin. Doesn't: reading, ingesting or counting (`arrivals`), how messages are chosen
(`commands.choosing`) or shown (`commands.arrival_tables`), or arrivals without a sensor (`commands.ingestd`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, generate_latest
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from arrivals.announcement import Kind
from arrivals.causes import surest_fragment
from arrivals.completeness import Readiness, day_completeness
from arrivals.health import counted, judge, observe
from arrivals.ledger import Ledger
from arrivals.metrics import ArrivalsCollector, LedgerAway
from arrivals.overview import CauseGroup, Overview, Selection
from arrivals.records import LedgerRow
from arrivals.states import State
from commands import arrival_tables as shown
from commands.choosing import (
    LARGEST,
    LATEST_DAY_OBS,
    DayObs,
    Exposure,
    Json,
    OfKind,
    Reason,
    Since,
    Until,
    choose,
    place_in,
    split_did,
    time_of,
)
from commands.console import make_console
from resources.butler import open_butler
from resources.databases import database_trouble
from resources.errors import OperatorError, Rejected, Retriable, SiteFault
from resources.site import Site, read_site

app = typer.Typer(no_args_is_help=True, help="What has come, and what became of it.")

PACES_S = (600.0, 86400.0)
"""Over these spans, status says how fast things went."""

_ROWS_A_REPLAY = 1_000
_DAYS = 14

All = Annotated[bool, typer.Option("--all", help="every message, not every cause")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=LARGEST, help="with --all: at most so many")]


@contextmanager
def site_ledger() -> Iterator[tuple[Site, Ledger, Overview]]:
    """Open the ledger of the site that the environment names.

    Yields
    ------
    site, ledger, overview
        Open while the context lasts.
    """
    site = read_site()
    ledger = Ledger(site.ledger)
    try:
        yield site, ledger, Overview(ledger)
    except DBAPIError as error:
        raise database_trouble(error, ledger.engine) from error
    finally:
        ledger.close()


@app.command("status")
def status(
    days: Annotated[int, typer.Option("--days", min=0, help="so many day_obs, the newest")] = _DAYS,
    as_json: Json = False,
) -> None:
    """Say how arrivals are: counts, lag, the oldest that waits, how fast things go, and each day_obs."""
    with site_ledger() as (site, ledger, overview):
        now = datetime.now(UTC)
        seen = observe(site.kafka, site.arrivals, ledger, overview, now)
        paces = [overview.pace(now, now - timedelta(seconds=span)) for span in PACES_S]
        by_day = sorted(ledger.by_day_obs(now=now).values(), key=lambda day: day.day_obs or 0)
        causes = overview.causes({State.WAITING, State.QUARANTINED})
    findings = judge(seen, site.arrivals)
    if as_json:
        shown.print_json(
            {
                "site": site.name,
                "now": now,
                "states": {state: seen.rows(state) for state in State},
                "kinds": seen.by_kind(),
                "kafka_lag": seen.lag,
                "kafka_trouble": seen.lag_trouble,
                "last_received_at": seen.last_received_at,
                "oldest_received_s": seen.oldest_s(State.RECEIVED),
                "oldest_waiting_s": seen.oldest_s(State.WAITING),
                "paces": paces,
                "findings": findings,
                "causes": causes,
                "days": by_day,
            }
        )
        return
    console = make_console()
    for line in shown.status_lines(site.name, seen, findings, paces):
        console.print(line, soft_wrap=True)
    if days and by_day:
        console.print(shown.day_table(by_day[-days:]))
        if len(by_day) > days:
            console.print(f"{len(by_day) - days} earlier day_obs: --days {len(by_day)}")


@app.command("day")
def day(
    day_obs: Annotated[int, typer.Argument(min=0, max=LATEST_DAY_OBS, help="YYYYMMDD")],
    everything: Annotated[bool, typer.Option("--all", help="also exposures that are complete")] = False,
    as_json: Json = False,
) -> None:
    """Compare what was expected of a day_obs with what is here, exposure by exposure and detector by detector."""
    with site_ledger() as (site, ledger, _):
        found = day_completeness(open_butler(site.butler), ledger, site.arrivals, day_obs)
    readiness = found.readiness(datetime.now(UTC), site.arrivals.quiescent_s)
    if readiness is Readiness.EMPTY and not as_json:
        raise Rejected("nothing was announced, and nothing is here", str(day_obs), "see `drp ingest status`")
    if as_json:
        missing = {exposure.exposure: exposure.why_missing for exposure in found.incomplete}
        counts = {"readiness": readiness, "expected": found.expected, "arrived": found.arrived}
        shown.print_json({**counts, "missing": missing, "remarks": found.remarks, **shown.plain(found)})
        return
    console = make_console()
    if everything or found.incomplete:
        console.print(shown.day_lines(found, everything=everything))
    console.print(
        f"{day_obs} is {readiness}: {found.arrived:,} of {found.expected:,} raws, "
        f"{len(found.incomplete):,} of {len(found.exposures):,} exposures incomplete, "
        f"{found.unfinished:,} messages unfinished"
    )
    for remark in found.remarks:
        console.print(remark)


@app.command("waiting")
def waiting(
    day_obs: DayObs = None,
    exposure: Exposure = None,
    kind: OfKind = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    every: All = False,
    limit: Limit = 1_000,
    as_json: Json = False,
) -> None:
    """Say what waits and for what, a line a cause."""
    chosen = choose(exposure=exposure, day_obs=day_obs, kind=kind, reason=reason, since=since, until=until)
    _list(State.WAITING, chosen, every=every, limit=limit, as_json=as_json)


@app.command("quarantine")
def quarantine(
    day_obs: DayObs = None,
    exposure: Exposure = None,
    kind: OfKind = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    every: All = False,
    limit: Limit = 1_000,
    as_json: Json = False,
) -> None:
    """Say what was refused and why, a line a cause."""
    chosen = choose(exposure=exposure, day_obs=day_obs, kind=kind, reason=reason, since=since, until=until)
    _list(State.QUARANTINED, chosen, every=every, limit=limit, as_json=as_json)


@app.command("replay")
def replay(
    did: Annotated[str | None, typer.Argument(help="scope:name, or the name alone")] = None,
    day_obs: DayObs = None,
    exposure: Exposure = None,
    kind: OfKind = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--everything", help="all that is in quarantine")] = False,
    really: Annotated[bool, typer.Option("--really", help="do it; otherwise only say what would be done")] = False,
    as_json: Json = False,
) -> None:
    """Have what is in quarantine tried again, once its cause is mended; without --really, say what that would be."""
    chosen = choose(did=did, exposure=exposure, day_obs=day_obs, kind=kind, reason=reason, since=since, until=until)
    if chosen.is_everything and not everything:
        raise Rejected("nothing is chosen", "drp ingest replay", "name a DID, --reason, --day-obs, …, or --everything")
    with site_ledger() as (_, ledger, overview):
        groups = overview.causes({State.QUARANTINED}, chosen)
        hopeless = sum(group.rows for group in groups if group.kind is None)
        able = sum(group.rows for group in groups) - hopeless
        done = _replay(ledger, overview, chosen) if really and able else 0
    if as_json:
        shown.print_json({"causes": groups, "able": able, "not_understood": hopeless, "replayed": done})
        return
    if not groups:
        raise Rejected("nothing of it is quarantined", "drp ingest replay", "see `drp ingest quarantine`")
    console = make_console()
    console.print(shown.cause_table(groups, datetime.now(UTC)))
    if hopeless:
        console.print(f"never understood, to be sent again by who wrote them: {counted(hopeless, 'message')}")
    if really:
        console.print(f"{counted(done, 'message')} will be tried again, at the next ingest")
    else:
        console.print(f"{counted(able, 'message')} would be tried again: repeat with --really")


@app.command("trace")
def trace(
    did: Annotated[str, typer.Argument(help="scope:name, the name alone, or a message's place as --all lists it")],
    as_json: Json = False,
) -> None:
    """Tell all that is known of one DID or one message: each message about it, and its datasets."""
    place = place_in(did)
    scope, name = split_did(did) if place is None else (None, None)
    with site_ledger() as (site, ledger, overview):
        rows = ledger.find(scope=scope, name=name, place=place)
        retired = ledger.retired(scope, name) if name is not None else []
        if not rows and not retired:
            raise Rejected("never announced here", did, "see `drp ingest status` for what was")
        times = overview.transfer_times([row.row_id for row in rows])
        datasets = [_datasets(site, row) for row in rows]
    if as_json:
        shown.print_json(
            [
                *({**asdict(file), "state": "retired"} for file in retired),
                *(
                    {**asdict(row), "transfer": times[row.row_id], "datasets": found}
                    for row, found in zip(rows, datasets, strict=True)
                ),
            ]
        )
        return
    console = make_console()
    for file in retired:
        console.print(shown.remembered(file), soft_wrap=True)
    for row, found in zip(rows, datasets, strict=True):
        for line in shown.story(row, times[row.row_id], found, datetime.now(UTC)):
            console.print(line, soft_wrap=True)


@app.command("retire")
def retire(
    before: Annotated[str, typer.Option("--before", help="a date, or a span such as 52w; whole months go")],
    really: Annotated[bool, typer.Option("--really", help="do it; otherwise only say what would be done")] = False,
) -> None:
    """Let go of the rows of past months; what was ingested is recognised for ever, what is in quarantine goes too."""
    now = datetime.now(UTC)
    time = min(time_of(before, now, "--before"), now)
    month = time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    console = make_console()
    with site_ledger() as (_, ledger, overview):
        if not really:
            old = overview.rows_by_state(Selection(until=month))
            counts = ", ".join(f"{rows:,} {state}" for state, rows in old.items() if rows) or "none"
            console.print(f"messages received before {month:%Y-%m}: {counts}")
            console.print("months with nothing unfinished would go: repeat with --really")
            return
        gone = ledger.retire(time)
    months = ", ".join(map(str, gone.months)) or "none"
    console.print(f"months retired: {months}; {gone.rows:,} rows, {gone.quarantined:,} of them in quarantine")
    for kept, rows in gone.kept:
        console.print(f"{kept} stays: {rows:,} of its messages wait or are to be ingested")


@dataclass(frozen=True, slots=True)
class _Listing:
    causes: list[CauseGroup]
    messages: list[LedgerRow]


def _list(state: State, chosen: Selection, *, every: bool, limit: int, as_json: bool) -> None:
    with site_ledger() as (_, ledger, overview):
        groups = overview.causes({state}, chosen)
        rows = _rows(ledger, replace(chosen, state=state), limit) if every else []
    if as_json:
        shown.print_json(_Listing(groups, rows))
        return
    console = make_console()
    total = sum(group.rows for group in groups)
    if not groups:
        console.print(f"nothing is {state}" + ("" if chosen.is_everything else ", of what is chosen"))
        return
    if every:
        console.print(shown.row_table(rows))
        if len(rows) < total:
            console.print(f"{len(rows):,} of {total:,} messages: narrow with --reason, --day-obs, …, or raise --limit")
        return
    console.print(shown.cause_table(groups, datetime.now(UTC)))
    console.print(
        Text(f"{counted(total, 'message')}, {counted(len(groups), 'cause')}; --all lists messages, --reason … chooses")
    )


def _rows(ledger: Ledger, chosen: Selection, limit: int) -> list[LedgerRow]:
    wanted = {**asdict(chosen), "reason": surest_fragment(chosen.reason) if chosen.reason else None}
    return [row for row in ledger.find(**wanted, limit=limit) if chosen.means(row.reason)]


def _replay(ledger: Ledger, overview: Overview, chosen: Selection) -> int:
    row_ids = overview.row_ids(State.QUARANTINED, chosen)
    return sum(ledger.replay(some) for some in batched(row_ids, _ROWS_A_REPLAY))


def _datasets(site: Site, row: LedgerRow) -> list[str]:
    """A line for each dataset, or one that says why there is none."""
    if row.kind is Kind.DIMENSIONS:
        return ["none: these are dimension records"]
    if row.kind is None:
        return ["none: the message was never understood"]
    from arrivals.tracing import datasets_of  # the middleware takes seconds, and nobody else here needs it

    try:
        refs = datasets_of(open_butler(site.butler), site.arrivals, row)
    except OperatorError as error:
        return [f"unknown: {error}"]
    return [f"{ref.datasetType.name} {ref.dataId} {ref.id} in {ref.run}" for ref in refs] or ["none in the Butler"]


@app.command("metrics")
def metrics() -> None:
    """Print the metrics of ledger and Kafka once, such as for node_exporter's text files where no daemon runs."""
    registry = CollectorRegistry()
    try:
        with site_ledger() as (site, ledger, overview):
            registry.register(ArrivalsCollector(site.kafka, site.arrivals, ledger, overview))
            told = generate_latest(registry)
    except (Retriable, SiteFault):  # which an alert has to see: a command that fails leaves the last file as it is
        registry = CollectorRegistry()
        registry.register(LedgerAway())
        told = generate_latest(registry)
    typer.echo(told.decode(), nl=False)
