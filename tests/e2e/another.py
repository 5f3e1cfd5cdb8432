"""Another release of the small survey, made by the command line in a folder of its own, and compared with the first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from commands.demonstration import Demonstration
from tests.e2e.catalogue import read_objects


def with_its_survey(first: Path, state: Path) -> Path:
    """Make the state folder of another release of the survey that the first one has simulated."""
    state.mkdir()
    (state / "survey").symlink_to(first / "survey", target_is_directory=True)
    return state


def demo(state: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command that makes the release."""
    program = Path(sys.executable).parent / "drp"
    command = [str(program), "demo", "--survey", "ci", "--state", str(state), "--exit", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def assert_same_catalogue(
    first_objects: Table, first: Demonstration, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the first release's objects, number by number, with those of the release in another state folder."""
    monkeypatch.setenv("DRP_STATE", str(state))
    objects = read_objects(first.site.butler.model_copy(update={"repository": str(state / "repo")}))
    assert objects.colnames == first_objects.colnames
    assert len(objects) == len(first_objects) > 0
    for name in objects.colnames:
        np.testing.assert_array_equal(np.asarray(first_objects[name]), np.asarray(objects[name]), err_msg=name)
