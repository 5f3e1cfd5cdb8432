"""`drp ingest` and `drp ingestd`: what has come, what waits, what was refused; and arrivals without a sensor.

Belongs here: the commands, thin. Doesn't: reading, ingesting or counting (`arrivals`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from arrivals.completeness import day_completeness
from arrivals.daemon import run_daemon, stopped_by_signals
from arrivals.ledger import Ledger
from arrivals.records import LedgerRow
from arrivals.states import State
from commands.console import make_console
from resources.butler import open_butler
from resources.errors import Rejected
from resources.site import Site, read_site

app = typer.Typer(no_args_is_help=True, help="What has come, and what became of it.")


@contextmanager
def _site_ledger() -> Iterator[tuple[Site, Ledger]]:
    site = read_site()
    ledger = Ledger(site.ledger)
    try:
        yield site, ledger
    finally:
        ledger.close()


def ingestd() -> None:
    """Drain Kafka and ingest until told to stop; for sites that want no sensor."""
    with _site_ledger() as (site, ledger), stopped_by_signals() as stop:
        butler = open_butler(site.butler, writeable=True)
        run_daemon(site.kafka, site.arrivals, ledger, butler, stop, poll_s=site.arrivals.interval_s)


@app.command("status")
def status() -> None:
    """Count messages by day_obs and state."""
    with _site_ledger() as (_, ledger):
        table = Table("day_obs", *State, "bytes", "last received")
        for day_obs, summary in ledger.by_day_obs().items():
            counts = [str(summary.counts[state]) for state in State]
            received = f"{summary.last_received_at:%Y-%m-%d %H:%M:%S}"
            table.add_row(str(day_obs or "none"), *counts, f"{summary.bytes:,}", received)
        make_console().print(table)


@app.command("day")
def day(day_obs: Annotated[int, typer.Argument(help="YYYYMMDD")]) -> None:
    """Compare what was announced for a day_obs with what is here, exposure by exposure."""
    with _site_ledger() as (site, ledger):
        found = day_completeness(open_butler(site.butler), ledger, site.arrivals, day_obs)
    table = Table("exposure", "arrived", "missing detectors", "waiting", "quarantined")
    for exposure in found.exposures:
        missing = ", ".join(map(str, sorted(exposure.missing)))
        arrived = f"{len(exposure.arrived)}/{len(exposure.expected)}"
        table.add_row(str(exposure.exposure), arrived, missing, str(exposure.unfinished), str(exposure.quarantined))
    console = make_console()
    console.print(table)
    console.print(f"{day_obs}: {found.arrived} of {found.expected} raws, {len(found.incomplete)} exposures incomplete")


@app.command("waiting")
def waiting() -> None:
    """List what waits, and for what."""
    with _site_ledger() as (_, ledger):
        _print_rows(ledger.find(state=State.WAITING))


@app.command("quarantine")
def quarantine() -> None:
    """List what was refused, and why."""
    with _site_ledger() as (_, ledger):
        _print_rows(ledger.find(state=State.QUARANTINED))


@app.command("trace")
def trace(did: Annotated[str, typer.Argument(help="scope:name")]) -> None:
    """Tell what became of one DID."""
    scope, _, name = did.partition(":")
    if not name:
        raise Rejected("not a DID", did, "write it as scope:name")
    with _site_ledger() as (_, ledger):
        rows = ledger.find(scope=scope, name=name)
    if not rows:
        raise Rejected("never announced here", did, "see `drp ingest status` for what was")
    _print_rows(rows)


@app.command("replay")
def replay(
    did: Annotated[str, typer.Argument(help="scope:name")],
    really: Annotated[bool, typer.Option("--really", help="do it; otherwise only say what would be done")] = False,
) -> None:
    """Have what was quarantined tried again."""
    scope, _, name = did.partition(":")
    with _site_ledger() as (_, ledger):
        rows = [row for row in ledger.find(scope=scope, name=name) if row.state is State.QUARANTINED]
        if not rows:
            raise Rejected("nothing of it is quarantined", did, "see `drp ingest trace`")
        done = ledger.replay([row.row_id for row in rows]) if really else 0
    said = f"{done} messages will be tried again" if really else f"{len(rows)} messages would be: repeat with --really"
    make_console().print(said)


def _print_rows(rows: Iterable[LedgerRow]) -> None:
    table = Table("message", "DID", "state", "attempts", "reason")
    for row in rows:
        place = f"{row.topic}[{row.partition}]@{row.offset}"
        table.add_row(place, row.did, row.state, str(row.attempts), row.reason)
    make_console().print(table)
