"""A site with a real Kafka, a ledger and a Butler in PostgreSQL, which the benchmark's files arrive at.

Belongs here: publishing, and what a site does about it by the platform's own means. Doesn't: timing it
(`benchmarks.arrivals`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Producer
from lsst.daf.butler import Butler, CollectionType, Config, DatasetType

from arrivals.daemon import Intake
from arrivals.drain import Drain
from arrivals.files import Policy
from arrivals.ingest import ingest_pending
from arrivals.ledger import Ledger
from arrivals.states import State
from benchmarks.arrival_world import PREFIX, RUN, BenchCam, File, messages
from benchmarks.report import Result
from resources.site import ArrivalSettings, KafkaSettings, TlsSettings
from services.apache_kafka import ApacheKafka
from services.postgresql import PostgreSQL

TOPIC = "LANCS-raw"
READER = "drp-arrivals"
PARTITIONS = 12


def make_butler(folder: Path, postgresql: PostgreSQL, database: str) -> Butler:
    """Make a Butler in a database of its own, which knows the instrument and its raws."""
    postgresql.create_database(database)
    config = Config()
    config["registry", "db"] = postgresql.url(database, None)
    Butler.makeRepo(str(folder), config)
    butler = Butler.from_config(str(folder), writeable=True)
    BenchCam().register(butler.registry)
    name, dimensions, storage_class = BenchCam.raw_definition
    butler.registry.registerDatasetType(DatasetType(name, dimensions, storage_class, universe=butler.dimensions))
    butler.collections.register(RUN, CollectionType.RUN)
    return butler


class ArrivalSite:
    """The site.

    Parameters
    ----------
    folder
        Of the Butler's files and those that have arrived.
    kafka, postgresql
        Its servers, which run.
    """

    def __init__(self, folder: Path, kafka: ApacheKafka, postgresql: PostgreSQL) -> None:
        self.rucio = folder / "rucio"
        self.butler = make_butler(folder / "repo", postgresql, "site")
        postgresql.create_database("ledger")
        self.ledger = Ledger(postgresql.url("ledger"))
        certificate = kafka.certificate(READER)
        tls = TlsSettings(ca=certificate.ca, certificate=certificate.certificate, key=certificate.key)
        self.kafka = KafkaSettings(bootstrap=kafka.address, tls=tls)
        self.settings = ArrivalSettings.model_validate(
            {
                "topics": "^LANCS-.*",
                "instrument": f"{BenchCam.__module__}.BenchCam",
                "paths": [{"announced": PREFIX, "local": str(self.rucio)}],
            }
        )
        spawned = multiprocessing.get_context("spawn")
        self._sensor = ProcessPoolExecutor(1, spawned, _begin, (self.kafka, self.settings, self.ledger.url))
        self._sensor.submit(_drain).result()  # it runs before anything comes
        self._producer = Producer(kafka.client() | {"linger.ms": 50, "queue.buffering.max.messages": 500_000})
        self._postgresql = postgresql
        self._published = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sensor.shutdown()
        self.butler.close()
        self.ledger.close()

    def publish(self, files: Sequence[File]) -> None:
        """Announce files, in the order given, round the partitions."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        for value in messages(files, now):
            self._producer.produce(TOPIC, value, partition=self._published % PARTITIONS)
            self._published += 1
        if self._producer.flush(120):
            raise RuntimeError("Kafka didn't take all messages")

    def take_turn(self) -> int:
        """Drain what is new while what was drained before is ingested; gives how many messages are left in Kafka.

        As at a site whose sensor drains while a run ingests, these are two processes.
        """
        drained = self._sensor.submit(_drain)
        if self.ledger.backlog():
            ingest_pending(self.butler, self.ledger, self.settings)
        return drained.result()

    def take_turns(self) -> None:
        """Take turns until nothing is left in Kafka or to be ingested."""
        while self.take_turn() or self.ledger.backlog():
            pass

    def verify(self, policy: Policy) -> None:
        """From now on, compare files with their announcements in this way."""
        self.settings = self.settings.model_copy(update={"verify": policy})

    def count(self) -> int:
        """How many raws are in the Butler."""
        with self._postgresql.connect("site") as connection:
            found = connection.execute("SELECT count(*) FROM dataset").fetchone()
        return int(str(found[0])) if found else 0

    def expect(self, *, datasets: int) -> None:
        """Make sure that all is in: a figure of less would be worthless."""
        counts = self.ledger.counts()
        unfinished = {state: count for state, count in counts.items() if count and state is not State.INGESTED}
        if unfinished or self.count() != datasets:
            reasons = [row.reason for state in unfinished for row in self.ledger.find(state=state, limit=3)]
            raise RuntimeError(f"{self.count():,} datasets, not {datasets:,}; {unfinished} {reasons}")

    def latencies(self, exposures: Sequence[int]) -> list[float]:
        """Seconds from each announcement of these exposures to its dataset."""
        found = []
        for exposure in exposures:
            for row in self.ledger.find(exposure=exposure):
                if row.state is not State.INGESTED or row.settled_at is None or row.transferred_at is None:
                    raise RuntimeError(f"{row.did} is {row.state}: {row.reason}")
                found.append((row.settled_at - row.transferred_at).total_seconds())
        return found

    def sizes(self) -> list[Result]:
        """How large the databases are, and how much memory this process ever took."""
        results = []
        for database in ("site", "ledger"):
            with self._postgresql.connect(database) as connection:
                found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            results.append(Result(f"{database}_database", int(str(found[0])) / 2**20 if found else 0.0, "MB"))
        status = Path("/proc/self/status").read_text(encoding="ascii")
        [peak] = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return [*results, Result("raws", self.count(), "datasets"), Result("memory", int(peak.split()[1]) / 1024, "MB")]


class OneProcess:
    """The same messages through ``drp ingestd``: one process, with databases of its own.

    Parameters
    ----------
    site
        Whose files and messages it reads, and how; nothing has arrived yet since it was told how to verify.
    butler, ledger
        Its own.
    """

    def __init__(self, site: ArrivalSite, butler: Butler, ledger: Ledger) -> None:
        self._ledger = ledger
        self._intake = Intake(site.kafka, site.settings, ledger, butler)
        self.take_turn()  # it runs before anything comes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._intake.close()

    def take_turn(self) -> int:
        """Do what the daemon does in a turn; gives how many messages are left in Kafka or to be ingested."""
        turn = self._intake.turn()
        if turn.drained is None or turn.trouble:
            raise RuntimeError(turn.trouble)
        return turn.drained.lag + self._ledger.backlog()

    def take_turns(self) -> None:
        """Take turns until nothing is left."""
        while self.take_turn():
            pass


_draining: list[tuple[Drain, Ledger]] = []
"""What the sensor's process keeps."""


def _begin(kafka: KafkaSettings, settings: ArrivalSettings, url: str) -> None:
    _draining.append((Drain(kafka, settings), Ledger(url)))


def _drain() -> int:
    [(drain, ledger)] = _draining
    return drain.drain(ledger).lag
