"""The `drp` command: its groups, and the outermost rim where an error becomes one line.

Belongs here: putting the groups together and what an operator sees when something goes wrong. Doesn't: any command
itself (a module each).
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path

import typer
from rich.text import Text

from commands import backfill, certificates, demo, ingest, ingestd, limits, plan, rescue, services, site
from commands.console import make_console
from resources.errors import OperatorError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Data releases: from raw images that arrive at a site to a validated catalogue.",
)
app.command("demo")(demo.demo)
app.command("backfill")(backfill.backfill)
app.command("certificates")(certificates.certificates)
app.command("rescue")(rescue.rescue)
app.command("limits")(limits.limits)
app.command("ingestd")(ingestd.ingestd)
ingest.app.command("metrics")(ingestd.metrics)
app.add_typer(ingest.app, name="ingest")
app.add_typer(site.app, name="site")
app.add_typer(plan.app, name="plan")
app.add_typer(rescue.app, name="quarantine")
app.add_typer(services.app, name="services")


def main() -> None:
    """Run the command line; errors end as one line on standard error, and a traceback in a file."""
    console = make_console(stderr=True)
    try:
        app()
    except OperatorError as error:
        console.print(Text.assemble(("drp: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("[bold]drp:[/] interrupted; the same command goes on from here")
        sys.exit(130)
    except Exception as error:  # the outermost rim
        log = Path(os.environ.get("DRP_STATE", tempfile.gettempdir())) / "drp-error.log"
        log.write_text(traceback.format_exc())
        first = (str(error).splitlines() or [""])[0]
        said = f"{type(error).__name__}: {first} (traceback in {log})"
        console.print(Text.assemble(("drp: ", "bold red"), said), soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
