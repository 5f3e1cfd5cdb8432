"""Memory of a task's jobs, in BPS settings."""

from __future__ import annotations

import pytest

from launchers.memory import memory_of, with_memory


def test_a_cluster_that_says_its_own_memory_gets_more_of_it() -> None:
    bps = {"cluster": {"visit": {"pipetasks": "isr, calibrate", "requestMemory": 3000}, "other": {"pipetasks": "x"}}}
    changed = with_memory(bps, {"isr": 6000})
    assert changed["cluster"]["visit"]["requestMemory"] == 6000
    assert changed["cluster"]["other"] == {"pipetasks": "x"}
    assert bps["cluster"]["visit"]["requestMemory"] == 3000


@pytest.mark.parametrize(
    ("bps", "memory"),
    [
        ({}, 2048),
        ({"requestMemory": 4000}, 4000),
        ({"requestMemory": 4000, "computeSite": "L", "site": {"L": {"requestMemory": 5000}}}, 5000),
        ({"requestMemory": 4000, "pipetask": {"isr": {"requestMemory": 6000}}}, 6000),
        ({"pipetask": {"isr": {"requestMemory": 6}}, "cluster": {"c": {"pipetasks": "isr", "requestMemory": 9}}}, 9),
    ],
)
def test_the_memory_asked_for_is_read_where_bps_reads_it(bps: dict, memory: int) -> None:
    assert memory_of(bps, "isr") == memory


def test_memory_that_somebody_asks_for_may_be_had() -> None:
    cluster = {"c": {"pipetasks": "isr", "requestMemoryMax": 6000}}
    changed = with_memory({"requestMemoryMax": 5000, "cluster": cluster}, {"isr": 16_000, "coadd": 4000})
    assert changed["pipetask"] == {
        "isr": {"requestMemory": 16_000, "requestMemoryMax": 16_000},
        "coadd": {"requestMemory": 4000},
    }
    assert changed["cluster"]["c"]["requestMemoryMax"] == 16_000
