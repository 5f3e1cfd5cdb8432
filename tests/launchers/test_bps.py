"""Where a submission's final job leaves what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from launchers.bps import fetch_provenance, forget_provenance
from launchers.submission import StepRequest, SubmissionKey


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "dr1_step1a.qg"


@pytest.fixture
def request_with_place(tmp_path: Path, elsewhere: Path) -> StepRequest:
    """A submission whose workers see another folder than its own."""
    folder = tmp_path / "submission"
    folder.mkdir()
    elsewhere.parent.mkdir()
    place = {"uniqProcName": "dr1_step1a", "provenanceOnWorkers": f"file://{elsewhere.parent}/{{uniqProcName}}.qg"}
    (folder / "bps.yaml").write_text(yaml.safe_dump(place))
    return StepRequest(SubmissionKey("dr1", "step1a", ()), "repo", "DRP.yaml", ("dr1",), "dr1", "", folder)


def test_provenance_that_a_worker_has_left_elsewhere_is_brought_home(request_with_place, elsewhere):
    fetch_provenance(request_with_place)
    assert not request_with_place.provenance_path.exists()

    elsewhere.write_text("all quanta")
    fetch_provenance(request_with_place)

    assert request_with_place.provenance_path.read_text() == "all quanta"


def test_a_submission_that_goes_on_keeps_no_provenance_of_its_first_end_anywhere(request_with_place, elsewhere):
    for file in (elsewhere, request_with_place.provenance_path):
        file.write_text("half the quanta")

    forget_provenance(request_with_place)

    assert not elsewhere.exists()
    assert not request_with_place.provenance_path.exists()
    forget_provenance(request_with_place)
