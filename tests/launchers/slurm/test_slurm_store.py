"""The record of a workflow, where a disk was full, or somebody else has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from launchers.slurm.jobs import Element, Job, JobState, Request
from launchers.slurm.plan import Plan
from launchers.slurm.store import JobStore, Unreadable


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path: Path, cut: int) -> None:
    plan = Plan([Job("isr_0", "isr")], [Request("isr")])
    store = JobStore(tmp_path)
    store.create(plan, ["true\n"], {"name": "w"})
    plan.settle()
    plan.placed({0: Element(1, 0)}, parked=False)
    store.write(plan, [0])
    store.write(plan, note="never read")
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])

    store.write(plan, trouble="none")

    read, facts = store.read()
    assert read.jobs[0].state is JobState.PENDING
    assert facts["trouble"] == "none"


@pytest.mark.parametrize("file", ["workflow.json", "journal.jsonl"])
@pytest.mark.parametrize(
    "text", ["", "\0\0", "{}", '{"blocks": [{"colour": 1}], "jobs": []}', '{"blocks": [], "jobs": [[1]]}']
)
def test_a_record_that_cannot_be_understood_is_said_so_in_a_line(tmp_path: Path, file: str, text: str) -> None:
    store = JobStore(tmp_path)
    store.create(Plan([Job("isr_0", "isr")], [Request("isr")]), ["true\n"], {"name": "w"})
    (tmp_path / file).write_text(text)

    with pytest.raises(Unreadable) as caught:
        store.read()

    assert str(caught.value) == (
        f"{tmp_path}: the record of this workflow cannot be read; "
        "restore its files, or end its jobs with scancel and remove the folder"
    )
