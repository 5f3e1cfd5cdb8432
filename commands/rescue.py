"""`drp rescue` and `drp quarantine`: what failed, why, what was decided, and doing exactly that again.

Belongs here: the commands, thin. Doesn't: what a rescue does (`launchers.rescue`), how it is started
(`commands.backfill`), or the record of decisions (`launchers.casebook`).
"""

from __future__ import annotations

import dataclasses
import getpass
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Annotated

import typer
from rich.table import Table

from commands.backfill import check_task, find_release, find_step, launch_backfill
from commands.console import make_console
from drp_assets.submissions import UNCHANGED, request_at
from launchers.attempts import Work, attempts_of, current_work
from launchers.casebook import Casebook
from launchers.causes import alike, place_of
from launchers.outcome import QuantumFailure
from launchers.rescue import Remains, cause_of, of_causes, read_remains
from launchers.selection import checked
from planning.pipeline import Step
from planning.release import Release
from resources.butler import open_butler
from resources.errors import Rejected
from resources.site import Site, read_site

_SHOWN_CASES = 200
_SHOWN_CAUSES = 20


def find_remains(
    site: Site, release: Release, step: Step, partitions: list[str]
) -> Iterator[tuple[Work, Remains | Rejected]]:
    """Find what is left of a step, for each piece of work that somebody has submitted; or why that can't be said yet.

    What is left of a piece of work is told for those of its partitions that are asked about.

    Parameters
    ----------
    site, release, step
        Where, of what.
    partitions
        Only these; none: all.

    Raises
    ------
    resources.errors.Rejected
        Nothing was submitted for one of the partitions, or nothing at all.
    """
    with closing(Casebook(site.ledger)) as casebook:
        quarantined = [entry.data_id for entry in casebook.quarantined(release.name)]
    works = current_work(attempts_of(site.submissions, release.name, step.short))
    _check_submitted(release, step, partitions, {key for work in works for key in work.partitions}, bool(works))
    for current in works:
        asked = tuple(key for key in current.partitions if key in partitions)
        if partitions and not asked:
            continue
        work = dataclasses.replace(current, partitions=asked or current.partitions)
        request = request_at(site, release, step, work.last.key, work.last.folder, UNCHANGED)
        is_whole = work.partitions == work.last.key.partitions
        try:
            remains = read_remains(request, work.attempts, quarantined, () if is_whole else work.partitions)
        except Rejected as error:
            yield work, error
            continue
        if remains is not None and remains.quanta:
            yield work, remains


def _check_submitted(
    release: Release, step: Step, partitions: list[str], submitted: Collection[str], is_any: bool
) -> None:
    where = f"{release.name} {step.label}"
    if not is_any:
        raise Rejected("nothing was submitted so far", where, "there is nothing to rescue before its first run")
    if unknown := [key for key in partitions if key not in submitted]:
        known = f"submitted were: {', '.join(sorted(submitted))}" if submitted else "it runs whole: name none"
        raise Rejected(f"nothing was submitted for {', '.join(unknown)}", where, known)


def rescue(
    release: Annotated[str, typer.Argument(help="name of the release")],
    step: Annotated[str, typer.Argument(help="such as step1a")],
    partitions: Annotated[list[str] | None, typer.Argument(help="day_obs or tracts; none: all that was run")] = None,
    cause: Annotated[
        list[str] | None, typer.Option(help="only failures whose 'task: exception: message' has this in it (regex)")
    ] = None,
    memory: Annotated[list[str] | None, typer.Option(help="task=MB, for the rescue only")] = None,
    show: Annotated[bool, typer.Option("--show", help="list what was decided about failures so far")] = False,
    really: Annotated[bool, typer.Option("--really", help="do it; otherwise only say what would be done")] = False,
    url: Annotated[str, typer.Option(envvar="DRP_UI", help="address of Dagster's web UI")] = "http://127.0.0.1:3000",
) -> None:
    """Do again exactly what failed in a step; without --really, say what that is, by cause."""
    found, _, chosen = find_step(release, step)
    site = read_site()
    if show:
        _show_cases(site, found, chosen)
        return
    console = make_console()
    memory_mb = _memory(memory or [], chosen)
    of_causes((), cause or [])  # what can't be understood is said also where nothing is left
    launched = named = unfinished = 0
    for work, remains in find_remains(site, found, chosen, partitions or []):
        if isinstance(remains, Rejected):
            console.print(str(remains), soft_wrap=True)
            unfinished += 1
            continue
        failures = of_causes(remains.outcome.failures, cause or [])
        if cause and not failures:
            continue
        named += 1
        for line in _lines(work, remains, failures):
            console.print(line, soft_wrap=True)
        if really:
            settings = {"rescue": True, "causes": cause or [], "memory_mb": memory_mb}
            identifier = launch_backfill(url, found, chosen, list(work.partitions), [], settings=settings)
            last = work.last.key
            console.print(f"{last.name}: attempt {last.attempt + 1} asked for: {identifier}, see {url}/runs")
            launched += 1
    if not named and not unfinished:
        what = " for that cause" if cause else ""
        console.print(f"{found.name} {chosen.label}: nothing is left to rescue{what}")
    elif named and not launched:
        console.print(f"{named} {'rescue' if named == 1 else 'rescues'} would be started: repeat with --really")


def _memory(asked: list[str], step: Step) -> dict[str, int]:
    memory = {}
    for each in asked:
        task, _, number = each.partition("=")
        if not _is_number(number):
            raise Rejected("not of the form task=MB", each, "such as calibrateImage=8192")
        check_task(task, step)
        memory[task] = int(number)
    return memory


def _lines(work: Work, remains: Remains, failures: list[QuantumFailure]) -> list[str]:
    waiting = len(remains.quanta) - len(remains.outcome.failures)
    what = f"{len(failures)} failed, {waiting} quanta wait for what failed"
    return [f"{work.last.key.name} ({', '.join(work.partitions) or 'whole'}): {what}", *cause_lines(failures)]


def cause_lines(failures: Iterable[QuantumFailure]) -> Iterator[str]:
    """Say what failed, a line for each cause in the words of one failure, the most frequent first.

    Parameters
    ----------
    failures
        What failed.
    """
    groups: dict[tuple[str, str, str], list[QuantumFailure]] = {}
    for failure in failures:
        groups.setdefault((failure.task, failure.exception, alike(failure.message)), []).append(failure)
    frequent = sorted(groups.values(), key=len, reverse=True)
    for some in frequent[:_SHOWN_CAUSES]:
        first = some[0]
        where = f"{_data_id(first.data_id)}{place_of(first)}, log {first.log or 'none'}"
        yield f"  {len(some)} × {cause_of(first)}; such as {where}"
    if more := frequent[_SHOWN_CAUSES:]:
        yield f"  {sum(map(len, more))} of {len(more)} more causes: see --show"


def _show_cases(site: Site, release: Release, step: Step) -> None:
    with closing(Casebook(site.ledger)) as casebook:
        cases = casebook.cases(release.name, step=step.short, limit=_SHOWN_CASES + 1)
    table = Table(
        "decided", "submission", "task", "data ID", "cause", "node", "memory (MB)", "done about it", "policy", "log"
    )
    for case in cases[:_SHOWN_CASES]:
        done = f"{case.action} ({case.memory_mb} MB)" if case.memory_mb else case.action
        table.add_row(
            f"{case.noted_at:%Y-%m-%d %H:%M}",
            case.submission,
            case.task,
            _data_id(case.data_id),
            f"{case.exception}: {case.message}",
            case.node or "",
            f"{case.used_mb:.0f}" if case.used_mb else "",
            done,
            case.policy,
            case.log,
        )
    console = make_console()
    console.print(table)
    if len(cases) > _SHOWN_CASES:
        console.print(f"the latest {_SHOWN_CASES}; there are earlier ones")


def _data_id(data_id: Mapping[str, int | str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in data_id.items())


app = typer.Typer(no_args_is_help=True, help="Data IDs that a release leaves out.")


@app.command("list")
def list_quarantined(
    release: Annotated[str, typer.Argument(help="name of the release")],
    history: Annotated[bool, typer.Option("--history", help="also those that have been readmitted")] = False,
) -> None:
    """List the data IDs that are left out, since when, by whom and why."""
    found = find_release(release)
    with closing(Casebook(read_site().ledger)) as casebook:
        entries = casebook.quarantined(found.name, history=history)
    table = Table("data ID", "since", "by", "why", "readmitted")
    for entry in entries:
        at = entry.readmitted_at
        back = f"{at:%Y-%m-%d %H:%M} by {entry.readmitted_by}: {entry.readmitted_why}" if at else ""
        table.add_row(_data_id(entry.data_id), f"{entry.since:%Y-%m-%d %H:%M}", entry.by, entry.why, back)
    make_console().print(table)


@app.command("add")
def add(
    release: Annotated[str, typer.Argument(help="name of the release")],
    data_id: Annotated[list[str], typer.Argument(help="such as instrument=LSSTCam visit=2025062100561 detector=3")],
    why: Annotated[str, typer.Option(help="for whoever asks later")],
) -> None:
    """Leave a data ID out from now on; what is running already is not changed."""
    found, site = find_release(release), read_site()
    with open_butler(site.butler) as butler:
        parsed = checked(parse_data_id(data_id), butler.dimensions)
    for name, only in (("instrument", found.instrument), ("skymap", found.skymap)):
        if parsed.get(name, only) != only:
            raise Rejected(f"{found.name} has no data of it", f"{name}={parsed[name]}", f"its {name} is {only}")
    with closing(Casebook(site.ledger)) as casebook:
        new = casebook.quarantine(found.name, [parsed], why=why, by=getpass.getuser())
    make_console().print(f"{_data_id(parsed)}: {'is left out from now on' if new else 'was left out already'}")


@app.command("readmit")
def readmit(
    release: Annotated[str, typer.Argument(help="name of the release")],
    data_id: Annotated[list[str], typer.Argument(help="as `drp quarantine list` shows it")],
    why: Annotated[str, typer.Option(help="for whoever asks later")],
) -> None:
    """Take a data ID in again; run or rescue its step to have it done."""
    found, parsed = find_release(release), parse_data_id(data_id)
    with closing(Casebook(read_site().ledger)) as casebook:
        shown = {key: str(value) for key, value in parsed.items()}
        # As it is shown: a name may look like a number.
        meant = [
            entry.data_id
            for entry in casebook.quarantined(found.name)
            if {key: str(value) for key, value in entry.data_id.items()} == shown
        ]
        done = casebook.readmit(found.name, meant, why=why, by=getpass.getuser())
    if not done:
        raise Rejected("is not left out", json.dumps(parsed), f"see `drp quarantine list {found.name}`")
    make_console().print(f"{_data_id(parsed)}: taken in again")


def parse_data_id(words: list[str]) -> dict[str, int | str]:
    """Read a data ID as it is typed.

    Parameters
    ----------
    words
        ``key=value``, with or without a comma after them; what looks like a number is one.

    Raises
    ------
    resources.errors.Rejected
        A word is something else, or names what another one names already.
    """
    data_id: dict[str, int | str] = {}
    for word in words:
        key, _, value = word.rstrip(",").partition("=")
        if not key or not value:
            raise Rejected("not of the form key=value", word, "such as visit=2025062100561")
        if key in data_id:
            raise Rejected("is named twice", key, "give one data ID at a time")
        data_id[key] = int(value) if _is_number(value) else value
    return data_id


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()
