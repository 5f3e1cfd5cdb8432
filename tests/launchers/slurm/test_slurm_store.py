"""The record of a workflow, where a disk was full."""

from __future__ import annotations

from pathlib import Path

import pytest

from launchers.slurm.jobs import Element, Job, JobState, Plan, Request
from launchers.slurm.store import JobStore


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
