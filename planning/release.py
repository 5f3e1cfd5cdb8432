"""The release specification: what one release is made of, as people write it in ``releases/<name>.yaml``.

Belongs here: the frozen models of that file, the names of the release's collections, and reading it. Doesn't: the
pipeline's content (`planning.pipeline`), the site (`resources.site`), judging a metric (`validation`).
"""

from __future__ import annotations

import datetime as dt
import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from planning.pipeline import PipelinePlan, Step
from planning.policies import FailurePolicy
from resources.documents import Document, read_document
from resources.errors import Rejected


def parse_day_obs(day_obs: int) -> dt.date:
    """Turn a day_obs into its date.

    Parameters
    ----------
    day_obs
        YYYYMMDD.

    Raises
    ------
    ValueError
        It is not a date.
    """
    return dt.datetime.strptime(str(day_obs), "%Y%m%d").date()


class InputSelection(Document):
    """Which raws the release is made from."""

    first_day_obs: int
    last_day_obs: int
    without_data: tuple[int, ...] = Field((), description="day_obs in the range from which nothing will come")
    programs: tuple[str, ...] = Field((), description="science programs; none: all")
    excluded_visits: tuple[int, ...] = ()
    excluded_detectors: tuple[int, ...] = ()

    @field_validator("first_day_obs", "last_day_obs")
    @classmethod
    def _is_a_date(cls, day_obs: int) -> int:
        parse_day_obs(day_obs)
        return day_obs

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first_day_obs > self.last_day_obs:
            raise ValueError(f"first_day_obs {self.first_day_obs} is after last_day_obs {self.last_day_obs}")
        return self

    @property
    def day_obs(self) -> tuple[int, ...]:
        """Every day_obs of the range from which data are expected."""
        first, last = parse_day_obs(self.first_day_obs), parse_day_obs(self.last_day_obs)
        days = (first + dt.timedelta(days=n) for n in range((last - first).days + 1))
        return tuple(d for d in (int(f"{day:%Y%m%d}") for day in days) if d not in self.without_data)


class StepSettings(Document):
    """What this release changes about one step."""

    enabled: bool = True
    config: tuple[str, ...] = Field((), description="overrides, each task:field=value")
    partitions_per_submission: Annotated[int, Field(gt=0)] = 1000
    bps: Mapping[str, Any] = Field(default_factory=dict, description="BPS settings: clustering, memory, walltime")


class Waiver(Document):
    """Somebody's decision that a failed metric doesn't hold the release."""

    by: str
    why: str


class Threshold(Document):
    """What a metric has to meet."""

    metric: str
    bands: tuple[str, ...] = Field((), description="none: every band in which it is measured")
    kind: Literal["at_most", "absolute_at_most", "at_least", "between"] = "at_most"
    design: float | None = Field(None, description="missing it warns")
    minimum: float | tuple[float, float] = Field(description="missing it fails; for between: (low, high)")
    unit: str = ""
    blocking: bool = False
    source: str = Field(description="SRD item, tech note or decision it comes from")
    waiver: Waiver | None = None


class Validation(Document):
    """How the release is judged."""

    thresholds: tuple[Threshold, ...] = ()
    least_arrived_fraction: Annotated[float, Field(ge=0, le=1)] = 1.0
    least_product_fraction: Annotated[float, Field(ge=0, le=1)] = 0.9


class Release(Document):
    """One release of the survey."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    description: str
    owner: str = Field(description="e-mail address, or team:<name>")
    pipeline: str = Field(description="the pipeline's YAML; relative to the folder above this file's")
    plan: Path | None = Field(None, description="exported plan of a pipeline whose tasks can't be imported here")
    instrument: str
    skymap: str
    bands: tuple[str, ...] = Field(min_length=1)
    tracts: tuple[int, ...] = Field((), description="this site's share of the sky; none: every tract of the skymap")
    inputs: InputSelection
    input_collections: tuple[str, ...] = Field(description="calibrations, reference catalogues, skymaps …")
    raw_collection: str
    expected_detectors: tuple[int, ...] = Field(min_length=1)
    steps: Mapping[str, StepSettings] = Field(default_factory=dict, description="by labels or short names of steps")
    policies: tuple[FailurePolicy, ...] = Field((), description="what is done about failures; the first that matches")
    validation: Validation = Validation()

    @property
    def inputs_collection(self) -> str:
        """The TAGGED collection of the raws this release is made from."""
        return f"{self.name}/inputs"

    @property
    def chain(self) -> str:
        """The CHAINED collection that holds the release's products, newest run first."""
        return self.name

    @property
    def base_collections(self) -> tuple[str, ...]:
        """What every step may read besides the release's own runs."""
        return (self.inputs_collection, *self.input_collections)

    def settings(self, step: Step) -> StepSettings:
        """Give a step's settings.

        Parameters
        ----------
        step
            One of the pipeline's; the release names it by its label or its short name.
        """
        return self.steps.get(step.label) or self.steps.get(step.short) or StepSettings()

    def check_against(self, plan: PipelinePlan) -> None:
        """See that all that the release says of steps and tasks is about some of the pipeline's.

        Parameters
        ----------
        plan
            Of the release's pipeline.

        Raises
        ------
        resources.errors.Rejected
            A name means nothing, or a step is named twice.
        """
        where = f"releases/{self.name}.yaml"
        named: dict[str, str] = {}
        for name in self.steps:
            step = next((step for step in plan.steps if name in (step.label, step.short)), None)
            if step is None:
                known = [step.short for step in plan.steps]
                raise Rejected(f"no step {name!r}", f"{where}: steps", _nearest(name, known))
            if step.label in named:
                raise Rejected(
                    f"is the same step as {named[step.label]!r}", f"{where}: steps.{name}", "keep one of them"
                )
            named[step.label] = name
        tasks = sorted({task for step in plan.steps for task in step.tasks})
        for number, policy in enumerate(self.policies):
            for pattern in policy.tasks:
                if tasks and not fnmatch.filter(tasks, pattern):
                    raise Rejected(
                        f"no task {pattern!r}", f"{where}: policies[{number}].tasks", _nearest(pattern, tasks)
                    )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"


def read_release(path: Path) -> Release:
    """Read a release specification.

    Parameters
    ----------
    path
        ``releases/<name>.yaml``; its stem has to be the release's name.

    Raises
    ------
    resources.errors.Rejected
        The file is wrong: one line names file, key and remedy.
    """
    release = read_document(path, Release)
    if release.name != path.stem:
        raise Rejected(f"says {release.name!r}", f"{path}: name", f"write {path.stem!r}, the file's own name")
    pipeline = Path(release.pipeline)
    if not pipeline.is_absolute() and "$" not in release.pipeline:
        release = release.model_copy(update={"pipeline": str((path.parent.parent / pipeline).resolve())})
    if release.plan is not None and not release.plan.is_absolute():
        release = release.model_copy(update={"plan": (path.parent / release.plan).resolve()})
    return release
