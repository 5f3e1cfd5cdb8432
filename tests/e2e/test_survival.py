"""A release survives the death of any one of its processes: started again, it ends with the same catalogue."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from commands.demonstration import Demonstration
from tests.e2e.catalogue import read_objects

pytestmark = pytest.mark.e2e
SEED = int(os.environ.get("DRP_SURVIVAL_SEED", "20261101"))


def demo(state: Path) -> subprocess.Popen[str]:
    program = Path(sys.executable).parent / "drp"
    command = [str(program), "demo", "--survey", "ci", "--state", str(state), "--exit"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def processes_of(state: Path) -> dict[int, str]:
    """Every process that works for the demonstration in this folder."""
    mark = f"DRP_STATE={state}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if mark in (entry / "environ").read_bytes().split(b"\0") or str(state) in command:
                found[int(entry.name)] = command
        except OSError:
            continue
    return found


def assert_same_catalogue(one: Table, other: Table) -> None:
    assert one.colnames == other.colnames
    assert len(one) == len(other)
    for name in one.colnames:
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]), err_msg=name)


@pytest.mark.timeout(1200)
def test_release_killed_at_a_random_moment_ends_with_the_same_catalogue(
    finished: Demonstration, first_objects: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(SEED)
    state = tmp_path / "ci"
    state.mkdir()
    (state / "survey").symlink_to(finished.state / "survey", target_is_directory=True)

    first = demo(state)
    time.sleep(chance.uniform(15.0, 60.0))
    victims = processes_of(state)
    assert victims, "nothing ran"
    victim = chance.choice(sorted(victims))
    os.kill(victim, signal.SIGKILL)
    time.sleep(5.0)
    first.terminate()  # a background process may have been told to ignore SIGINT
    first.communicate(timeout=120)

    second = demo(state)
    output, _ = second.communicate(timeout=600)
    assert second.returncode == 0, f"after the death of {victims[victim]}:\n{output}"

    monkeypatch.setenv("DRP_STATE", str(state))
    settings = finished.site.butler.model_copy(update={"repository": str(state / "repo")})
    assert_same_catalogue(first_objects, read_objects(settings))
