"""The `drp` command: its groups, and the outermost rim where an error becomes one line.

Belongs here: putting the groups together and what an operator sees when something goes wrong. Doesn't: any command
itself (a module each).
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from commands.console import make_console
from resources.errors import OperatorError

_INTERRUPTED = 130
"""The exit code that Typer makes of Ctrl-C, which it keeps to itself."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command or group: where it is, and its line in the help."""

    place: str
    help: str

    def load(self, name: str) -> TyperCommand | TyperGroup:
        """Import it."""
        module, _, attribute = self.place.partition(":")
        found = getattr(importlib.import_module(f"commands.{module}"), attribute)
        command: Any
        if isinstance(found, typer.Typer):
            command = get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(name)(found)
            command = get_command(alone)
        command.name = name
        return command


ENTRIES: Mapping[str, Entry] = {
    "demo": Entry("demo:demo", "Simulate a survey, let it arrive, process and validate it."),
    "ingest": Entry("ingest:app", "What has come, and what became of it."),
    "ingestd": Entry("ingestd:ingestd", "Drain Kafka and ingest until told to stop; for sites that want no sensor."),
    "backfill": Entry("backfill:backfill", "Process partitions of a step again, in as few submissions as possible."),
    "rescue": Entry("rescue:rescue", "Do again exactly what failed in a step."),
    "quarantine": Entry("rescue:app", "Data IDs that a release leaves out, and why."),
    "plan": Entry("plan:app", "What a release's pipeline consists of."),
    "limits": Entry("limits:limits", "How much may run at a time, as the site profile says."),
    "site": Entry("site:app", "The site that the profile describes."),
    "certificates": Entry("certificates:certificates", "Until when the site's certificates are good."),
    "services": Entry("services:app", "Real servers on loopback, for demos, tests and benchmarks."),
}


class OnDemand(TyperGroup):
    """Commands that are imported when they are called: with the middleware in it, all of them take seconds."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Name them, in the order of the help."""
        return list(ENTRIES)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """Give what the help shows."""
        entry = ENTRIES.get(cmd_name)
        return TyperCommand(cmd_name, help=entry.help) if entry else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[Any, Any, list[str]]:  # type: ignore[override]
        """Import the one that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, ENTRIES[name].load(name) if name is not None and name in ENTRIES else command, rest


app = typer.Typer(
    cls=OnDemand,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def drp() -> None:
    """Data releases: from raw images that arrive at a site to a validated catalogue."""


def main() -> None:
    """Run the command line; errors end as one line on standard error, and a traceback in a file."""
    console = make_console(stderr=True)
    try:
        app()
    except OperatorError as error:
        console.print(Text.assemble(("drp: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            console.print(Text.assemble(("drp: ", "bold"), "interrupted; the same command goes on from here"))
        raise
    except Exception as error:  # the outermost rim
        log = Path(os.environ.get("DRP_STATE", tempfile.gettempdir())) / "drp-error.log"
        first = (str(error).splitlines() or [""])[0]
        said = f"{type(error).__name__}: {first} ({_keep(traceback.format_exc(), log)})"
        console.print(Text.assemble(("drp: ", "bold red"), said), soft_wrap=True)
        sys.exit(2)


def _keep(story: str, log: Path) -> str:
    """Write a traceback for those who look closer, who alone may read it; returns where it is, or why it isn't."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(story)
    except OSError as error:
        return f"its traceback can't be written to {log}: {error.strerror}"
    return f"traceback in {log}"


if __name__ == "__main__":
    main()
