"""A network link that can be cut: bytes between a client and a server on loopback pass through a process of its own.

While the link is cut nothing is refused and nothing is lost: it is silent, as a network is whose cable is out. What was
sent meanwhile arrives when it is restored, unless who sent it has given up.

Belongs here: the link. Doesn't: who is at its ends.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from services.loopback import LOOPBACK, LoopbackServer, listens
from services.service import ServiceError, write_at_once

_WHOLE, _CUT = "whole", "cut"
_SIGNALS = {_WHOLE: signal.SIGUSR1, _CUT: signal.SIGUSR2}
_CHUNK_BYTES = 256 * 1024
_ACKNOWLEDGED_S = 10.0
_POLL_S = 0.01


class NetworkLink(LoopbackServer):
    """A link to a server.

    Parameters
    ----------
    folder
        Where its pid and log are.
    target_port
        Of the server.
    port
        Where clients find it; by default a free one. Kafka tells its clients where to go, so that this has to be
        its `ApacheKafka.proxy_port`, and the target its `ApacheKafka.proxied_port`.
    """

    name: ClassVar[str] = "network-link"

    def __init__(self, folder: Path, target_port: int, port: int | None = None) -> None:
        super().__init__(folder)
        self.target_port = target_port
        self._port = port

    @property
    def port(self) -> int:
        """Where clients find it."""
        return super().port if self._port is None else self._port

    def prepare(self) -> None:
        """Forget what the last one said."""
        super().prepare()
        self._state.unlink(missing_ok=True)

    def command(self) -> Sequence[str]:
        """Run this module."""
        ports = ["--port", str(self.port), "--target-port", str(self.target_port)]
        return [sys.executable, str(Path(__file__).resolve()), *ports, "--state", str(self._state)]

    def environment(self) -> Mapping[str, str]:
        """Where Python finds this package, wherever it is started from."""
        return {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}

    def is_ready(self) -> bool:
        """Whether it has said that it is whole or cut, and somebody listens."""
        return self.pid is not None and self._state.exists() and listens(self.port)

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._become(_CUT)

    def restore(self) -> None:
        """Let everything through again, also what was held up."""
        self._become(_WHOLE)

    @property
    def _state(self) -> Path:
        return self.folder / "state"

    def _become(self, state: str) -> None:
        pid = self.pid
        if pid is None:
            raise ServiceError(f"{self.name} in {self.folder} doesn't run")
        os.kill(pid, _SIGNALS[state])
        deadline = time.monotonic() + _ACKNOWLEDGED_S
        while self._state.read_text(encoding="ascii") != state:
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} in {self.folder} is not {state} after {_ACKNOWLEDGED_S:g} s")
            time.sleep(_POLL_S)


class _Relay:
    """The process's work: connections, and the gate that all their bytes go through."""

    def __init__(self, target_port: int, state: Path) -> None:
        self._target_port = target_port
        self._state = state
        self._gate = asyncio.Event()

    def become(self, state: str) -> None:
        if state == _WHOLE:
            self._gate.set()
        else:
            self._gate.clear()
        write_at_once(self._state, state)

    async def connect(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        await self._gate.wait()
        try:
            server, to_server = await asyncio.open_connection(LOOPBACK, self._target_port)
        except OSError:
            to_client.transport.abort()
            return
        await asyncio.gather(self._carry(client, to_server), self._carry(server, to_client))
        to_server.close()
        to_client.close()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(_CHUNK_BYTES):
                await self._gate.wait()
                target.write(chunk)
                await target.drain()
            await self._gate.wait()
            target.write_eof()
        except OSError:  # one end has gone without a word, and the other is told so
            await self._gate.wait()
            target.transport.abort()


async def serve(port: int, target_port: int, state: Path) -> None:
    """Be the link, until the process is told to end.

    Parameters
    ----------
    port
        Where clients find it.
    target_port
        The server's.
    state
        The file that says whether it is whole or cut.
    """
    relay = _Relay(target_port, state)
    loop = asyncio.get_running_loop()
    for named, signal_number in _SIGNALS.items():
        loop.add_signal_handler(signal_number, relay.become, named)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await asyncio.start_server(relay.connect, LOOPBACK, port)
    relay.become(_WHOLE)
    await ended.wait()


def main() -> None:
    """Read the command line of `NetworkLink.command`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--target-port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.target_port, arguments.state))


if __name__ == "__main__":
    main()
