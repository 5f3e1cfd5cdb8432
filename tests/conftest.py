"""What holds for every test: speed is not judged on a shared machine, and nothing that a test starts survives it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

PATIENCE_S = 30.0
"""How long processes that were told to end may take."""

SERVANTS = ("from multiprocessing.resource_tracker import", "from multiprocessing.forkserver import")
"""Python's own helpers, which end with the process that they serve."""

MARK = "DRP_TESTS_IN"
"""Environment variable by which the processes of a test run are known."""

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines of the living processes that were started by a test run, or for something in its folder."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            marked = f"{MARK}={folder}\0".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if not command or any(servant in command for servant in SERVANTS) or int(process.name) == os.getpid():
            continue
        if marked or f"{folder}/" in command:
            found[int(process.name)] = command
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_survives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.getbasetemp()
    os.environ[MARK] = str(folder)
    yield
    del os.environ[MARK]
    deadline = time.monotonic() + PATIENCE_S
    while (survivors := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not survivors
