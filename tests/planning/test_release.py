from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from planning.pipeline import PipelinePlan, Step
from planning.release import Release, read_release
from resources.errors import Rejected

TOP = Path(__file__).parent.parent.parent
DEMO = (TOP / "releases" / "demo.yaml").read_text()


def write(folder: Path, text: str, name: str = "demo") -> Path:
    path = folder / "releases" / f"{name}.yaml"
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_demo_release_is_valid() -> None:
    release = read_release(TOP / "releases" / "demo.yaml")
    assert release.inputs.day_obs == (20261101, 20261102)
    assert release.pipeline == str(TOP / "pipelines" / "DRP.yaml")
    assert release.base_collections[0] == "demo/inputs"


def test_unknown_key_names_the_nearest_right_one(tmp_path: Path) -> None:
    path = write(tmp_path, DEMO.replace("last_day_obs:", "last_dayobs:"))
    with pytest.raises(Rejected) as caught:
        read_release(path)
    assert str(caught.value) == f"{path}: inputs.last_dayobs: unknown key; did you mean 'last_day_obs'?"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("20261102", "20261131", "inputs.last_day_obs"),
        ("20261102", "20261001", "is after last_day_obs"),
        ("skymap: sim_v1\n", "", "skymap: missing key"),
        ("bands: [g, r, i]", "bands: g", "bands"),
        ("name: demo", "name: other", "write 'demo'"),
        ("name: demo", "name: [demo", "is not YAML"),
    ],
)
def test_wrong_file_is_one_line_that_names_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path, DEMO.replace(old, new))
    with pytest.raises(Rejected) as caught:
        read_release(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    assert said in line


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="No such file"):
        read_release(tmp_path / "nowhere.yaml")


PLAN = PipelinePlan(
    pipeline="DRP.yaml",
    instrument=None,
    steps=(
        Step(label="step1a-single-visit-detectors", dimensions=("visit", "detector"), tasks=("isr", "measureDetector")),
        Step(label="step3a-coadd-tracts", dimensions=("tract",), tasks=("makeCoadd",)),
    ),
)


def release_with(**changes) -> Release:
    return Release.model_validate({**yaml.safe_load(DEMO), **changes})


@pytest.mark.parametrize("name", ["step3a", "step3a-coadd-tracts"])
def test_a_step_s_settings_are_found_by_either_of_its_names(name: str) -> None:
    release = release_with(steps={name: {"enabled": False}})

    release.check_against(PLAN)

    assert [release.settings(step).enabled for step in PLAN.steps] == [True, False]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": {"step3z": {}}}, "releases/demo.yaml: steps: no step 'step3z'; did you mean 'step3a'?"),
        ({"steps": {"coadds": {}}}, "releases/demo.yaml: steps: no step 'coadds'; there are: step1a, step3a"),
        (
            {"steps": {"step3a": {}, "step3a-coadd-tracts": {}}},
            "releases/demo.yaml: steps.step3a-coadd-tracts: is the same step as 'step3a'; keep one of them",
        ),
        (
            {"policies": [{"name": "p", "tasks": ["isr", "makeCoad"], "action": "hold"}]},
            "releases/demo.yaml: policies[0].tasks: no task 'makeCoad'; did you mean 'makeCoadd'?",
        ),
    ],
)
def test_names_that_the_pipeline_does_not_have_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Rejected) as caught:
        release_with(**changes).check_against(PLAN)
    assert str(caught.value) == said
