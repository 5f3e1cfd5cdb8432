"""Submissions of trivial quanta through the launchers, as many quanta as one likes.

Belongs here: a repository of numbers, and timing one submission from graph to outcome. Doesn't: the task
(`benchmarks.toy_tasks`), or what follows from the timings (`benchmarks.arithmetic`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, FileDataset

from benchmarks.arithmetic import Cost
from benchmarks.bare import PROCESSES, BareWork, run_bare
from benchmarks.finished import read_executions
from launchers import bps, watch
from launchers.graph import build_graph
from launchers.judging import read_outcome
from launchers.submission import StepRequest, SubmissionKey
from resources.errors import SiteFault

_POLL_S = 0.05


def make_repository(root: Path, numbers: int) -> str:
    """Make a repository with one number for each of so many detectors.

    Parameters
    ----------
    root
        Its folder, not there yet.
    numbers
        How many.

    Returns
    -------
    butler
        The repository's URI.
    """
    Butler.makeRepo(str(root))
    instrument = {"name": "ToyCam", "class_name": "toy", "detector_max": numbers, "visit_max": 1, "exposure_max": 1}
    with Butler.from_config(str(root), writeable=True) as butler:
        registry = butler.registry
        registry.syncDimensionData("instrument", {**instrument, "visit_system": 0})
        detectors = [{"instrument": "ToyCam", "id": n, "full_name": f"D{n}"} for n in range(numbers)]
        registry.insertDimensionData("detector", *detectors)
        number_type = DatasetType(
            "toy_number", {"instrument", "detector"}, "StructuredDataDict", universe=butler.dimensions
        )
        registry.registerDatasetType(number_type)
        butler.collections.register("numbers")
        file = root / "number.yaml"
        file.write_text("value: 1\n", encoding="utf-8")
        refs = [
            DatasetRef(
                number_type,
                DataCoordinate.standardize(instrument="ToyCam", detector=n, universe=butler.dimensions),
                "numbers",
            )
            for n in range(numbers)
        ]
        formatter = "lsst.daf.butler.formatters.yaml.YamlFormatter"
        # One file serves all: outside the repository's own names, as raws are.
        butler.ingest(*(FileDataset(file, [ref], formatter=formatter) for ref in refs), transfer="direct")
    return str(root)


@dataclass(frozen=True, slots=True)
class Timing:
    """One submission of trivial quanta, and the same quanta bare.

    Parameters
    ----------
    quanta
        How many.
    wall_s
        From asking for the submission to its outcome.
    executed_s
        What its quanta took, divided by the number of jobs that executed them at the same time.
    bare_s
        What the same quanta take in as many warm processes.
    """

    quanta: int
    wall_s: float
    executed_s: float
    bare_s: float

    @property
    def beside_bare(self) -> Cost:
        """What the submission adds to bare execution."""
        return Cost(self.quanta, self.wall_s - self.bare_s)

    @property
    def beside_quanta(self) -> Cost:
        """What the submission adds to preparing, initialising and running its quanta."""
        return Cost(self.quanta, self.wall_s - self.executed_s)


def time_submissions(
    folder: Path, sizes: Sequence[int], settings: Mapping[str, Any], report: Callable[[str], None]
) -> list[Timing]:
    """Time submissions of trivial quanta one after the other: graph, BPS, local service, jobs, provenance, outcome.

    Parameters
    ----------
    folder
        For the repository and all that the submissions leave; there already.
    sizes
        Numbers of quanta.
    settings
        The site's BPS settings.
    report
        Is told how far it is.

    Raises
    ------
    resources.errors.SiteFault
        Not every quantum succeeded.
    """
    butler = make_repository(folder / "repository", max(sizes))
    timed = []
    for attempt, size in enumerate(sizes, start=1):
        request = _request(butler, folder, SubmissionKey("toy", "step", (f"{size} quanta",), attempt), size, settings)
        wall_s, executed_s = _time_submission(request, size)
        report(f"{size} quanta: {wall_s:.2f} s")
        timed.append((size, wall_s, executed_s))
    keys = [SubmissionKey("bare", "step", (f"{size} quanta",), attempt) for attempt, size in enumerate(sizes, start=1)]
    graphs = [build_graph(_request(butler, folder, key, size, settings)) for key, size in zip(keys, sizes, strict=True)]
    bare = run_bare(BareWork(butler, tuple(graph.path for graph in graphs)), folder)
    return [Timing(*each, bare_time.wall_s) for each, bare_time in zip(timed, bare, strict=True)]


def _request(butler: str, folder: Path, key: SubmissionKey, quanta: int, settings: Mapping[str, Any]) -> StepRequest:
    return StepRequest(
        key=key,
        butler=butler,
        pipeline=f"{Path(__file__).parent / 'toy_pipeline.yaml'}#step",
        input_collections=("numbers",),
        output_chain=key.release,
        data_query=f"instrument = 'ToyCam' AND detector < {quanta}",
        folder=folder / "submissions" / key.name,
        bps={**settings, "localCores": PROCESSES, "computeSite": "local"},
    )


def _time_submission(request: StepRequest, quanta: int) -> tuple[float, float]:
    began = time.monotonic()
    handle = bps.submit(request, build_graph(request))
    watch.watch(handle, poll_s=_POLL_S)
    outcome = read_outcome(request, handle)
    wall_s = time.monotonic() - began
    if not outcome.complete or outcome.succeeded != quanta:
        raise SiteFault(f"{outcome.succeeded} of {quanta} quanta succeeded", str(request.folder), "see its logs")
    executions = read_executions(request.provenance_path)
    return wall_s, sum(end - begin for begin, end in executions) / PROCESSES
