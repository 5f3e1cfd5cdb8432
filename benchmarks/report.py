"""What a benchmark found: its figures beside their targets, as a file and as a table.

Belongs here: the values that every benchmark reports in, their JSON form, and facts of the machine. Doesn't: measuring
anything; how figures follow from what was measured (`benchmarks.arithmetic`).
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class Result:
    """One figure.

    Parameters
    ----------
    name
        What was measured.
    value
        The figure.
    unit
        Its unit; empty for a ratio.
    target
        The most it may be; None where nothing was promised.
    """

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one, and where the figure is noise."""
        return None if self.target is None or self.is_noise else self.value <= self.target

    @property
    def is_noise(self) -> bool:
        """Whether it is less than nothing, as no cost can be: what was measured is smaller than how it varies."""
        return self.value < 0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured, and how busy that machine was already."""

    system: str
    processor: str
    cores: int
    memory_gb: float
    python: str
    load_before: float

    @classmethod
    def here(cls) -> Self:
        """Describe this machine as it is now."""
        return cls(
            system=platform.platform(),
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _BYTES_PER_GB, 1),
            python=platform.python_version(),
            load_before=round(os.getloadavg()[0], 2),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run of a benchmark.

    Parameters
    ----------
    name
        The benchmark's; also its file's.
    machine
        Where it ran.
    results
        The figures.
    """

    name: str
    machine: Machine
    results: tuple[Result, ...]

    def document(self) -> dict[str, Any]:
        """Give the report as what is written to its file."""
        return {
            "machine": asdict(self.machine),
            "results": [asdict(result) | {"met": result.met} for result in self.results],
        }

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the report's file, in place of an earlier run's.

        Parameters
        ----------
        folder
            Where; it is made if need be.

        Returns
        -------
        path
            The file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.document(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def table(self) -> Table:
        """Render the figures for the terminal."""
        table = Table(title=self.name, title_justify="left", box=None, pad_edge=False)
        table.add_column("figure")
        for column in ("value", "target"):
            table.add_column(column, justify="right")
        table.add_column("")
        for result in self.results:
            target = "" if result.target is None else f"≤ {_figure(result.target, result.unit)}"
            nothing = "[yellow]noise[/]" if result.is_noise else ""
            verdict = {None: nothing, True: "[green]met[/]", False: "[red]missed[/]"}[result.met]
            table.add_row(result.name, _figure(result.value, result.unit), target, verdict)
        return table


def _figure(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor()
