"""Servers that listen on one port of the loopback interface, the same one after every start.

Belongs here: finding a free port, and keeping it beside the server. Doesn't: any particular server.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from services.service import Service, ServiceError, write_at_once

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT_S = 1.0
PORTS = range(15_000, 32_000)
"""Below the kernel's range for outgoing connections, so that nobody gets a server's port while it is down."""

_ATTEMPTS = 100


def free_port() -> int:
    """Find a port of the loopback interface that nobody listens on."""
    for _ in range(_ATTEMPTS):
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise ServiceError(f"no free port among {_ATTEMPTS} of {PORTS.start}–{PORTS.stop - 1} on {LOOPBACK}")


def kept_port(folder: Path, name: str = "port") -> int:
    """Give a server's port, chosen when first asked for and kept in its folder.

    Parameters
    ----------
    folder
        The server's.
    name
        Of the file that keeps the port, for servers with several.
    """
    kept = folder / name
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_at_once(kept, str(free_port()))
    return int(kept.read_text())


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of the loopback interface."""
    try:
        with socket.create_connection((LOOPBACK, port), CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


class LoopbackServer(Service):
    """A server that listens on one port of the loopback interface.

    Parameters
    ----------
    folder
        Where its port, pid and log are.
    """

    @property
    def port(self) -> int:
        """Its port."""
        return kept_port(self.folder)

    @property
    def address(self) -> str:
        """host:port."""
        return f"{LOOPBACK}:{self.port}"

    def is_ready(self) -> bool:
        """Whether somebody listens on the port."""
        return listens(self.port)
