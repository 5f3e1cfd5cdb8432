"""Processes are told apart for good, with what they started and what they hold."""

import os
import subprocess
import sys

import pytest

from services.processes import descendants, memory_bytes, start_time


@pytest.fixture
def family():
    """A process that has a child in a session of its own, which holds 50 MB."""
    child = "import time; held = b'x' * 50_000_000; print('ready', flush=True); time.sleep(600)"
    parent = (
        f"import subprocess, sys;subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    for pid in (*descendants(process.pid), process.pid):
        os.kill(pid, 9)
    process.wait()
    process.stdout.close()


def test_descendants_are_found_in_whatever_session_they_are(family):
    [child] = descendants(family.pid)

    assert child != family.pid
    assert child in descendants(os.getpid())


def test_memory_is_that_of_the_whole_family(family):
    assert 50_000_000 < memory_bytes(family.pid) < 200_000_000


def test_a_process_that_has_ended_has_no_start_and_no_memory():
    ended = subprocess.Popen(["true"])
    ended.wait()

    assert start_time(ended.pid) is None
    assert memory_bytes(ended.pid) == 0
    assert start_time(os.getpid()) == start_time(os.getpid()) is not None
