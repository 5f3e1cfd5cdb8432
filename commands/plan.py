"""`drp plan`: what a pipeline's steps make, shown or exported for sites where its tasks can't be imported.

Belongs here: the subcommands, thin. Doesn't: building a plan (`planning.pipeline`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from commands.console import make_console
from planning.pipeline import build_plan
from resources.errors import Rejected

app = typer.Typer(no_args_is_help=True, help="A pipeline's steps and products.")


@app.command("show")
def show(pipeline: Annotated[str, typer.Argument(help="URI of the pipeline's YAML")]) -> None:
    """Show steps, their partitions, inputs and products."""
    plan = build_plan(pipeline)
    table = Table(Column("step", no_wrap=True), "partitioned by", "tasks", "from", "makes")
    for step in plan.steps:
        made = ", ".join(product.name for product in step.products)
        table.add_row(step.label, step.sharding.value, ", ".join(step.tasks), ", ".join(step.inputs), made)
    make_console().print(table)


@app.command("export")
def export(
    pipeline: Annotated[str, typer.Argument(help="URI of the pipeline's YAML")],
    out: Annotated[Path, typer.Argument(help="file to write; name it in the release's `plan`")],
) -> None:
    """Write the plan to a file; run it where the pipeline's tasks can be imported."""
    plan = build_plan(pipeline)
    try:
        out.write_text(plan.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise Rejected(f"cannot be written: {error.strerror}", str(out), "name a file in a folder of yours") from error
    products = sum(len(step.products) for step in plan.steps)
    make_console().print(f"{out}: {len(plan.steps)} steps, {products} products")
