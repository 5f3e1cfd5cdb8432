"""The site that a soak breaks: real servers, the daemon, and Dagster's processes, in one folder.

Belongs here: what runs, how it is configured, and which half of it works at a time. Doesn't: breaking it
(`benchmarks.soak.victims`).
"""

from __future__ import annotations

import enum
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import dagster as dg
import yaml
from lsst.daf.butler import DatasetType

from arrivals.ledger import Ledger
from benchmarks.soak.files import STORAGE_CLASS
from benchmarks.soak.population import Population, product_dimension, product_type
from commands.site import prepare_site
from launchers import warm
from resources.butler import open_butler
from resources.site import PROFILE_VARIABLE, Site, read_site
from services.catalogue import READER, SITE_TOPICS, make_kafka_site, make_postgresql
from services.dagster_platform import CodeServer, Daemon
from services.loopback import LOOPBACK
from services.network import NetworkLink
from services.service import Service, ServiceError
from simulator.messages import Announcement

TOP = Path(__file__).parents[2]
TOPIC = f"{SITE_TOPICS}soak"
PARTITIONS = 12
LOCATION = "site"
_PROGRAMS = Path(sys.executable).parent
_BATCH_MESSAGES = 2_000
"""Small enough that a kill finds several batches begun."""

_RUNS_AT_A_TIME = 2
_START_PATIENCE_S = 900.0


class Shift(enum.StrEnum):
    """Who drains and ingests."""

    DAEMON = "drp ingestd"
    DAGSTER = "Dagster"
    BOTH = "both"


class IngestDaemon(Service):
    """``drp ingestd``.

    Parameters
    ----------
    folder
        Where its pid and log are.
    variables
        Environment of its process.
    """

    name: ClassVar[str] = "ingestd"
    start_timeout_s: ClassVar[float] = 300.0
    stop_timeout_s: ClassVar[float] = 120.0

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._variables = variables

    def environment(self) -> Mapping[str, str]:
        """Give the variables it was made with."""
        return self._variables

    def command(self) -> Sequence[str]:
        """Run the daemon."""
        return [sys.executable, str(_PROGRAMS / "drp"), "ingestd"]

    def is_ready(self) -> bool:
        """Whether it has said what it reads into what."""
        return self.pid is not None and ": reading " in self.recent_log()

    @property
    def address(self) -> str:
        """It has none."""
        return ""


class SoakSite:
    """A site of real servers under one folder.

    Parameters
    ----------
    folder
        Of everything.
    rucio
        Where the announced files are.
    """

    def __init__(self, folder: Path, rucio: Path) -> None:
        self.folder = folder
        servers = folder / "servers"
        self.postgresql = make_postgresql(servers)
        self.kafka = make_kafka_site(servers)
        self.link = NetworkLink(servers / "link", self.kafka.proxied_port, self.kafka.proxy_port)
        self.announcement = Announcement(destination_rse=SITE_TOPICS.rstrip("-"))
        self._rucio = rucio
        self._profile = folder / "site.yaml"
        self.variables = {
            "DRP_STATE": str(folder / "state"),
            PROFILE_VARIABLE: str(self._profile),
            "PGPASSFILE": str(self.postgresql.passfile),
            "DAGSTER_HOME": str(folder / "dagster"),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        workspace = folder / "workspace.yaml"
        self.ingestd = IngestDaemon(servers / "ingestd", self.variables)
        self.code_server = CodeServer(servers / "code-server", self.variables, LOCATION)
        self.daemon = Daemon(servers / "daemon", self.variables, workspace)
        self._workspace = workspace

    @property
    def registry(self) -> str:
        """SQLAlchemy URL of the Butler's database."""
        return self.postgresql.url("butler", "psycopg2")

    @contextmanager
    def running(self, population: Population) -> Iterator[Site]:
        """Start the servers and make the site ready; nothing drains or ingests yet. In the end, all is stopped.

        Parameters
        ----------
        population
            Whose products the site has to know.

        Yields
        ------
        site
            Its profile.
        """
        before = {name: os.environ.get(name) for name in self.variables}
        os.environ.update(self.variables)
        try:
            for server in (self.postgresql, self.kafka, self.link):
                start_patiently(server)
            self.kafka.create_topic(TOPIC, PARTITIONS)
            site = self._prepare(population)
            warm.start(site.state)
            yield site
        finally:
            self.stop()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def take_shift(self, shift: Shift) -> None:
        """Have one half of the platform work, or both; the other half is stopped in good order."""
        if shift is Shift.DAGSTER:
            self.ingestd.stop()
        if shift is Shift.DAEMON:
            self.daemon.stop()
        for worker in self.workers(shift):
            start_patiently(worker)

    def workers(self, shift: Shift) -> Sequence[Service]:
        """What has to run in a shift, besides the servers."""
        daemons = [] if shift is Shift.DAGSTER else [self.ingestd]
        return daemons if shift is Shift.DAEMON else [*daemons, self.code_server, self.daemon]

    def stop(self) -> None:
        """Stop everything."""
        for worker in (self.daemon, self.ingestd, self.code_server):
            worker.stop()
        warm.stop(Path(self.variables["DRP_STATE"]))
        for server in (self.link, self.kafka, self.postgresql):
            server.stop()

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open the site's Dagster instance."""
        with dg.DagsterInstance.from_config(self.variables["DAGSTER_HOME"]) as instance:
            yield instance

    def _prepare(self, population: Population) -> Site:
        for database in ("butler", "ledger"):
            self.postgresql.create_database(database)
        self._profile.write_text(yaml.safe_dump(self._settings()))
        site = read_site()
        prepare_site(site, population.survey().skymap)
        butler = open_butler(site.butler, writeable=True)
        for number in range(population.product_types):
            dimensions = ("instrument", "detector", product_dimension(number))
            butler.registry.registerDatasetType(
                DatasetType(product_type(number), dimensions, STORAGE_CLASS, universe=butler.dimensions)
            )
        Ledger(site.ledger).close()
        self._make_instance()
        return site

    def _settings(self) -> dict[str, object]:
        certificate = self.kafka.certificate(READER)
        return {
            "name": "soak",
            "state": str(self.folder / "state"),
            "butler": {"repository": str(self.folder / "repo"), "registry": self.registry},
            "ledger": self.postgresql.url("ledger"),
            "kafka": {
                "bootstrap": f"{LOOPBACK}:{self.kafka.proxy_port}",
                "tls": {
                    "ca": str(certificate.ca),
                    "certificate": str(certificate.certificate),
                    "key": str(certificate.key),
                },
            },
            "arrivals": {
                "topics": f"^{TOPIC}$",
                "paths": [{"announced": self.announcement.prefix, "local": str(self._rucio)}],
                "instrument": "drp_tasks.instrument.SimCam",
                "register_dataset_types": False,
                "batch_messages": _BATCH_MESSAGES,
                "interval_s": 1,
                "quiescent_s": 0,
            },
            "wms": {"service": "launchers.local.service.LocalService", "compute_site": "local"},
        }

    def _make_instance(self) -> None:
        """Write the site's own ``dagster.yaml``, with SQLite for events, few runs at a time, and short intervals."""
        settings = yaml.safe_load((TOP / "dagster.yaml").read_text())
        del settings["storage"]
        settings["concurrency"]["runs"] |= {"max_concurrent_runs": _RUNS_AT_A_TIME}
        settings["run_monitoring"] |= {"poll_interval_seconds": 2}
        home = Path(self.variables["DAGSTER_HOME"])
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        server = {"host": LOOPBACK, "port": self.code_server.port, "location_name": LOCATION}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        with self.instance():
            pass  # its tables are made here, before several processes open it at once


def start_patiently(service: Service) -> None:
    """Start a service on a machine that may be busy; what didn't come up in time is waited for, or started again.

    Raises
    ------
    services.service.ServiceError
        It didn't come up whatever was done.
    """
    deadline = time.monotonic() + _START_PATIENCE_S
    while True:
        try:
            service.start()
        except ServiceError:
            if time.monotonic() > deadline:
                raise
        else:
            return
