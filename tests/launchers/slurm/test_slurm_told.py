"""What a workflow's record tells of the jobs that lost quanta were in."""

from __future__ import annotations

import uuid
from pathlib import Path

from launchers.job_ends import JobEnd
from launchers.slurm.ends import KILLED, End, Ending, Mark, Usage
from launchers.slurm.jobs import Element, Job, Request
from launchers.slurm.plan import Plan
from launchers.slurm.store import JobStore
from launchers.slurm.told import job_ends

QUANTA = [uuid.UUID(int=number) for number in range(6)]


def test_each_quantum_of_a_job_that_did_not_succeed_gets_its_end_node_memory_and_log(tmp_path: Path) -> None:
    names = ("late", "big", "lost", "evil", "good")
    plan = Plan([Job(f"isr_{name}", "isr", 0, place) for place, name in enumerate(names)], [Request("isr")])
    scripts = [f"drp-quanta repo graph --qgraph-node-id {quantum}\n" for quantum in QUANTA[1:5]]
    store = JobStore(tmp_path)
    store.create(plan, [f"drp-quanta repo graph --qgraph-node-id {QUANTA[0]},{QUANTA[5]}\n", *scripts], {"name": "w"})
    plan.settle()
    plan.placed({position: Element(1, position) for position in range(5)}, parked=False)
    late_log = store.log(plan.jobs[0], 1)
    late_log.write_text("still at it")
    plan.ended(0, End(Ending.TIMEOUT, KILLED))
    plan.used(0, Usage(5.0, 100.0, "n1"))
    plan.ended(1, End(Ending.OUT_OF_MEMORY, KILLED, Mark(KILLED, Usage(1.0, 2048.0, "n2"))))
    plan.ended(2, End(Ending.LOST_NODE, KILLED))
    plan.used(2, Usage(0.0, 0.0, "n3"))
    plan.ended(3, End(Ending.FAILED, 1, Mark(1, Usage(1.0, 50.0, "n1"))))
    plan.ended(4, End(Ending.SUCCEEDED))
    store.write(plan, range(5))

    late = JobEnd("out of time", "n1", 100.0, late_log.as_uri())
    assert job_ends(store, QUANTA) == {
        QUANTA[0]: late,
        QUANTA[5]: late,
        QUANTA[1]: JobEnd("out of memory", "n2", 2048.0),
        QUANTA[2]: JobEnd("lost with node n3", "n3"),
        QUANTA[3]: JobEnd("", "n1", 50.0),
    }
    assert job_ends(store, QUANTA[1:2]).keys() == {QUANTA[1]}
