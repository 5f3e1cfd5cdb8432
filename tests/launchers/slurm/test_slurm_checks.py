from dataclasses import replace

import pytest

from launchers.slurm.checks import check_requests, largest_memory, unknown_limits
from launchers.slurm.jobs import Request
from launchers.slurm.queue import Partition
from resources.errors import Rejected, SiteFault

PARTITIONS = {
    "main": Partition("main", 4000, 4, walltime_min=60.0),
    "large": Partition("large", 512_000, 64),
    "old": Partition("old", 4000, 4, is_up=False),
}


def test_what_a_node_can_do_is_accepted():
    check_requests([Request("isr", cpus=4, memory_mb=4000, options=("--partition=main",))], PARTITIONS)


def test_without_a_queue_jobs_go_to_the_default_one():
    partitions = PARTITIONS | {"main": replace(PARTITIONS["main"], is_default=True)}

    with pytest.raises(Rejected, match="queue main: isr asks for 100000 MB, and the largest node has 4000 MB"):
        check_requests([Request("isr", memory_mb=100_000)], partitions)
    assert largest_memory(Request("isr"), partitions) == 4000
    assert largest_memory(Request("isr", options=("--partition=large",)), partitions) == 512_000


def test_where_slurm_has_no_default_queue_any_node_will_do():
    check_requests([Request("isr", memory_mb=100_000)], PARTITIONS)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (Request("isr", options=("--partition=main,none",)), "isr: there is no queue none; there are large, main, old"),
        (
            Request("isr", memory_mb=4001, options=("--partition=main",)),
            "queue main: isr asks for 4001 MB, and the largest node has 4000 MB; lower requestMemory, or set another"
            " queue",
        ),
        (
            Request("isr", cpus=5, options=("--partition=main",)),
            "queue main: isr asks for 5 CPUs, and the largest node has 4; lower requestCpus, or set another queue",
        ),
        (
            Request("isr", walltime_min=61, options=("--partition=main",)),
            "queue main: isr asks for 61 minutes, and jobs may take 60 there; lower requestWalltime, or set another"
            " queue",
        ),
    ],
)
def test_what_no_node_can_do_is_refused_in_one_line(request_, complaint):
    with pytest.raises(Rejected) as caught:
        check_requests([request_], PARTITIONS)

    assert str(caught.value) == complaint


def test_a_queue_that_takes_no_jobs_is_the_sites_fault():
    with pytest.raises(SiteFault, match="queue old: the queue takes no jobs"):
        check_requests([Request("isr", options=("--partition=old",))], PARTITIONS)


def test_memory_grows_no_further_than_the_largest_node_of_the_queue():
    assert largest_memory(Request("isr", options=("--partition=main",)), PARTITIONS) == 4000
    assert largest_memory(Request("isr"), PARTITIONS) == 512_000


def test_a_limit_without_a_licence_is_named_with_who_asked_for_it():
    requests = [Request("isr", limits=("gold:2", "db")), Request("cal", limits=("gold",)), Request("sum")]

    assert unknown_limits(requests, {"db"}) == [
        "isr, cal: the cluster has no licence gold, so concurrencyLimit limits nothing"
    ]
    assert requests[0].limited_by({"db"}).limits == ("db",)
    assert requests[0].limited_by({"gold"}).limits == ("gold:2",)
