"""A service that can't be started says so, with the end of its log."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from services.service import Service, ServiceError


class Stubborn(Service):
    """Runs a shell's command line, and never becomes ready."""

    name: ClassVar[str] = "stubborn"
    start_timeout_s: ClassVar[float] = 0.5
    script = "sleep 60"

    def command(self) -> Sequence[str]:
        return ["sh", "-c", self.script]

    def is_ready(self) -> bool:
        return False

    @property
    def address(self) -> str:
        return "nowhere"


def has_ended(pid: int) -> bool:
    """Whether a process is gone or only waits to be reaped, within ten seconds."""
    for _ in range(100):
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def stubborn(tmp_path):
    service = Stubborn(tmp_path)
    yield service
    service.stop()


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log(stubborn):
    stubborn.script = "echo no port is free; exit 3"
    stubborn.start_timeout_s = 30.0

    with pytest.raises(ServiceError, match=r"stubborn ended while starting; .*/log ends with:\nno port is free"):
        stubborn.start()


def test_a_server_that_is_not_ready_in_time_is_an_error(stubborn):
    with pytest.raises(ServiceError, match=r"stubborn is not ready after 0\.5 s"):
        stubborn.start()


def test_a_server_that_ignores_the_gentle_signal_is_killed(stubborn):
    stubborn.script = "trap '' TERM; while :; do sleep 0.1; done"
    stubborn.stop_timeout_s = 0.3
    with pytest.raises(ServiceError):
        stubborn.start()
    assert stubborn.pid is not None

    stubborn.stop()

    assert stubborn.pid is None


def test_what_a_server_leaves_of_its_process_group_ends_with_it(stubborn, tmp_path):
    stubborn.script = f"sleep 61 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(ServiceError):
        stubborn.start()
    child = int((tmp_path / "child").read_text())

    stubborn.stop()

    assert has_ended(child)
