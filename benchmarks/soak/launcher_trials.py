"""One trial of the launchers: what is submitted, what must come of it, what was seen, and whether that agrees.

Belongs here: those values, the settings that trials share, and judging them, purely. Doesn't: breaking anything
(`benchmarks.soak.launcher_faults`), or looking at Slurm, Butler and Dagster (`benchmarks.soak.launcher_evidence`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from launchers.outcome import TaskOutcome
from launchers.submission import StepRequest, SubmissionKey

TOP = Path(__file__).parents[2]

DETECTORS = 2
"""As few as show that the one's trouble is not the other's."""
TROUBLED = 0
"""The detector whose number gives trouble."""

OUTPUTS = {"double": "toy_doubled", "square": "toy_squared"}
"""What each task makes, one a quantum."""

WHOLE = {task: TaskOutcome(DETECTORS, DETECTORS) for task in OUTPUTS}
WITHOUT_ONE = {
    "double": TaskOutcome(DETECTORS, DETECTORS - 1, failed=1),
    "square": TaskOutcome(DETECTORS, DETECTORS - 1, blocked=1),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What is asked for.

    Parameters
    ----------
    name
        Of its submission; nobody else's.
    trouble
        Which the troubled quantum gives.
    bps
        BPS settings, over the site's.
    """

    name: str
    trouble: str = ""
    bps: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `__str__` wrote."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    def request(self, folder: Path, bps: Mapping[str, Any]) -> StepRequest:
        """Give what the launchers are asked to do.

        Parameters
        ----------
        folder
            Of the soak's site.
        bps
            The site's BPS settings.
        """
        return StepRequest(
            key=SubmissionKey(self.name, "step", ("all",)),
            butler=str(folder / "repo"),
            pipeline=f"{Path(__file__).with_name('launcher_pipeline.yaml')}#step",
            input_collections=("numbers",),
            output_chain=self.name,
            data_query="instrument = 'ToyCam'",
            folder=folder / "submissions" / self.name,
            config_overrides=(f"double:trouble={ {TROUBLED: self.trouble} }",) if self.trouble else (),
            bps={**bps, **self.bps},
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come of a trial.

    Parameters
    ----------
    run
        How Dagster's run ends.
    workflow
        How the workflow ends in the batch system.
    tasks
        Quanta by task, as provenance tells; None where the work was given up, and nobody looks.
    out_of_memory
        How often a job must have run out of memory.
    asked_again
        Whether somebody may have to ask for it again, as after an orderly stop.
    """

    run: str = "SUCCESS"
    workflow: str = "SUCCEEDED"
    tasks: Mapping[str, TaskOutcome] | None = field(default_factory=lambda: dict(WHOLE))
    out_of_memory: int = 0
    asked_again: bool = False

    def __str__(self) -> str:
        quanta = "all of it gone from Slurm"
        if self.tasks is not None:
            done = sum(task.succeeded for task in self.tasks.values())
            of = sum(task.expected for task in self.tasks.values())
            quanta = f"{done} of {of} quanta in provenance and Butler"
        memory = f", {self.out_of_memory} times out of memory" if self.out_of_memory else ""
        return f"run {self.run}, workflow {self.workflow}, {quanta}{memory}; one submission; nothing left"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen when a trial was over.

    Parameters
    ----------
    run
        Status of its latest run in Dagster.
    submissions
        Names of the submissions that its runs have recorded, each once.
    collections
        RUN collections in the Butler that its outputs went to.
    workflow
        State in the batch system.
    jobs
        Its jobs by state, as the batch system's record has them.
    completed
        How many elements Slurm itself says have completed, the dispatcher's not counted.
    out_of_memory
        How often a job of its ran out of memory.
    tasks
        Quanta by task, from provenance.
    failed
        Quanta that failed: task and detector.
    datasets
        By dataset type, how many there are with the right value.
    left
        Jobs and processes that are still there after all patience.
    """

    run: str
    submissions: tuple[str, ...]
    collections: tuple[str, ...]
    workflow: str
    jobs: Mapping[str, int]
    completed: int
    out_of_memory: int = 0
    tasks: Mapping[str, TaskOutcome] | None = None
    failed: tuple[tuple[str, int], ...] = ()
    datasets: Mapping[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()


def site_bps() -> Mapping[str, Any]:
    """Give the BPS settings of the Slurm site's profile, but one quantum a job, so that each has its own fate."""
    wms = yaml.safe_load((TOP / "deploy" / "sites" / "slurm.yaml").read_text())["wms"]
    settings = {key: value for key, value in wms["bps"].items() if key != "clusterAlgorithm"}
    return {"wmsServiceClass": wms["service"], "computeSite": wms["compute_site"], **settings}


def broken_promises(expected: Expected, seen: Evidence) -> list[str]:
    """Compare what was seen with what must be; nothing is all right.

    Parameters
    ----------
    expected, seen
        Of the same trial.
    """
    return [*_not_one_submission(seen), *_dishonest(expected, seen), *(f"left behind: {each}" for each in seen.left)]


def _not_one_submission(seen: Evidence) -> Iterator[str]:
    if len(seen.submissions) != 1:
        yield f"{len(seen.submissions)} submissions instead of one: {', '.join(seen.submissions)}"
    if len(seen.collections) > 1:
        yield f"outputs in {len(seen.collections)} runs: {', '.join(seen.collections)}"
    succeeded = seen.jobs.get("SUCCEEDED", 0)
    if seen.completed > succeeded:
        yield f"Slurm completed {seen.completed} jobs of {succeeded} that succeeded: something was done twice"


def _dishonest(expected: Expected, seen: Evidence) -> Iterator[str]:
    if seen.run != expected.run:
        yield f"Dagster's run is {seen.run} instead of {expected.run}"
    if seen.workflow != expected.workflow:
        yield f"the workflow is {seen.workflow} instead of {expected.workflow}"
    if seen.out_of_memory < expected.out_of_memory:
        yield f"{seen.out_of_memory} times out of memory instead of {expected.out_of_memory}"
    if expected.tasks is None:
        return
    if seen.tasks != expected.tasks:
        yield f"provenance says {seen.tasks} instead of {expected.tasks}"
    for task, made in OUTPUTS.items():
        count, of = seen.datasets.get(made, 0), expected.tasks[task].succeeded
        if count != of:
            yield f"the Butler has {count} good {made} instead of {of}"
    failed = tuple(("double", TROUBLED) for _ in range(expected.tasks["double"].failed))
    if seen.failed != failed:
        yield f"said to have failed: {seen.failed} instead of {failed}"
