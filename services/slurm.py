"""Slurm on one machine: a controller, nodes that share the machine, and accounting if wanted; all on loopback.

The nodes have the memory that they say, limited by control groups (version 1), and as many CPUs as one likes. Several
such clusters can run beside each other: a node's control groups carry its name, and names derive from the folder.
Clients find a cluster through the variables in `Slurm.variables`.

Belongs here: the daemons, their configuration, and ending what they leave. Doesn't: submitting anything
(`launchers.slurm`).
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from services.loopback import LOOPBACK, kept_port, listens
from services.mariadb import OWNER, MariaDB
from services.service import Service

QUEUES = ("main", "small")
"""Partitions: the default one with all nodes, and one with the last node alone."""

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_GONE_S = 10.0
_DATABASE = "slurm_accounting"
_POLL_S = 0.05


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


class _Daemon(Service):
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


class SlurmDatabase(_Daemon):
    """The daemon that writes accounting into MariaDB."""

    name: ClassVar[str] = "slurmdbd"
    packages: ClassVar[tuple[str, ...]] = ("slurmdbd", "slurm-wlm-mysql-plugin")

    def command(self) -> Sequence[str]:
        """Serve in the foreground."""
        return [self.program("slurmdbd", "/usr/sbin"), "-D"]


class SlurmController(_Daemon):
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


class SlurmNode(_Daemon):
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
        groups = _CONTROL_GROUPS / "freezer" / f"slurm_{self.node}"
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
        for group in _CONTROL_GROUPS.glob(f"*/slurm_{self.node}"):
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()


@dataclass(frozen=True, slots=True)
class ClusterShape:
    """What a cluster has, and how patient it is.

    Parameters
    ----------
    nodes
        How many.
    cpus, memory_mb
        What each of them says it has.
    accounting
        Whether there is a slurmdbd with a database, so that ``sacct`` answers.
    node_timeout_s
        A node that is silent for this long is down.
    requeue_s
        A job that lost its node waits this long, for the node may have been slow only.
    remembered_s
        How long the queue shows jobs that are over.
    """

    nodes: int = 2
    cpus: int = 4
    memory_mb: int = 4000
    accounting: bool = False
    node_timeout_s: int = 10
    requeue_s: int = 10
    remembered_s: int = 300


class Slurm(Service):
    """A cluster.

    Parameters
    ----------
    folder
        Everything of it; a queue that is started again is as it was.
    shape
        What it has.
    """

    name: ClassVar[str] = "slurm"
    packages: ClassVar[tuple[str, ...]] = (
        *Munge.packages,
        *SlurmController.packages,
        *SlurmDatabase.packages,
        *MariaDB.packages,
    )

    def __init__(self, folder: Path, shape: ClusterShape | None = None) -> None:
        super().__init__(folder)
        self.shape = shape or ClusterShape()
        self.configuration = folder / "slurm.conf"
        self.munge = Munge(folder / "munge")
        self.mariadb = MariaDB(folder / "mariadb")
        self.database = SlurmDatabase(folder / "slurmdbd", self.configuration)
        self.controller = SlurmController(folder / "slurmctld", self.configuration)
        prefix = "n" + hashlib.blake2s(str(folder.resolve()).encode(), digest_size=3).hexdigest()
        names = [f"{prefix}x{number}" for number in range(1, self.shape.nodes + 1)]
        self.nodes = tuple(
            SlurmNode(folder / f"slurmd{number}", self.configuration, name)
            for number, name in enumerate(names, start=1)
        )

    @property
    def parts(self) -> tuple[Service, ...]:
        """Its daemons, each after what it needs."""
        accounting = (self.mariadb, self.database) if self.shape.accounting else ()
        return (self.munge, *accounting, self.controller, *self.nodes)

    @property
    def address(self) -> str:
        """The controller's."""
        return self.controller.address

    @property
    def log(self) -> Path:
        """The controller's."""
        return self.controller.log

    @property
    def pid(self) -> int | None:
        """The controller's process."""
        return self.controller.pid

    @property
    def variables(self) -> Mapping[str, str]:
        """What clients need in their environment."""
        return {"SLURM_CONF": str(self.configuration)}

    def command(self) -> Sequence[str]:
        """The controller's."""
        return self.controller.command()

    def is_ready(self) -> bool:
        """Whether all nodes take jobs."""
        states = self.client("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T").split()
        return len(states) == len(self.nodes) and all(state in {"idle", "mixed", "allocated"} for state in states)

    def client(self, *command: str) -> str:
        """Run one of Slurm's commands, and give what it prints; nothing where it fails.

        Parameters
        ----------
        command
            Program and arguments.
        """
        environment = {**os.environ, **self.variables}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.stdout if done.returncode == 0 else ""

    def start(self) -> Self:
        """Start what doesn't run of it, and return when all nodes take jobs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        for part in self.parts:
            part.start()
            if part is self.mariadb:
                self.mariadb.create_database(_DATABASE)
        self._await_nodes()
        return self

    def prepare(self) -> None:
        """Write the configuration."""
        for folder in ("state", "spool"):
            (self.folder / folder).mkdir(exist_ok=True)
        self.configuration.write_text(self._configuration(), encoding="ascii")
        (self.folder / "cgroup.conf").write_text(_CGROUP_CONFIGURATION, encoding="ascii")
        if self.shape.accounting:
            secret = self.folder / "slurmdbd.conf"
            secret.touch(mode=0o600)
            secret.write_text(self._database_configuration(), encoding="ascii")

    def stop(self) -> None:
        """End all jobs, whether the controller is there or not, and all daemons."""
        if self.controller.pid is not None:
            self.client("scancel", "--full", f"--user={getpass.getuser()}")
        for node in self.nodes:
            node.stop()
            node.end_jobs()
        for part in reversed(self.parts):
            part.stop()

    def _await_nodes(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready() and time.monotonic() < deadline:
            # A node that was down is asked back, and one that says nothing yet is left alone.
            self.client("scontrol", "update", f"nodename={self._node_list}", "state=resume")
            time.sleep(_POLL_S)

    @property
    def _node_list(self) -> str:
        return ",".join(node.node for node in self.nodes)

    def _configuration(self) -> str:
        shape = self.shape
        signature = f"socket={self.munge.address}"
        lines = [
            f"ClusterName={self.nodes[0].node}",
            f"SlurmctldHost=localhost({LOOPBACK})",
            f"SlurmctldPort={self.controller.port}",
            f"SlurmUser={getpass.getuser()}",
            f"SlurmdUser={getpass.getuser()}",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            f"AuthInfo={signature},cred_expire={shape.requeue_s}",
            "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            "ProctrackType=proctrack/cgroup",
            "TaskPlugin=task/cgroup",
            "JobAcctGatherType=jobacct_gather/cgroup",
            "JobAcctGatherFrequency=task=2",
            "MpiDefault=none",
            "SwitchType=switch/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=sched_interval=1,bf_interval=5,batch_sched_delay=0",
            "DefMemPerCPU=256",
            "MaxArraySize=10001",
            "MaxJobCount=50000",
            f"MinJobAge={shape.remembered_s}",
            "KillWait=5",
            "ReturnToService=2",
            f"SlurmdTimeout={shape.node_timeout_s}",
            "SlurmctldTimeout=10",
            "MessageTimeout=5",
            "SlurmdParameters=config_overrides",
            "JobRequeue=1",
        ]
        if shape.accounting:
            lines += [
                "AccountingStorageType=accounting_storage/slurmdbd",
                f"AccountingStorageHost={LOOPBACK}",
                f"AccountingStoragePort={self.database.port}",
                f"AccountingStoragePass={self.munge.address}",
                "AccountingStoreFlags=job_comment",
            ]
        else:
            lines.append("AccountingStorageType=accounting_storage/none")
        lines += [
            f"NodeName={node.node} NodeHostname=localhost NodeAddr={LOOPBACK} Port={node.port} CPUs={shape.cpus}"
            f" RealMemory={shape.memory_mb} State=UNKNOWN"
            for node in self.nodes
        ]
        everywhere, alone = QUEUES
        lines.append(f"PartitionName={everywhere} Nodes={self._node_list} Default=YES State=UP")
        lines.append(f"PartitionName={alone} Nodes={self.nodes[-1].node} MaxTime=60 State=UP")
        return "\n".join(lines) + "\n"

    def _database_configuration(self) -> str:
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": self.munge.address,
            "DbdAddr": LOOPBACK,
            "DbdHost": "localhost",
            "DbdPort": self.database.port,
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
            "SlurmUser": getpass.getuser(),
            "PidFile": f"{self.folder}/slurmdbd.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": LOOPBACK,
            "StoragePort": self.mariadb.port,
            "StorageUser": OWNER,
            "StoragePass": self.mariadb.password,
            "StorageLoc": _DATABASE,
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())


_CGROUP_CONFIGURATION = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
ConstrainCores=no
ConstrainDevices=no
AllowedRAMSpace=100
"""
