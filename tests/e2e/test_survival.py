"""A release survives the death of any one of its processes: started again, it ends with the same catalogue."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from astropy.table import Table

from commands.demonstration import Demonstration
from tests.e2e.another import assert_same_catalogue, demo, with_its_survey

pytestmark = pytest.mark.e2e
SEED = int(os.environ.get("DRP_SURVIVAL_SEED", "20261101"))


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


@pytest.mark.timeout(1200)
def test_release_killed_at_a_random_moment_ends_with_the_same_catalogue(
    finished: Demonstration, first_objects: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(SEED)
    state = with_its_survey(finished.state, tmp_path / "ci")

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

    assert_same_catalogue(first_objects, finished, state, monkeypatch)
