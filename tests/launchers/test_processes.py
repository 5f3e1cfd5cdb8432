import os
import signal
import subprocess
import sys
import time

from launchers.processes import ProcessIdentity, exclusive, start_detached


def wait_until(condition, timeout_s: float = 60.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_living_process_is_recognised_from_what_was_written_down():
    identity = ProcessIdentity.of(os.getpid())

    assert ProcessIdentity.parse(str(identity)) == identity
    assert identity.is_alive


def test_another_process_with_the_same_number_is_not_mistaken_for_it():
    mine = ProcessIdentity.of(os.getpid())
    earlier = ProcessIdentity(mine.pid, "an earlier start")

    assert not earlier.is_alive
    assert not earlier.send(signal.SIGKILL)
    assert not earlier.send_to_group(signal.SIGKILL)


def test_a_zombie_is_dead():
    child = subprocess.Popen(["true"])
    identity = ProcessIdentity.of(child.pid)

    assert wait_until(lambda: ProcessIdentity.of(child.pid) is None)
    assert identity is None or not identity.is_alive
    child.wait()


def test_a_detached_process_has_a_session_of_its_own_and_a_log(tmp_path):
    log = tmp_path / "log"
    code = "import os, time; print(os.getsid(0), os.environ['X'], flush=True); time.sleep(60)"
    process = start_detached([sys.executable, "-c", code], log, environment={"X": "y"})

    assert wait_until(lambda: log.exists() and log.read_text().endswith("y\n"))
    assert int(log.read_text().split()[0]) != os.getsid(0)
    assert process.send(signal.SIGKILL)
    assert wait_until(lambda: not process.is_alive)


def test_only_one_holds_a_lock_and_its_death_frees_it(tmp_path):
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from launchers.processes import exclusive\n"
        "with exclusive(Path(sys.argv[1])) as held: print(held is not None, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with exclusive(lock) as held:
        assert held is None

    holder.kill()
    holder.wait()

    with exclusive(lock, wait_s=60.0) as held:
        assert held is not None
