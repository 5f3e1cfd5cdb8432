"""A command line inside the warm process: its keeper, and the worker that becomes it.

Belongs here: what happens in the forks. Each command has a keeper, in a session of its own, that waits for the worker,
passes signals on and reports the end; so a worker survives the server's death, and dies with the caller that waits for
it.
Doesn't: the server that forks (`launchers.warm`), or the callers' side (`launchers.warm_client`).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

from launchers import warm_client
from launchers.processes import ProcessIdentity

PROGRAMS: Mapping[str, str] = {
    "pipetask": "lsst.ctrl.mpexec.cli.pipetask",
    "butler": "lsst.daf.butler.cli.butler",
    "bps": "lsst.ctrl.bps.cli.bps",
    "drp-quanta": "launchers.run_quanta",
}
"""Console scripts that are run in a fork, by the module whose ``main`` they call."""


def keep(connection: socket.socket) -> None:
    """Fork the worker, pass signals on to it, report its end."""
    os.setsid()
    try:
        connection.sendall(warm_client.READY + b"\n")
        command, descriptors = warm_client.receive_command(connection)
    except (OSError, struct.error, ValueError):
        return  # somebody only looked whether the warm process is there, or has given up
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    worker = os.fork()
    if not worker:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.close()
        os.close(reader)
        os.close(writer)
        os.setpgid(0, 0)
        _work(command, descriptors)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(worker, worker)
    for descriptor in descriptors:
        os.close(descriptor)
    identity = ProcessIdentity.of(worker) or ProcessIdentity(worker, "gone")
    is_waited_for = not command["detached"]
    with contextlib.suppress(OSError):
        connection.sendall(f"S{identity}\n".encode())
    while True:
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            break
        listened = [reader, connection.fileno()] if is_waited_for else [reader]
        ready, _, _ = select.select(listened, [], [])
        if reader in ready:
            os.read(reader, 64)
        if is_waited_for and connection.fileno() in ready:
            line = b""
            with contextlib.suppress(OSError):
                line = warm_client.read_line(connection)
            # Without a line nobody waits any more: the caller was killed, and with it what it had started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker, int(line) if line else signal.SIGKILL)
            is_waited_for = bool(line)
    with contextlib.suppress(OSError):
        connection.sendall(b"X%d\n" % os.waitstatus_to_exitcode(status))


def _work(command: Mapping[str, object], descriptors: Sequence[int]) -> None:
    """Become the command: never returns."""
    code = 1
    try:
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        os.closerange(3, max(descriptors) + 1)
        _take_on(command)
        code = _run([str(argument) for argument in command["argv"]])  # type: ignore[attr-defined]
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(code % 256)


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _take_on(command: Mapping[str, object]) -> None:
    """Take on the caller's folder, environment and streams, and forget what must not be shared by two forks."""
    os.umask(int(command["umask"]))  # type: ignore[call-overload]
    os.chdir(str(command["cwd"]))
    os.environ.clear()
    os.environ.update(command["env"])  # type: ignore[call-overload]
    time.tzset()
    for number in warm_client.FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    buffering = 1 if os.isatty(1) else -1
    sys.stdin = sys.__stdin__ = os.fdopen(0, "r", closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering, closefd=False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)  # type: ignore[misc]
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    for name in [name for name in sys.modules if name.partition(".")[0] == "launchers"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    extra = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = extra + [folder for folder in sys.path[1:] if folder not in extra]


def _run(argv: list[str]) -> int:
    program, *arguments = argv
    sys.modules["__main__"] = types.ModuleType("__main__")
    name = Path(program).name
    if name in PROGRAMS:
        sys.argv = [program, *arguments]
        importlib.import_module(PROGRAMS[name]).main()
        return 0
    if name.startswith("python") and arguments[:1] == ["-m"]:
        sys.argv = arguments[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    os.execvp(program, argv)
    return 127
