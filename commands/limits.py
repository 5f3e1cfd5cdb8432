"""`drp limits`: how much runs at a time, from the site profile into Dagster.

Belongs here: the command. Doesn't: what the limits mean (`drp_assets.limits`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
import typer
import yaml
from dagster._core.errors import DagsterError, DagsterInvalidConfigError
from dagster_postgres.utils import DagsterPostgresException
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from commands.backfill import find_release
from commands.console import make_console
from drp_assets.limits import concurrency, pool_limits, set_pool_limits
from drp_assets.plans import plan_of
from resources.documents import read_yaml
from resources.errors import Rejected, Retriable, SiteFault
from resources.site import read_site


def limits(
    releases: Annotated[list[str] | None, typer.Argument(help="names of releases whose steps are limited")] = None,
    instance: Annotated[
        Path | None, typer.Option(help="print this dagster.yaml with the site's limits, for $DAGSTER_HOME")
    ] = None,
    really: Annotated[
        bool, typer.Option("--really", help="write the steps' limits into Dagster; otherwise only show them")
    ] = False,
) -> None:
    """Limit runs by site, release and step as the site profile says."""
    site = read_site()
    if instance is not None:
        content = _read_settings(instance)
        content["concurrency"] = concurrency(site.limits, content.get("concurrency"), str(instance))
        typer.echo(yaml.safe_dump(content, sort_keys=False), nl=False)
        return
    if not releases:
        raise Rejected("no release is named", "limits", "name those whose steps are limited, such as `drp limits demo`")
    if really and not Path(os.environ.get("DAGSTER_HOME", "")).is_absolute():
        raise SiteFault(
            "it names no absolute folder", "DAGSTER_HOME", "export it as for Dagster's daemon, whose limits these are"
        )
    table = Table("pool", "runs at a time")
    sizes: dict[str, int] = {}
    unknown = set(site.limits.steps)
    for name in releases:
        release = find_release(name)
        steps = plan_of(release, site.state / "plans").steps
        sizes |= pool_limits(site.limits, release, steps)
        unknown -= {step.short for step in steps}
    for pool, size in sizes.items():
        table.add_row(pool, str(size))
    console = make_console()
    console.print(table)
    if unknown:
        console.print(f"limits.steps: no such step in {', '.join(releases)}: {', '.join(sorted(unknown))}")
    if really:
        with _instance(Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml") as dagster:
            set_pool_limits(dagster, sizes)
    console.print(f"{len(sizes)} limits written" if really else "nothing written: repeat with --really")


def _read_settings(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise Rejected("holds no keys", str(file), "name a dagster.yaml")
    return content


@contextmanager
def _instance(file: Path) -> Iterator[dg.DagsterInstance]:
    """Open the instance that Dagster's daemon has; whatever is wrong with it is one line."""
    _read_settings(file)
    try:
        with dg.DagsterInstance.get() as opened:
            yield opened
    except DagsterInvalidConfigError as error:
        # What follows is a traceback, or all that would have been right.
        said = re.split(r"Stack Trace:|Expected:", error.errors[0].message)[0]
        raise Rejected(" ".join(said.split()), str(file), "export what Dagster's daemon has, or mend it") from error
    except (DagsterPostgresException, SQLAlchemyError) as error:
        raise Retriable(f"Dagster's database: {_line(error.__cause__ or error)}", str(file), "is it up?") from error
    except DagsterError as error:
        raise Rejected(_line(error), str(file), "mend it") from error


def _line(said: object) -> str:
    return next(iter(str(said).strip().splitlines()), type(said).__name__)
