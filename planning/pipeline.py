"""The pipeline's steps: what each makes, from what, and how its work is divided.

Belongs here: reading a pipeline's ``steps:`` and its graph into a plan of frozen values, and that plan as a file.
Doesn't: assets (`drp_assets`), quantum graphs (`launchers.graph`). Nothing of a plan is kept by hand: it is built from
the pipeline where its task classes can be imported, and read from an exported file where they can't.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from resources.documents import Document, read_yaml
from resources.errors import Rejected

if TYPE_CHECKING:
    from lsst.pipe.base import PipelineGraph
    from lsst.pipe.base.pipelineIR import PipelineIR


class Sharding(enum.StrEnum):
    """How a step's work is divided into partitions."""

    DAY_OBS = "day_obs"
    TRACT = "tract"
    WHOLE = "whole"

    @classmethod
    def of(cls, dimensions: tuple[str, ...]) -> Sharding:
        """Give the sharding that a step's dimensions imply.

        Parameters
        ----------
        dimensions
            The ``dimensions`` of the pipeline's ``steps:`` entry.
        """
        if not dimensions or not set(dimensions) <= {"visit", "exposure", "detector", "day_obs", "tract", "patch"}:
            return cls.WHOLE
        return cls.TRACT if set(dimensions) <= {"tract", "patch"} else cls.DAY_OBS


class Product(Document):
    """A dataset type that a step makes."""

    name: str
    dimensions: tuple[str, ...]
    storage_class: str
    task: str
    description: str = ""

    @property
    def per_band(self) -> bool:
        """Whether each band has its own."""
        return "band" in self.dimensions


class Step(Document):
    """One entry of the pipeline's ``steps:``."""

    label: str
    dimensions: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    products: tuple[Product, ...] = ()
    description: str = ""

    @property
    def short(self) -> str:
        """The label's first word, such as step1a."""
        return self.label.partition("-")[0]

    @property
    def sharding(self) -> Sharding:
        """How its work is divided."""
        return Sharding.of(self.dimensions)

    @property
    def needs_skymap(self) -> bool:
        """Whether its data query has to name the skymap: always, when any of its products lies on the sky's grid."""
        grid = {"tract", "patch", "skymap"}
        return bool(grid & set(self.dimensions)) or any(grid & set(p.dimensions) for p in self.products)


class PipelinePlan(Document):
    """The whole pipeline, in the order of its steps."""

    pipeline: str
    instrument: str | None
    steps: tuple[Step, ...]
    overall_inputs: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Sixteen hex digits of all that it says."""
        return hashlib.blake2s(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def step(self, name: str) -> Step:
        """Find a step by its label or its short name.

        Parameters
        ----------
        name
            Such as ``step1a`` or ``step1a-single-visit-detectors``.

        Raises
        ------
        resources.errors.Rejected
            The pipeline has no such step.
        """
        for step in self.steps:
            if name in (step.label, step.short):
                return step
        raise Rejected(f"no step {name!r}", self.pipeline, f"its steps: {', '.join(step.label for step in self.steps)}")

    def producer(self, dataset_type: str) -> Step | None:
        """Give the step that makes a dataset type, if one does.

        Parameters
        ----------
        dataset_type
            The dataset type's name.
        """
        return next((s for s in self.steps if any(p.name == dataset_type for p in s.products)), None)

    def upstream(self, step: Step) -> tuple[Step, ...]:
        """Give the steps whose products a step reads, in the pipeline's order.

        Parameters
        ----------
        step
            One of the plan's steps. One that says nothing of its inputs depends on the step before it.
        """
        if not step.products:
            place = self.steps.index(step)
            return self.steps[place - 1 : place] if place else ()
        labels = {producer.label for name in step.inputs if (producer := self.producer(name)) is not None}
        return tuple(s for s in self.steps if s.label in labels)


def build_plan(pipeline: str) -> PipelinePlan:
    """Build the plan from the pipeline itself.

    Parameters
    ----------
    pipeline
        URI of the pipeline's YAML.

    Raises
    ------
    resources.errors.Rejected
        The pipeline can't be read, or has no ``steps:``.
    """
    from lsst.pipe.base import Pipeline

    steps = _read_steps(pipeline)
    try:
        graph = Pipeline.from_uri(pipeline).to_graph()
        graph.resolve()
    except ImportError as error:
        raise Rejected(
            f"a task can't be imported: {error}",
            pipeline,
            "run `drp plan export` inside the stack that has it, and name the file in the release's `plan`",
        ) from error
    except Exception as error:
        raise Rejected(f"does not parse: {str(error).splitlines()[0]}", pipeline, "mend the pipeline") from error
    return steps.model_copy(
        update={
            "steps": tuple(_fill_step(step, graph) for step in steps.steps),
            "overall_inputs": tuple(sorted(name for name, _ in graph.iter_overall_inputs())),
        }
    )


def read_plan(path: Path) -> PipelinePlan:
    """Read an exported plan.

    Parameters
    ----------
    path
        A file that `PipelinePlan.model_dump_json` wrote.

    Raises
    ------
    resources.errors.Rejected
        It is missing or something else.
    """
    try:
        return PipelinePlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror}", str(path), "export it with `drp plan export`") from error
    except ValidationError as error:
        raise Rejected("is not an exported plan", str(path), "export it again with `drp plan export`") from error


def plan_digest(pipeline: Path) -> str | None:
    """Digest all that a pipeline's plan depends on: its YAML and the sources of the packages it takes tasks from.

    Parameters
    ----------
    pipeline
        The pipeline's YAML, a local file.

    Returns
    -------
    digest
        None where the plan depends on more than can be looked at here: other pipelines, or the packages of a stack.

    Raises
    ------
    resources.errors.Rejected
        The file can't be read.
    """
    content = read_yaml(pipeline)
    if not isinstance(content, dict) or "imports" in content or not isinstance(content.get("tasks"), dict):
        return None
    classes = [task.get("class", "") if isinstance(task, dict) else str(task) for task in content["tasks"].values()]
    digest = hashlib.blake2s(pipeline.read_bytes(), digest_size=8)
    digest.update(importlib.metadata.version("lsst-pipe-base").encode())
    for package in sorted({name.partition(".")[0] for name in classes}):
        spec = importlib.util.find_spec(package) if package else None
        if spec is None or spec.submodule_search_locations is None or package == "lsst":
            return None
        for folder in spec.submodule_search_locations:
            for source in sorted(Path(folder).rglob("*.py")):
                digest.update(source.read_bytes())
    return digest.hexdigest()


def _read_steps(pipeline: str) -> PipelinePlan:
    from lsst.pipe.base.pipelineIR import PipelineIR

    try:
        ir: PipelineIR = PipelineIR.from_uri(pipeline)
    except FileNotFoundError as error:
        raise Rejected("no such pipeline", pipeline, "correct the release's `pipeline`") from error
    except Exception as error:
        raise Rejected(f"does not parse: {str(error).splitlines()[0]}", pipeline, "mend the pipeline") from error
    if not ir.steps:
        raise Rejected("has no `steps:`", pipeline, "list its steps with their sharding dimensions")
    subsets = ir.labeled_subsets
    return PipelinePlan(
        pipeline=pipeline,
        instrument=ir.instrument,
        steps=tuple(
            Step(
                label=step.label,
                dimensions=tuple(step.dimensions),
                tasks=tuple(sorted(subsets[step.label].subset)) if step.label in subsets else (),
                description=(subsets[step.label].description or "").strip() if step.label in subsets else "",
            )
            for step in ir.steps
        ),
    )


def _fill_step(step: Step, graph: PipelineGraph) -> Step:
    tasks = tuple(label for label in graph.tasks if label in step.tasks)
    products: dict[str, Product] = {}
    inputs: set[str] = set()
    for label in tasks:
        node = graph.tasks[label]
        for edge in node.outputs.values():
            dataset_type = graph.dataset_types[edge.parent_dataset_type_name].dataset_type
            connection = getattr(node.get_connections(), edge.connection_name)
            products[dataset_type.name] = Product(
                name=dataset_type.name,
                dimensions=tuple(dataset_type.dimensions.required),
                storage_class=dataset_type.storageClass_name,
                task=label,
                description=connection.doc,
            )
        inputs.update(edge.parent_dataset_type_name for edge in node.inputs.values())
    return step.model_copy(
        update={
            "tasks": tasks,
            "products": tuple(products.values()),
            "inputs": tuple(sorted(inputs - products.keys())),
        }
    )
