"""`drp services`: real servers on this machine's loopback, for trying things out.

Belongs here: the subcommands, thin. Doesn't: the servers themselves (`services`), or those of a site, which nothing
here touches.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from commands.console import make_console
from resources.errors import SiteFault
from services import together
from services.catalogue import entries
from services.service import Service, ServiceError

app = typer.Typer(no_args_is_help=True, help="Real servers on loopback: databases, Kafka clusters and others.")

Names = Annotated[list[str] | None, typer.Argument(help="which; by default all", show_default=False)]


def services_folder() -> Path:
    """Give the folder of the services: below ``$DRP_STATE``, by default ``.state``."""
    return Path(os.environ.get("DRP_STATE", ".state")).resolve() / "services"


@contextlib.contextmanager
def service_faults() -> Iterator[None]:
    """Let a service that can't be started, or died, be told in one line.

    Raises
    ------
    resources.errors.SiteFault
        What the service's error says.
    """
    try:
        yield
    except ServiceError as error:
        raise SiteFault(str(error)) from error


@app.command("up")
def up(names: Names = None) -> None:
    """Start services, and those that they need; what runs already stays as it is."""
    console = make_console()
    failed = []
    since = time.monotonic()
    with service_faults():
        for entry, started in together.start(services_folder(), names or ()):
            try:
                service = started.result()
            except ServiceError as error:
                failed.append(entry.name)
                state, said = ("failed ", "red"), str(error)
            else:
                state = ("runs ", "green")
                said = f"after {time.monotonic() - since:.1f} s: {service.address}  {service.access}"
            console.print(Text.assemble((f"{entry.name:20}", "bold"), state, said), soft_wrap=True)
    if failed:
        raise SiteFault("failed, for the reasons above", ", ".join(failed))


@app.command("down")
def down(names: Names = None) -> None:
    """End services, and those that need them; their data stay for the next start."""
    console = make_console()
    ran = False
    with service_faults():
        for entry, ended in together.stop(services_folder(), names or ()):
            if ended.result():
                ran = True
                console.print(Text.assemble((f"{entry.name:20}", "bold"), "ended"))
    if not ran:
        console.print(f"nothing ran in {services_folder()}", soft_wrap=True)


@app.command("status")
def status(names: Names = None) -> None:
    """Show which services run, where they are reached and how much memory they hold."""
    table = Table(box=None, pad_edge=False)
    for column in ("service", "state", "address", "pid", "memory", "access"):
        table.add_column(column, justify="right" if column in {"pid", "memory"} else "left", overflow="fold")
    with service_faults():
        chosen = entries(names or ())
    for entry in chosen:
        table.add_row(*_row(entry.name, entry.make(services_folder())))
    make_console().print(table)


@app.command("logs")
def logs(
    names: Names = None,
    lines: Annotated[int, typer.Option(help="how many of the last lines")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until interrupted")] = False,
) -> None:
    """Show the ends of services' logs."""
    with service_faults():
        chosen = entries(names or ())
    files = [str(log) for entry in chosen if (log := entry.make(services_folder()).log).exists()]
    if not files:
        raise SiteFault("has no log: it was never started", ", ".join(names or ["every service"]), "drp services up")
    with contextlib.suppress(KeyboardInterrupt):
        subprocess.run(["tail", f"--lines={lines}", *(["-F"] if follow else []), *files], check=False)


def _row(name: str, service: Service) -> tuple[str | Text, ...]:
    pid = service.pid
    if pid is None:
        return name, Text("down", style="dim"), "", "", "", ""
    state = Text("runs", style="green") if service.is_ready() else Text("doesn't answer", style="red")
    return name, state, service.address, str(pid), f"{service.memory_bytes / 2**20:.0f} MB", service.access
