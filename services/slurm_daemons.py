"""The daemons of a Slurm: munge, the controller, nodes with their jobs' control groups, and what writes accounting.

Belongs here: starting each, and ending what a node's jobs have left. Doesn't: what they are told, and their being one
cluster (`services.slurm`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from services.loopback import LOOPBACK, kept_port, listens
from services.service import Service

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where the kernel shows them."""

_GONE_S = 10.0
_POLL_S = 0.05


def has_control_groups() -> bool:
    """Whether the machine has what nodes hold their jobs together by: control groups of version 1."""
    return (CONTROL_GROUPS / "freezer").is_dir()


class Munge(Service):
    """The service by which Slurm's parts know each other.

    Parameters
    ----------
    folder
        Its key, socket, pid and log.
    """

    name: ClassVar[str] = "munge"
    packages: ClassVar[tuple[str, ...]] = ("munge",)

    @property
    def address(self) -> str:
        """Its socket."""
        return str(self.folder / "socket")

    def prepare(self) -> None:
        """Make a key, unless there is one."""
        super().prepare()
        self.folder.chmod(0o755)
        key = self.folder / "key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(128))
        Path(self.address).unlink(missing_ok=True)

    def command(self) -> Sequence[str]:
        """Serve; whatever the modes of the folders above."""
        files = {"key-file": "key", "socket": "socket", "pid-file": "munge.pid", "log-file": "munge.log"}
        options = [f"--{option}={self.folder / name}" for option, name in {**files, "seed-file": "seed"}.items()]
        return [self.program("munged", "/usr/sbin"), "--foreground", "--force", *options]

    def is_ready(self) -> bool:
        """Whether it signs."""
        sign = [self.program("munge"), f"--socket={self.address}", "--no-input"]
        return subprocess.run(sign, capture_output=True, check=False).returncode == 0


class SlurmDaemon(Service):
    """One of Slurm's daemons, with the cluster's configuration."""

    packages: ClassVar[tuple[str, ...]] = ("slurm-wlm",)

    def __init__(self, folder: Path, configuration: Path) -> None:
        super().__init__(folder)
        self.configuration = configuration

    @property
    def port(self) -> int:
        """Its port."""
        return kept_port(self.folder)

    @property
    def address(self) -> str:
        """host:port."""
        return f"{LOOPBACK}:{self.port}"

    def environment(self) -> Mapping[str, str]:
        """Where the configuration is."""
        return {"SLURM_CONF": str(self.configuration)}

    def is_ready(self) -> bool:
        """Whether somebody listens on its port."""
        return self.pid is not None and listens(self.port)


class SlurmDatabase(SlurmDaemon):
    """The daemon that writes accounting into MariaDB."""

    name: ClassVar[str] = "slurmdbd"
    packages: ClassVar[tuple[str, ...]] = ("slurmdbd", "slurm-wlm-mysql-plugin")

    def command(self) -> Sequence[str]:
        """Serve in the foreground."""
        return [self.program("slurmdbd", "/usr/sbin"), "-D"]


class SlurmController(SlurmDaemon):
    """The daemon that has the queue."""

    name: ClassVar[str] = "slurmctld"

    def command(self) -> Sequence[str]:
        """Serve in the foreground, with the queue as it was."""
        return [self.program("slurmctld", "/usr/sbin"), "-D"]

    def is_ready(self) -> bool:
        """Whether it answers a client."""
        ping = [self.program("scontrol"), "ping"]
        environment = {**os.environ, **self.environment()}
        done = subprocess.run(ping, capture_output=True, text=True, check=False, env=environment)
        return self.pid is not None and "is UP" in done.stdout


class SlurmNode(SlurmDaemon):
    """The daemon of one node.

    Parameters
    ----------
    folder
        Its pid and log.
    configuration
        The cluster's.
    node
        The node's name.
    """

    name: ClassVar[str] = "slurmd"

    def __init__(self, folder: Path, configuration: Path, node: str) -> None:
        super().__init__(folder, configuration)
        self.node = node

    def command(self) -> Sequence[str]:
        """Serve in the foreground."""
        return [self.program("slurmd", "/usr/sbin"), "-D", "-N", self.node]

    def processes(self) -> Iterator[int]:
        """Give the processes of its jobs, whether the daemon runs or not."""
        groups = CONTROL_GROUPS / "freezer" / f"slurm_{self.node}"
        for members in groups.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                yield from map(int, members.read_text(encoding="ascii").split())

    def end_jobs(self) -> None:
        """End what the node's jobs have left, and remove its control groups."""
        deadline = time.monotonic() + _GONE_S
        while (left := set(self.processes())) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_S)
        for group in CONTROL_GROUPS.glob(f"*/slurm_{self.node}"):
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()
