"""A plan is built from the pipeline, and a plan that is kept is never of anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from planning.pipeline import build_plan, plan_digest
from resources.errors import Rejected

TOP = Path(__file__).parents[2]
TASKS = "description: x\ntasks:\n  isr: {}\nsubsets:\n  step1: {{subset: [isr]}}\nsteps:\n  - label: step1\n"


def write(folder: Path, task: str, more: str = "") -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(TASKS.format(task) + "    dimensions: [visit, detector]\n" + more)
    return path


def test_the_pipeline_that_comes_with_this_can_be_kept() -> None:
    assert plan_digest(TOP / "pipelines" / "DRP.yaml") == plan_digest(TOP / "pipelines" / "DRP.yaml") is not None


def test_what_is_kept_depends_on_the_text(tmp_path: Path) -> None:
    first = plan_digest(write(tmp_path, "drp_tasks.isr.IsrTask"))
    assert first != plan_digest(write(tmp_path, "drp_tasks.isr.IsrTask", "# changed\n"))


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("lsst.ip.isr.IsrTask", ""),
        ("nowhere.IsrTask", ""),
        ("drp_tasks.isr.IsrTask", "imports:\n  - other.yaml\n"),
    ],
)
def test_a_plan_that_depends_on_more_than_can_be_seen_is_not_kept(tmp_path: Path, task: str, more: str) -> None:
    assert plan_digest(write(tmp_path, task, more)) is None


def test_a_file_that_is_no_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("tasks: [")

    with pytest.raises(Rejected, match=r"line 1: is not YAML"):
        plan_digest(path)


@pytest.mark.parametrize("task", ["lsst.ip.isr.IsrTask", "nowhere.IsrTask"])
def test_a_task_that_is_not_here_leads_to_an_exported_plan(tmp_path: Path, task: str) -> None:
    with pytest.raises(Rejected, match=r"a task can't be imported: .*; run `drp plan export` inside the stack"):
        build_plan(str(write(tmp_path, task)))
