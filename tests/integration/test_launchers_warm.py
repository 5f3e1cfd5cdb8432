"""The warm process and its shims, with real processes and few imports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launchers import warm, warm_client
from launchers.processes import ProcessIdentity

pytestmark = pytest.mark.integration

PROGRAM = """
import os, signal, sys, time
def main():
    command = sys.argv[1:]
    if command[0] == "show":
        print(os.getcwd(), os.environ["COLOUR"], *command[1:], sys.stdin.read(), sep="|")
        print("to stderr", file=sys.stderr)
    elif command[0] == "exit":
        sys.exit(int(command[1]))
    elif command[0] == "raise":
        raise ValueError("on purpose")
    elif command[0] == "pid":
        print(os.getpid(), os.getppid(), flush=True)
        time.sleep(60)
    elif command[0] == "interrupt":
        print("ready", flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(3)
if __name__ == "__main__":
    main()
"""

SERVE = """
import sys
from pathlib import Path
from launchers.warm import Server
Server(Path(sys.argv[1]), float(sys.argv[2])).serve()
"""


def wait_until(condition: Callable[[], object], timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a program, for a warm process that preloads next to nothing."""
    (tmp_path / "toy_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COLOUR", "red")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder) -> Iterator[ProcessIdentity]:
    state = folder / "state"
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(state), "60.0"])
    identity = ProcessIdentity.of(process.pid)
    assert identity is not None
    wait_until(lambda: connects(state))
    yield identity
    process.kill()
    process.wait()


def connects(state: Path) -> bool:
    connection = warm_client.connect(str(state), warm.packages_folder())
    if connection is not None:
        connection.close()
    return connection is not None


def client(folder: Path, *arguments: str, **options) -> subprocess.Popen[str]:
    call = [sys.executable, "-S", "-E", warm_client.__file__, str(folder / "state"), warm.packages_folder()]
    return subprocess.Popen(
        [*call, "python", "-m", "toy_program", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_command_has_the_caller_s_folder_environment_arguments_and_streams(folder, server):
    out, err = client(folder, "show", "a b", env=os.environ | {"COLOUR": "blue"}).communicate("input")

    assert out == f"{folder}|blue|a b|input\n"
    assert err == "to stderr\n"


@pytest.mark.parametrize(("command", "code"), [(("exit", "0"), 0), (("exit", "7"), 7), (("raise",), 1)])
def test_the_caller_ends_as_the_command_ended(folder, server, command, code):
    process = client(folder, *command)
    process.communicate()

    assert process.returncode == code


def test_a_signal_to_the_caller_reaches_the_command(folder, server):
    process = client(folder, "interrupt")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.SIGINT)

    assert process.communicate()[0] == "interrupted\n"
    assert process.returncode == 3


def started(process: subprocess.Popen[str]) -> tuple[ProcessIdentity, ProcessIdentity]:
    assert process.stdout is not None
    worker, keeper = (ProcessIdentity.of(int(pid)) for pid in process.stdout.readline().split())
    assert worker is not None
    assert keeper is not None
    return worker, keeper


def test_a_killed_command_looks_killed_to_the_caller(folder, server):
    process = client(folder, "pid")
    worker, _ = started(process)

    worker.send(signal.SIGKILL)

    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_command_dies_with_the_caller_that_was_killed(folder, server):
    process = client(folder, "pid")
    worker, keeper = started(process)

    process.kill()

    wait_until(lambda: not worker.is_alive)
    wait_until(lambda: not keeper.is_alive)


def test_a_command_survives_the_warm_process(folder, server):
    process = client(folder, "interrupt")
    assert process.stdout is not None
    process.stdout.readline()

    server.send(signal.SIGKILL)
    wait_until(lambda: not server.is_alive)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)

    assert process.communicate()[0] == "interrupted\n"
    assert process.returncode == 3


def test_a_detached_command_needs_nobody(folder, server):
    log = folder / "log"
    worker = warm.run_detached(
        folder / "state",
        ["python", "-m", "toy_program", "interrupt"],
        log,
        environment=dict(os.environ),
        directory=folder,
    )
    assert worker is not None
    wait_until(lambda: log.exists() and log.read_text() == "ready\n")
    assert os.getsid(worker.pid) not in {os.getsid(0), os.getsid(server.pid)}

    server.send(signal.SIGKILL)
    wait_until(lambda: not server.is_alive)
    worker.send(signal.SIGINT)

    wait_until(lambda: log.read_text() == "ready\ninterrupted\n")


def test_changed_code_of_ours_is_seen_by_the_next_command(folder, server):
    assert client(folder, "exit", "7").wait() == 7

    (folder / "toy_program.py").write_text("print('a new version')")

    assert client(folder, "exit", "7").communicate()[0] == "a new version\n"


def test_without_a_warm_process_the_real_program_runs(folder):
    real, shims = folder / "real", warm.write_shims(folder / "state")
    real.mkdir()
    program = real / "butler"
    program.write_text("#!/bin/sh\necho the real one: $*\nexit 5\n")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{shims}:{real}:{os.environ['PATH']}"}

    done = subprocess.run(["butler", "a", "b"], env=environment, capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("the real one: a b\n", 5)


def test_the_warm_process_ends_with_its_state_folder(folder, server):
    shutil.rmtree(folder / "state")

    wait_until(lambda: not server.is_alive)


def test_the_warm_process_ends_when_nobody_needs_it(folder):
    done = subprocess.run([sys.executable, "-c", SERVE, str(folder / "state"), "0.2"], timeout=60.0, check=False)

    assert done.returncode == 0
    assert not list((folder / "state").glob("*.address"))


def test_another_set_of_packages_has_another_warm_process(folder, server):
    packages = folder / "packages"
    (packages / "numpy-1.dist-info").mkdir(parents=True)

    assert warm_client.connect(str(folder / "state"), str(packages)) is None


def test_many_callers_at_once_start_one_warm_process_that_has_one_thread(folder):
    state = folder / "state"
    code = (
        "import sys; from launchers.warm import start; from pathlib import Path; start(Path(sys.argv[1]), idle_s=2.0)"
    )
    callers = [subprocess.Popen([sys.executable, "-c", code, str(state)]) for _ in range(4)]
    for caller in callers:
        caller.wait()

    (socket_file,) = state.glob("*.socket")
    server = ProcessIdentity.of(int(socket_file.stem.partition("-")[2]))
    assert server is not None
    # A command is only taken when the imports are done.
    assert client(folder, "exit", "4").wait() == 4
    assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1
    server.send(signal.SIGTERM)
