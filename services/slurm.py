"""Slurm on one machine: a controller, nodes that share the machine, and accounting if wanted; all on loopback.

The nodes have the memory that they say, limited by control groups (version 1), and as many CPUs as one likes. Several
such clusters can run beside each other: a node's control groups carry its name, and names derive from the folder.
Clients find a cluster through the variables in `Slurm.variables`.

Belongs here: the cluster and its configuration. Doesn't: a daemon by itself (`services.slurm_daemons`), or submitting
anything (`launchers.slurm`).
"""

from __future__ import annotations

import getpass
import hashlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from services.loopback import LOOPBACK
from services.mariadb import OWNER, MariaDB
from services.service import Service, ServiceError, write_at_once
from services.short_paths import close_way, open_way, short_way
from services.slurm_daemons import (
    CONTROL_GROUPS,
    Munge,
    SlurmController,
    SlurmDatabase,
    SlurmNode,
    has_control_groups,
)

QUEUES = ("main", "small", "urgent")
"""Partitions: the default one with all nodes, one with the last node alone, and one whose jobs preempt all others'."""

LICENCES: Mapping[str, int] = {"db_limit": 2}
"""How many jobs at once may have what there is little of; the name is what BPS limits its final jobs by."""

_DATABASE = "slurm_accounting"
_MOST_ID = 2**32 - 1
"""Of a job or a step: they name the sockets of a node."""

_POLL_S = 0.05


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
    start_timeout_s: ClassVar[float] = 120.0

    def __init__(self, folder: Path, shape: ClusterShape | None = None) -> None:
        super().__init__(folder)
        self.shape = shape or ClusterShape()
        self.configuration = folder / "slurm.conf"
        prefix = "n" + hashlib.blake2s(str(folder.resolve()).encode(), digest_size=3).hexdigest()
        names = [f"{prefix}x{number}" for number in range(1, self.shape.nodes + 1)]
        self._way = short_way(folder, len(f"spool/{names[-1]}/{names[-1]}_{_MOST_ID}.{_MOST_ID}"))
        self.munge = Munge(self._way / "munge")
        self.mariadb = MariaDB(self._way / "mariadb")
        self.database = SlurmDatabase(folder / "slurmdbd", self.configuration)
        self.controller = SlurmController(folder / "slurmctld", self.configuration)
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
    def memory_bytes(self) -> int:
        """What all its daemons hold."""
        return sum(part.memory_bytes for part in self.parts)

    @property
    def access(self) -> str:
        """The variable that leads clients to it."""
        return " ".join(f"{name}={value}" for name, value in self.variables.items())

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
        """Start what doesn't run of it, and return when all nodes take jobs.

        Raises
        ------
        ServiceError
            The machine has no such control groups, a daemon ended, or a node takes no jobs: what it says is in the
            message.
        """
        if not has_control_groups():
            raise ServiceError(
                f"{self.name}: {CONTROL_GROUPS} is not of version 1, which limits the memory of jobs here; "
                "boot with systemd.unified_cgroup_hierarchy=0"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        open_way(self.folder, self._way)
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
        # Clients of a cluster that runs read them meanwhile.
        write_at_once(self.configuration, self._configuration())
        write_at_once(self.folder / "cgroup.conf", _CGROUP_CONFIGURATION)
        if self.shape.accounting:
            secret = self.folder / "slurmdbd.conf"
            secret.touch(mode=0o600)
            secret.write_text(self._database_configuration(), encoding="ascii")

    def stop(self) -> None:
        """End all jobs, whether the controller is there or not, and all daemons."""
        if not self.folder.exists():
            return
        open_way(self.folder, self._way)  # whoever clears temporary files away may have removed it
        if self.controller.pid is not None:
            self.client("scancel", "--full", f"--user={getpass.getuser()}")
        for node in self.nodes:
            node.stop()
            node.end_jobs()
        for part in reversed(self.parts):
            part.stop()
        close_way(self.folder, self._way)

    def _await_nodes(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                said = self.client("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N is %T (%E)")
                raise ServiceError(
                    f"{self.name}: after {self.start_timeout_s:g} s not all nodes take jobs: "
                    f"{', '.join(said.splitlines()) or 'the controller says nothing'}; see {self.folder}/slurm*/log"
                )
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
            f"SlurmdSpoolDir={self._way}/spool/%n",
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
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            f"Licenses={','.join(f'{name}:{count}' for name, count in LICENCES.items())}",
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
        everywhere, alone, urgent = QUEUES
        lines.append(f"PartitionName={everywhere} Nodes={self._node_list} Default=YES State=UP")
        lines.append(f"PartitionName={alone} Nodes={self.nodes[-1].node} MaxTime=60 State=UP")
        lines.append(f"PartitionName={urgent} Nodes={self._node_list} PriorityTier=10 PreemptMode=OFF State=UP")
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


_CGROUP_CONFIGURATION = f"""\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint={CONTROL_GROUPS}
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
ConstrainCores=no
ConstrainDevices=no
AllowedRAMSpace=100
"""
