"""Command lines on their way to the warm process: ``python -S -E warm_client.py <folder> <packages> <program> …``.

Belongs here: finding the warm process, handing it a command line with everything that belongs to it, passing signals
on, ending as the command ended; and running the real program when there is no warm process. Standard library only,
without ``site``, because this starts once for every job.
Doesn't: the warm process itself (`launchers.warm`).
"""

# pathlib takes longer to import than all the rest.
# ruff: noqa: PTH100, PTH109, PTH116, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence

_LENGTH = struct.Struct("!I")
_SOURCES = ("warm.py", "warm_client.py", "warm_worker.py")
READY = b"R"
READY_S = 60.0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def address_file(folder: str, packages: str) -> str:
    """File that holds the socket of the warm process that has exactly these packages, and this code, imported."""
    names = sorted(name for name in os.listdir(packages) if name.endswith(".dist-info"))
    here = os.path.dirname(os.path.abspath(__file__))
    sources = [str(os.stat(os.path.join(here, name)).st_mtime_ns) for name in _SOURCES]
    mark = zlib.crc32("\n".join([sys.version, packages, *names, *sources]).encode())
    return os.path.join(folder, f"warm-{mark:08x}.address")


def connect(folder: str, packages: str) -> socket.socket | None:
    """Connect to the warm process; None when there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with open(address_file(folder, packages), encoding="utf-8") as address:
            connection.connect(address.read())
    except OSError:
        connection.close()
        return None
    return connection


def send_command(
    connection: socket.socket,
    argv: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Sequence[int],
    *,
    directory: str,
    detached: bool,
) -> bytes | None:
    """Send a command line; return the started process's identity as text, or None when it was not taken."""
    umask = os.umask(0)
    os.umask(umask)
    command = {"argv": list(argv), "env": dict(environment), "cwd": directory, "umask": umask, "detached": detached}
    body = json.dumps(command).encode()
    try:
        # Nothing is sent before somebody is there to take it: who gave up waiting must not be served later.
        connection.settimeout(READY_S)
        if read_line(connection) != READY:
            return None
        connection.settimeout(None)
        # The descriptors travel with the length; a large command follows in as many pieces as it needs.
        socket.send_fds(connection, [_LENGTH.pack(len(body))], list(descriptors))
        connection.sendall(body)
        answer = read_line(connection)
    except OSError:
        return None
    return answer[1:] if answer[:1] == b"S" else None


def receive_command(connection: socket.socket) -> tuple[dict[str, object], list[int]]:
    """Receive what `send_command` sent: the command and its descriptors."""
    head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
    while len(head) < _LENGTH.size:
        head += _some(connection, _LENGTH.size - len(head))
    (length,) = _LENGTH.unpack(head)
    body = bytearray()
    while len(body) < length:
        body += _some(connection, length - len(body))
    return json.loads(bytes(body)), descriptors


def read_line(connection: socket.socket) -> bytes:
    """Read up to an end of line, or to the end."""
    line = bytearray()
    while (byte := connection.recv(1)) not in {b"", b"\n"}:
        line += byte
    return bytes(line)


def _some(connection: socket.socket, count: int) -> bytes:
    piece = connection.recv(count)
    if not piece:
        raise ConnectionError("the other side closed the connection")
    return piece


def hear_signals() -> int:
    """Have signals heard, not obeyed, from now on; return the descriptor that tells of them."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in FORWARDED:
        signal.signal(number, lambda *_: None)
    return reader


def wait(connection: socket.socket, reader: int) -> int:
    """Wait for the command's end and pass signals on; return its exit code, negative for a signal that killed it."""
    while True:
        ready = set(select.select([connection.fileno(), reader], [], [])[0])
        if reader in ready:
            for passed_on in os.read(reader, 64):
                connection.sendall(b"%d\n" % passed_on)
        if connection.fileno() in ready:
            line = read_line(connection)
            return int(line[1:]) if line[:1] == b"X" else -signal.SIGKILL


def _run_real_program(program: str, arguments: Sequence[str]) -> None:
    here = os.path.realpath(os.environ.get("DRP_WARM_SHIMS", ""))
    folders = [f for f in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.realpath(f) != here]
    os.environ["PATH"] = os.pathsep.join(folders)
    os.execvp(program, [program, *arguments])


def main() -> None:
    """Run the command line that follows the folder and the packages."""
    folder, packages, program, *arguments = sys.argv[1:]
    connection = connect(folder, packages)
    # From the moment that the command may run, signals are its own.
    reader = hear_signals() if connection else -1
    started = connection and send_command(
        connection,
        [program, *arguments],
        os.environ,
        (0, 1, 2),
        directory=os.getcwd(),
        detached=False,
    )
    if connection is None or started is None:
        _run_real_program(program, arguments)
        return
    code = wait(connection, reader)
    if code < 0:
        # End as the command ended, so that the shell above sees the same signal.
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code % 256)


if __name__ == "__main__":
    main()
