"""How long definitions take to load, and whom that touches: ``python -m benchmarks.loading <location> …``.

Belongs here: loading code locations in a fresh process as a code server does, and listening for connections meanwhile.
Doesn't: judging either (`benchmarks.overhead`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"})


@dataclass(frozen=True, slots=True)
class Loading:
    """One fresh process that loaded all locations.

    Parameters
    ----------
    wall_s
        From starting the process to its end.
    connections
        What it connected to, resolved or left open; empty if it kept to itself.
    """

    wall_s: float
    connections: tuple[str, ...]


def time_loading(locations: Sequence[str]) -> Loading:
    """Load locations in a fresh process.

    Parameters
    ----------
    locations
        Attributes of ``drp_assets.definitions``.

    Raises
    ------
    subprocess.CalledProcessError
        They don't load.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.loading", *locations]
    began = time.monotonic()
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent.parent)
    wall_s = time.monotonic() - began
    return Loading(wall_s, tuple(json.loads(process.stdout.splitlines()[-1])))


def _open_sockets() -> set[str]:
    """Name the sockets of this process, those of libraries that Python doesn't see among them."""
    targets = (file.readlink() for file in Path("/proc/self/fd").iterdir() if file.is_symlink())
    return {str(target) for target in targets if str(target).startswith("socket:")}


def main() -> None:
    """Load the locations named on the command line, and print what was connected to as JSON."""
    connections: list[str] = []

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if event in _CONNECTING:
            connections.append(f"{event} {arguments[1:]}")

    before = _open_sockets()
    sys.addaudithook(listen)
    from drp_assets import definitions

    for location in sys.argv[1:]:
        getattr(definitions, location).get_repository_def()
    print(json.dumps([*connections, *sorted(_open_sockets() - before)]))


if __name__ == "__main__":
    main()
