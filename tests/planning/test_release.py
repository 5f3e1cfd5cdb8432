from __future__ import annotations

from pathlib import Path

import pytest

from planning.release import read_release
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
