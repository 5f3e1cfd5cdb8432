"""A release on a batch system: the same catalogue as on the laptop."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.table import Table

from commands.demonstration import Demonstration
from tests.e2e.another import assert_same_catalogue, demo, with_its_survey

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(1200)
def test_release_on_slurm_ends_with_the_same_catalogue(
    finished: Demonstration, first_objects: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = with_its_survey(finished.state, tmp_path / "ci")

    on_slurm = demo(state, "--site", "slurm")
    output, _ = on_slurm.communicate(timeout=1000)

    assert on_slurm.returncode == 0, output
    assert list(state.glob("submissions/**/element.sh")), "nothing went to Slurm"
    assert_same_catalogue(first_objects, finished, state, monkeypatch)
