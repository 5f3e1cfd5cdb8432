"""What all services have in common: they live in a folder, outlive whoever started them, and are found again there.

Belongs here: starting a process of its own under a folder, its recorded pid, address, log, readiness and end.
Doesn't: anything about one particular server (a module each).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from services.processes import descendants, memory_bytes, start_time

_POLL_S = 0.02
_LOG_TAIL_LINES = 20


class ServiceError(RuntimeError):
    """A service that can't be started, or died; the message says which and where its log is."""


class Service(ABC):
    """A server on loopback.

    Parameters
    ----------
    folder
        Everything of the service is in here; the same folder finds a running service again, from any process.

    Attributes
    ----------
    name
        What it is called on the command line.
    packages
        Debian packages it needs; none for what Python brings along.
    stop_signal
        What tells the server to end at once and in good order.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    start_timeout_s: ClassVar[float] = 30.0
    stop_timeout_s: ClassVar[float] = 10.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        """Start it for the length of a block."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The server's command line; its process is the server itself, so that the recorded pid is its own."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients reach it, once it is ready."""

    def environment(self) -> Mapping[str, str]:
        """Variables that its process gets besides the starter's own."""
        return {}

    def prepare(self) -> None:
        """Make what the server needs before it starts, such as configuration files, and clear away what is stale."""
        (self.folder / "pid").unlink(missing_ok=True)

    def furnish(self) -> None:  # noqa: B027 - most servers need nothing
        """Make what has to be in the running server, such as topics, unless it is there; done by every `start`."""

    @property
    def log(self) -> Path:
        """Its log."""
        return self.folder / "log"

    def recent_log(self) -> str:
        """Give what the server has written since it was started last."""
        with self.log.open("rb") as log:
            log.seek(int((self.folder / "log-start").read_text(encoding="ascii")))
            return log.read().decode(errors="replace")

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        try:
            pid, started = (self.folder / "pid").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_time(int(pid)) == started else None

    @property
    def memory_bytes(self) -> int:
        """Memory that it holds, with all that it started; none if it doesn't run."""
        pid = self.pid
        return 0 if pid is None else memory_bytes(pid)

    @property
    def access(self) -> str:
        """What clients need besides the address; empty if nothing."""
        return ""

    def start(self) -> Self:
        """Start it unless it runs, and return when it is ready.

        Raises
        ------
        ServiceError
            It ended, or wasn't ready in time: the end of its log is in the message.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start it at once, the second finds it started
            if self.pid is None:
                self.prepare()
                self._spawn()
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready():
            if self.pid is None:
                raise ServiceError(f"{self.name} ended while starting; {self.log} ends with:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{self.name} is not ready after {self.start_timeout_s:g} s; {self.log} ends with:\n"
                    f"{self._log_tail()}"
                )
            time.sleep(_POLL_S)
        self.furnish()
        return self

    def stop(self) -> None:
        """End it, gently at first, and then what it left of its process group; nothing happens if it doesn't run."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.stop_signal)
            self._ends_within(pid, self.stop_timeout_s)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self._ends_within(pid, self.stop_timeout_s)
        (self.folder / "pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it without warning, with all that it started, as a crash would; `start` goes on from there."""
        pid = self.pid
        if pid is None:
            return
        victims = {victim: start_time(victim) for victim in (pid, *descendants(pid))}
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + self.stop_timeout_s
        while any(started and start_time(victim) == started for victim, started in victims.items()):
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name}: a process of {sorted(victims)} survives SIGKILL")
            time.sleep(_POLL_S)

    def program(self, name: str, *folders: str) -> str:
        """Find a program that the server needs.

        Parameters
        ----------
        name
            The program.
        folders
            Where it may be besides ``PATH``, as patterns; of several the one that sorts last.

        Raises
        ------
        ServiceError
            It is not installed: the packages and the command that installs them are in the message.
        """
        found = [path for pattern in folders for path in sorted(Path("/").glob(f"{pattern.lstrip('/')}/{name}"))]
        on_path = shutil.which(name)
        if found:
            return str(found[-1])
        if on_path:
            return on_path
        raise ServiceError(
            f"{self.name}: {name} is not installed; `make services` installs it (packages: {' '.join(self.packages)})"
        )

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            write_at_once(self.folder / "log-start", str(log.tell()))
            process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )
        write_at_once(self.folder / "pid", f"{process.pid} {start_time(process.pid)}")

    def _ends_within(self, pid: int, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.pid == pid:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _log_tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


def write_at_once(path: Path, text: str) -> None:
    """Write a file so that readers see all of it or none."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="ascii")
    partial.replace(path)
