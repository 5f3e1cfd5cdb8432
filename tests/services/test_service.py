"""A service that can't be started says so, with the end of its log."""

import time
from pathlib import Path

import pytest

from services.service import ServiceError
from tests.services.stubborn import Stubborn


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


def test_a_kill_ends_also_what_a_server_started_in_sessions_of_its_own(stubborn, tmp_path):
    stubborn.script = f"setsid sh -c 'echo $$ > {tmp_path}/child; sleep 62' & wait"
    with pytest.raises(ServiceError):
        stubborn.start()
    child = int((tmp_path / "child").read_text())

    stubborn.kill()

    assert stubborn.pid is None
    assert has_ended(child)
    stubborn.kill()


def test_the_recent_log_is_that_since_the_last_start(stubborn):
    stubborn.script = "echo first; sleep 60"
    with pytest.raises(ServiceError):
        stubborn.start()
    stubborn.kill()
    stubborn.script = "echo second; sleep 60"
    with pytest.raises(ServiceError):
        stubborn.start()

    assert stubborn.recent_log() == "second\n"
    assert stubborn.log.read_text() == "first\nsecond\n"


def test_a_program_that_is_missing_is_named_with_its_packages_and_the_command_that_installs_them(stubborn, monkeypatch):
    monkeypatch.setattr(Stubborn, "packages", ("stubborn-server", "munge"))

    said = r"no-such-program is not installed; `make services` installs it \(packages: stubborn-server munge\)"
    with pytest.raises(ServiceError, match=said):
        stubborn.program("no-such-program")
    assert stubborn.program("sh", "/nowhere") == stubborn.program("sh")


def test_a_program_is_found_in_the_last_of_the_folders_that_have_it(stubborn, tmp_path):
    for version in ("14", "15"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "sh").touch()

    assert stubborn.program("sh", f"{tmp_path}/*/bin") == f"{tmp_path}/15/bin/sh"
