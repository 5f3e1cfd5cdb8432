import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.slurm.ends import Usage
from launchers.slurm.jobs import Element, JobState
from launchers.slurm.queue import (
    Accounted,
    Partition,
    element_lists,
    parse_accounts,
    parse_licences,
    parse_partitions,
    parse_queue,
    parse_settings,
    seconds,
    size_mb,
    task_list,
)

QUEUE = """\
101|100|3|RUNNING|0|0|n1|None|w.isr|bps.0.0.1|/data/submit|
102|100|4|FAILED|256|1||NonZeroExitCode|w.isr|bps.0.0.1|/data/submit|
100|100|5|PENDING|0|0||JobHeldUser|w.isr|bps.0.0.1|/data/submit|
106|106|N/A|PENDING|0|0||Dependency|bps-dispatcher-1|bps.dispatcher|/data/with|a bar|
slurm_load_jobs: something else
"""


def test_the_queue_is_read_element_by_element():
    elements = parse_queue(QUEUE).elements

    assert set(elements) == {Element(100, 3), Element(100, 4), Element(100, 5), Element(106, 0)}
    running, failed, held = (elements[Element(100, task)] for task in (3, 4, 5))
    assert (running.alive, running.node, running.comment) == (JobState.RUNNING, "n1", "bps.0.0.1")
    assert (failed.is_over, failed.status, failed.restarts) == (True, 256, 1)
    assert (held.alive, held.is_over) == (JobState.HELD, False)


@pytest.mark.parametrize(
    ("reason", "could_not_start"),
    [
        ("JobHeldAdmin", False),
        ("JobHoldMaxRequeue", False),
        ("job requeued in held state", False),
        ("launch failed requeued held", True),
    ],
)
def test_a_job_that_waits_for_somebody_is_held(reason, could_not_start):
    (queued,) = parse_queue(f"7|7|0|PENDING|0|1||{reason}|w|c|/f|\n").elements.values()

    assert (queued.alive, queued.could_not_start) == (JobState.HELD, could_not_start)


def test_a_folder_may_have_any_name():
    (queued,) = parse_queue(QUEUE).of_folder("/data/with|a bar")

    assert queued.job == 106


def test_a_job_about_to_end_is_neither_alive_nor_over():
    (queued,) = parse_queue("1|1|0|COMPLETING|0|0|n1|None|w|c|/f|\n").elements.values()

    assert (queued.alive, queued.is_over) == (None, False)


def test_accounting_adds_the_memory_of_a_jobs_steps():
    text = """\
100_3|COMPLETED|0:0||01:02.500|n1
100_3.batch|COMPLETED|0:0|2048K|01:02.500|n1
100_3.extern|COMPLETED|0:0|0|00:00|n1
100_4|CANCELLED by 0|0:15||00:00:00|None assigned
100_[5-9]|PENDING|0:0||00:00:00|None assigned
"""
    assert parse_accounts(text) == {
        Element(100, 3): Accounted("COMPLETED", 0, Usage(62.5, 2.0, "n1")),
        Element(100, 4): Accounted("CANCELLED by 0", 15, Usage(0.0, 0.0, "None assigned")),
    }


def test_a_partition_has_the_memory_of_its_largest_node():
    text = "main*|4000|4|1:00:00|up\nmain*|9000+|2|1:00:00|up\nold|100|1|infinite|down\n"

    assert parse_partitions(text) == {
        "main": Partition("main", 9000, 4, walltime_min=60.0, is_default=True),
        "old": Partition("old", 100, 1, is_up=False),
    }


def test_licences_are_read_by_name():
    text = "LicenseName=db_limit Total=2 Used=0 Free=2 Reserved=0 Remote=no\nLicenseName=gold@there Total=1 Used=1\n"

    assert parse_licences(text) == {"db_limit", "gold@there"}
    assert parse_licences("No licenses configured in Slurm.\n") == frozenset()


def test_settings_are_read_with_whatever_is_in_their_values():
    settings = parse_settings("Configuration data as of now\nMaxArraySize = 10001\nAuthInfo   = socket=/s,a=b\n")

    assert settings == {"MaxArraySize": "10001", "AuthInfo": "socket=/s,a=b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0.0), ("0m1.5s", 1.5), ("2m0.25s", 120.25), ("00:01", 1.0), ("01:02:03", 3723.0), ("1-00:00:01", 86401.0)],
)
def test_times_are_read_as_slurm_and_the_shell_write_them(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("", 0.0), ("512K", 0.5), ("1.5G", 1536.0), ("1048576", 1.0), ("x", 0)])
def test_sizes_are_read_as_slurm_writes_them(text, expected):
    assert size_mb(text) == expected


def expanded(text: str) -> set[int]:
    found = set()
    for span in text.split(","):
        first, _, last = span.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_of_tasks_names_these_and_no_others(tasks):
    assert expanded(task_list(tasks)) == tasks


def test_tasks_in_a_row_are_named_by_the_first_and_the_last():
    assert task_list([7, 1, 3, 2]) == "1-3,7"


def test_elements_are_named_array_by_array():
    assert element_lists([Element(2, 1), Element(1, 5), Element(2, 2)]) == ["1_[5]", "2_[1-2]"]
