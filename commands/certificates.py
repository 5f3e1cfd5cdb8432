"""`drp certificates`: until when the site's certificates are good.

Belongs here: the command. Doesn't: reading certificates (`resources.tls`), or what a refusal by Kafka means
(`resources.refusals`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from commands.console import make_console
from resources.errors import SiteFault
from resources.site import read_site
from resources.tls import WARN_DAYS, check_files, expiry_warnings, read_certificates


def certificates(
    warn_days: Annotated[float, typer.Option("--warn-days", min=0.0, help="so soon is soon")] = WARN_DAYS,
) -> None:
    """Show the certificates of the profile's kafka.tls; exit code 1 if one has ended or will soon, for cron."""
    tls = read_site().kafka.tls
    console = make_console()
    if tls is None:
        console.print("the site profile names no certificates")
        return
    check_files(tls)
    now = datetime.now(UTC)
    table = Table("whose", "issued by", "good until (UTC)", "days", "file")
    for facts in (*read_certificates(tls.certificate), *read_certificates(tls.ca)):
        until, left = f"{facts.not_after:%Y-%m-%d %H:%M}", f"{facts.days_left(now):.0f}"
        table.add_row(facts.subject, facts.issuer, until, left, str(facts.path))
    console.print(table)
    warnings = expiry_warnings(tls, now, warn_days)
    if warnings:
        raise SiteFault("; ".join(warnings))
