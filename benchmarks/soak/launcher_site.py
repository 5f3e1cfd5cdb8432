"""The site that the launchers' soak breaks: Slurm with two nodes, PostgreSQL, and Dagster's processes, in one folder.

Belongs here: what runs, and how it is configured. Doesn't: breaking it (`benchmarks.soak.launcher_faults`).
"""

from __future__ import annotations

import getpass
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml
from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, FileDataset

from benchmarks.soak.launcher_definitions import ASKED, FOLDER_VARIABLE, TRIAL_TAG
from benchmarks.soak.launcher_trials import DETECTORS, TOP, Trial
from benchmarks.soak.site import start_patiently
from launchers import warm
from launchers.processes import ProcessIdentity
from launchers.run_launcher import WORKER_TAG
from resources.butler import make_repository
from resources.site import ButlerSettings
from services.catalogue import make_postgresql
from services.dagster_platform import CodeServer, Daemon
from services.loopback import LOOPBACK
from services.processes import descendants, start_time
from services.service import Service
from services.slurm import ClusterShape, Slurm

LOCATION = "definitions"
SHAPE = ClusterShape(cpus=4, memory_mb=6000, remembered_s=7200)
"""What is over stays in the queue, for the evidence."""

_PROGRAMS = Path(sys.executable).parent
_ENDS_WITHIN_S = 90.0
_UNFINISHED = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)


class TrialCodeServer(CodeServer):
    """The code server of the trials."""

    def command(self) -> Sequence[str]:
        """Serve the trials' definitions."""
        target = ["--module-name", "benchmarks.soak.launcher_definitions", "--attribute", self.location]
        where = ["--host", LOOPBACK, "--port", str(self.port), "--location-name", self.location]
        return [str(_PROGRAMS / "dagster"), "api", "grpc", *target, *where]


class LauncherSite:
    """A site of real servers under one folder.

    Parameters
    ----------
    folder
        Of everything; it is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        servers = folder / "servers"
        self.postgresql = make_postgresql(servers)
        self.slurm = Slurm(servers / "slurm", SHAPE)
        self.state = folder / "state"
        self.variables = {
            FOLDER_VARIABLE: str(folder),
            "DRP_STATE": str(self.state),
            "DAGSTER_HOME": str(folder / "dagster"),
            "PGPASSFILE": str(self.postgresql.passfile),
            "XDG_STATE_HOME": str(folder / "home"),
            # A code server that is told to go waits for calls that are under way, by default for a minute.
            "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "10",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{_PROGRAMS}:{os.environ['PATH']}",
            **self.slurm.variables,
        }
        self._workspace = folder / "workspace.yaml"
        self.code_server = TrialCodeServer(servers / "code-server", self.variables, LOCATION)
        self.daemon = Daemon(servers / "daemon", self.variables, self._workspace)

    @property
    def services(self) -> tuple[Service, ...]:
        """Every server, each after what it needs."""
        return (self.postgresql, self.slurm, self.code_server, self.daemon)

    @contextmanager
    def running(self) -> Iterator[dg.DagsterInstance]:
        """Start everything, and give the Dagster instance; in the end, all has gone."""
        before = {name: os.environ.get(name) for name in self.variables}
        os.environ.update(self.variables)
        try:
            (self.folder / ASKED).mkdir()
            start_patiently(self.postgresql)
            for database in ("butler", "dagster"):
                self.postgresql.create_database(database)
            self._fill_butler()
            self._make_instance()
            with dg.DagsterInstance.from_config(self.variables["DAGSTER_HOME"]) as instance:
                self.start()
                yield instance
        finally:
            for service in reversed(self.services):
                service.stop()
            warm.stop(self.state)
            for pid in self.processes():  # workers outlive servers
                _send(pid, signal.SIGKILL)
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def start(self) -> None:
        """Start what doesn't run."""
        for service in self.services:
            start_patiently(service)

    def ask(self, trial: Trial, times: int = 1) -> None:
        """Ask for a trial, for the first or another time."""
        new = self.folder / f".{trial.name}"
        new.write_text(str(trial))
        new.replace(self.folder / ASKED / f"{trial.name}.{times}")

    def runs(self, instance: dg.DagsterInstance, trial: Trial) -> list[dg.DagsterRun]:
        """Give a trial's runs, the latest first."""
        return list(instance.get_runs(dg.RunsFilter(tags={TRIAL_TAG: trial.name})))

    def workers(self, runs: Sequence[dg.DagsterRun]) -> list[ProcessIdentity]:
        """Give the workers of runs that live."""
        tags = [run.tags.get(WORKER_TAG, "").partition("/")[2] for run in runs]
        return [worker for worker in map(ProcessIdentity.parse, filter(None, tags)) if worker.is_alive]

    def make_whole(self, instance: dg.DagsterInstance) -> None:
        """End whatever a trial that went wrong has left, so that the next one finds a site that works.

        Parameters
        ----------
        instance
            The site's.
        """
        self.start()
        for run in instance.get_runs(dg.RunsFilter(statuses=list(_UNFINISHED))):
            instance.run_launcher.terminate(run.run_id)
        self.slurm.client("scancel", "--full", f"--user={getpass.getuser()}")

    def processes(self) -> Mapping[int, str]:
        """Give the command lines of all processes that were started for this site, by whomever; never this one."""
        mark = f"{FOLDER_VARIABLE}={self.folder}\0".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(process.name)] = command.decode(errors="replace").strip()
            except OSError:  # it has just ended
                continue
        return found

    def strays(self) -> Mapping[int, str]:
        """Give those of them that are no server, nor were started by one, nor are the warm process."""
        servers = [self.postgresql, *self.slurm.parts, self.code_server, self.daemon]
        pids = [pid for server in servers if (pid := server.pid) is not None]
        known = {process for pid in pids for process in (pid, *descendants(pid))}
        return {
            pid: command
            for pid, command in self.processes().items()
            if pid not in known and f"-m {warm.__name__} " not in command
        }

    def terminate_everything(self) -> str:
        """Send SIGTERM to everything at once: servers, workers, jobs; and wait until it has gone.

        Returns
        -------
        what
            How many processes were told, and which of them did not go and had to be killed.
        """
        started = {pid: began for pid in self.processes() if (began := start_time(pid)) is not None}
        for pid in started:
            _send(pid, signal.SIGTERM)
        deadline = time.monotonic() + _ENDS_WITHIN_S
        while (left := [pid for pid, began in started.items() if start_time(pid) == began]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.1)
        stayed = [f"{pid} {self.processes().get(pid, '')[:60]}" for pid in left]
        for pid in left:
            _send(pid, signal.SIGKILL)
        return f"SIGTERM to {len(started)} processes" + (f", SIGKILL to what stayed: {stayed}" if left else "")

    def _fill_butler(self) -> None:
        root = self.folder / "repo"
        make_repository(ButlerSettings(repository=str(root), registry=self.postgresql.url("butler", "psycopg2")))
        camera = {"name": "ToyCam", "class_name": "toy", "detector_max": 10, "visit_max": 1, "exposure_max": 1}
        with Butler.from_config(str(root), writeable=True) as butler:
            butler.registry.syncDimensionData("instrument", {**camera, "visit_system": 0})
            numbers = DatasetType(
                "toy_number", {"instrument", "detector"}, "StructuredDataDict", universe=butler.dimensions
            )
            butler.registry.registerDatasetType(numbers)
            butler.collections.register("numbers")
            for detector in range(DETECTORS):
                butler.registry.syncDimensionData(
                    "detector", {"instrument": "ToyCam", "id": detector, "full_name": f"D{detector}"}
                )
                file = self.folder / f"{detector}.yaml"
                file.write_text(f"value: {detector}\n")
                data_id = DataCoordinate.standardize(instrument="ToyCam", detector=detector, universe=butler.dimensions)
                formatter = "lsst.daf.butler.formatters.yaml.YamlFormatter"
                dataset = FileDataset(file, [DatasetRef(numbers, data_id, "numbers")], formatter=formatter)
                butler.ingest(dataset, transfer="direct")

    def _make_instance(self) -> None:
        """Write the site's own ``dagster.yaml``, with this PostgreSQL, and short intervals."""
        settings = yaml.safe_load((TOP / "dagster.yaml").read_text())
        settings["storage"] = {"postgres": {"postgres_url": self.postgresql.url("dagster", "psycopg2")}}
        settings["run_monitoring"] |= {"poll_interval_seconds": 2}
        home = Path(self.variables["DAGSTER_HOME"])
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        server = {"host": LOOPBACK, "port": self.code_server.port, "location_name": LOCATION}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
