"""How fast what arrives gets from Kafka into the Butler, beside the Butler alone and beside a daemon's small batches.

Four ways into four Butlers of one PostgreSQL, with the same files, in turns, so that whatever else the machine does
slows all of them alike: (a) ``Butler.ingest`` alone, in batches of 1,000, with references made before the clock starts;
(b) as ctrl_ingestd does, in batches of 50, each reference read from its sidecar by way of the registry, and the data
IDs of a batch looked up by the Butler; (c) ours, whole: drained from a real Kafka into the ledger, verified, ingested,
settled. As at a site whose sensor drains while a run ingests, one process drains what is new while another ingests what
came the turn before, so the clock runs from the first message's drain to the last one's settling; (d) the same by the
turns of ``drp ingestd``, which does both in one process. One writer writes to each Butler. Figures of CPU are of the
process that ingests.

All this is done twice: with files compared by size, which is what (a) and (b) look at too, and with their checksums
computed as well, for which each file is read.

The files are raws of flats with sidecars, whose exposures are known: the work that all ways have in common. Raws of
the sky, with their visits, and shuffled zips are ingested after that; then one exposure a minute arrives, and
``drp ingestd``, which waits for nothing, has it in the Butler: how long the sensor takes, its settings say.

Belongs here: the ways, the stages and what is reported. Doesn't: the files (`benchmarks.arrival_world`), or the site
that they arrive at (`benchmarks.arrival_site`).
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path

import numpy as np
from lsst.daf.butler import Butler, DatasetRef, FileDataset
from rich.console import Console

from arrivals.daemon import run_daemon
from arrivals.files import Policy
from arrivals.ledger import Ledger
from benchmarks.arrival_site import PARTITIONS, READER, TOPIC, ArrivalSite, OneProcess, make_butler
from benchmarks.arrival_world import DETECTORS, Camera, File, exposure_numbers, insert
from benchmarks.ending import end_in_order
from benchmarks.report import Machine, Report, Result
from drp_tasks.raw_formatter import SimCamRawFormatter
from services.apache_kafka import ApacheKafka, may_read
from services.pki import Authority
from services.postgresql import PostgreSQL

BARE_BATCH = 1_000
SMALL_BATCH = 50
MOST_TO_BARE = 1 / 0.8
MOST_TO_SMALL = 1 / 2.5
MOST_LATENCY_S = 30.0
_EXPOSURES_A_TURN = 20
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "4GB"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How many exposures arrive: of flats, of the sky as single files, of the sky as zips, and one a minute.

    Each scale has a report of its own.
    """

    report: str
    flats: int
    singles: int
    zips: int
    minutes: int


SHORT = Scale("arrivals", flats=100, singles=10, zips=20, minutes=3)
NIGHT = Scale("arrivals-night", flats=100, singles=1_220, zips=2_400, minutes=10)


@dataclass(slots=True)
class Clock:
    """Time spent on one way."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is done meanwhile."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu


def ingest_bare(butler: Butler, files: Sequence[File], path: Callable[[File], str], clock: Clock) -> None:
    """Ingest by nothing but ``Butler.ingest``; references are ready before the clock starts."""
    given = [DatasetRef.from_json(file.sidecar, universe=butler.dimensions) for file in files]
    with butler.query() as query:
        found = query.join_data_coordinates([ref.dataId for ref in given]).data_ids(given[0].dimensions)
        expanded = {data_id: data_id for data_id in found.with_dimension_records()}
    datasets = [
        FileDataset(path(file), [ref.expanded(expanded[ref.dataId])], formatter=SimCamRawFormatter)
        for file, ref in zip(files, given, strict=True)
    ]
    with clock.running():
        for some in batched(datasets, BARE_BATCH):
            butler.ingest(*some, transfer="direct")


def ingest_in_small_batches(butler: Butler, files: Sequence[File], path: Callable[[File], str], clock: Clock) -> None:
    """Ingest as ctrl_ingestd does, once its messages are parsed."""
    with clock.running():
        for some in batched(files, SMALL_BATCH):
            refs = [DatasetRef.from_json(file.sidecar, registry=butler.registry) for file in some]
            datasets = [
                FileDataset(path(file), [ref], formatter=SimCamRawFormatter)
                for file, ref in zip(some, refs, strict=True)
            ]
            butler.ingest(*datasets, transfer="direct")


@dataclass(frozen=True, slots=True)
class Beside:
    """The Butlers of the other ways, and the daemon's ledger."""

    bare: Butler
    small: Butler
    ingestd: Butler
    ledger: Ledger

    def close(self) -> None:
        """Let go of them."""
        for each in (self.bare, self.small, self.ingestd, self.ledger):
            each.close()


def compare(site: ArrivalSite, beside: Beside, exposures: Sequence[int], policy: Policy) -> list[Result]:
    """Bring the same flats into all Butlers, in turns.

    Ours is a turn behind: what has been drained in one turn is ingested in the next, and the last one after all.
    """
    site.verify(policy)
    before = site.count()
    camera = Camera(site.rucio, on_sky=False)
    for butler in (beside.bare, beside.small, beside.ingestd, site.butler):
        insert(butler, camera.records(exposures))
    files = camera.singles(exposures)
    random.Random(1).shuffle(files)
    clocks = {"bare": Clock(), "small": Clock(), "ours": Clock(), "ingestd": Clock()}
    with OneProcess(site, beside.ingestd, beside.ledger) as ingestd:
        for some in batched(files, _EXPOSURES_A_TURN * DETECTORS):
            ingest_bare(beside.bare, some, lambda file: str(camera.folder / file.name), clocks["bare"])
            ingest_in_small_batches(beside.small, some, lambda file: str(camera.folder / file.name), clocks["small"])
            site.publish(some)
            with clocks["ours"].running():
                site.take_turn()
            with clocks["ingestd"].running():
                ingestd.take_turn()
        with clocks["ours"].running():
            site.take_turns()
        with clocks["ingestd"].running():
            ingestd.take_turns()
    site.expect(datasets=before + len(files))
    if beside.ledger.counts() != site.ledger.counts():
        raise RuntimeError(f"drp ingestd has {beside.ledger.counts()}, not {site.ledger.counts()}")
    each_us = 1e6 / len(files)
    figures = [Result(f"{policy}_flats", len(files), "files")]
    for name, clock in clocks.items():
        figures.append(Result(f"{policy}_{name}_us", clock.wall_s * each_us, "µs"))
        figures.append(Result(f"{policy}_{name}_cpu_us", clock.cpu_s * each_us, "µs"))
    ours = clocks["ours"].wall_s
    return [
        *figures,
        Result(f"{policy}_ours_files_a_second", len(files) / ours, "1/s"),
        Result(f"{policy}_ours_to_bare", ours / clocks["bare"].wall_s, "", MOST_TO_BARE),
        Result(f"{policy}_ours_to_small_batches", ours / clocks["small"].wall_s, "", MOST_TO_SMALL),
        Result(f"{policy}_ingestd_to_bare", clocks["ingestd"].wall_s / clocks["bare"].wall_s, ""),
    ]


def take_in(site: ArrivalSite, name: str, files: Sequence[File], datasets: int) -> list[Result]:
    """Have shuffled files arrive, in two halves so that some wait for the dimensions in the other."""
    shuffled = list(files)
    random.Random(2).shuffle(shuffled)
    clock = Clock()
    half = (len(shuffled) + 1) // 2
    before = site.count()
    for some in (shuffled[:half], shuffled[half:]):
        site.publish(some)
        with clock.running():
            site.take_turns()
    site.expect(datasets=before + datasets)
    return [
        Result(f"{name}_files", len(files), "files"),
        Result(f"{name}_s", clock.wall_s, "s"),
        Result(f"{name}_cpu_s", clock.cpu_s, "s"),
        Result(f"{name}_datasets_a_second", datasets / clock.wall_s, "1/s"),
    ]


def by_the_minute(site: ArrivalSite, exposures: Sequence[int], scratch: Path) -> list[Result]:
    """Have an exposure come each minute, as single files and as a zip in turns, while the daemon runs."""
    camera = Camera(site.rucio, on_sky=True)
    stop = threading.Event()
    daemon = threading.Thread(
        target=run_daemon, args=(site.kafka, site.settings, site.ledger, site.butler, stop), name="daemon"
    )
    daemon.start()
    began = time.monotonic()
    try:
        for minute, exposure in enumerate(exposures):
            time.sleep(max(0.0, began + 60.0 * minute - time.monotonic()))
            files = camera.zips([exposure], scratch / str(exposure)) if minute % 2 else camera.singles([exposure])
            site.publish(files)
        time.sleep(max(0.0, began + 60.0 * len(exposures) - time.monotonic()))
    finally:
        stop.set()
        daemon.join()
    latencies = site.latencies(exposures)
    return [
        Result("minutes", len(exposures), "min"),
        Result("ingestd_latency_median_s", float(np.median(latencies)), "s"),
        Result("ingestd_latency_p95_s", float(np.percentile(latencies, 95)), "s", MOST_LATENCY_S),
    ]


def measure(folder: Path, scale: Scale, console: Console) -> Report:
    """Measure everything.

    Parameters
    ----------
    folder
        Of the servers and files; what is in it is no use afterwards.
    scale
        How much arrives.
    console
        Is told how far it is.
    """
    machine = Machine.here()
    rules = may_read(READER, ["LANCS-"], "drp-")
    kafka_folder = folder / "kafka"
    with (
        ApacheKafka(kafka_folder, Authority(folder / "pki"), topics={TOPIC: PARTITIONS}, rules=rules) as kafka,
        PostgreSQL(folder / "postgresql", _DURABLE) as postgresql,
    ):
        os.environ["PGPASSFILE"] = str(postgresql.passfile)
        postgresql.create_database("ingestd_ledger")
        beside = Beside(
            bare=make_butler(folder / "bare", postgresql, "bare"),
            small=make_butler(folder / "small", postgresql, "small"),
            ingestd=make_butler(folder / "ingestd", postgresql, "ingestd"),
            ledger=Ledger(postgresql.url("ingestd_ledger")),
        )
        with closing(beside), ArrivalSite(folder / "site", kafka, postgresql) as site:
            results: list[Result] = []
            if scale.flats:
                console.print(f"1/4 {scale.flats} exposures of flats, four ways, twice")
                results += compare(site, beside, exposure_numbers(1, scale.flats), "size")
                results += compare(site, beside, exposure_numbers(5_001, scale.flats), "always")
            sky = Camera(site.rucio, on_sky=True)
            if scale.singles:
                console.print(f"2/4 {scale.singles} exposures of the sky as single files")
                singles = sky.singles(exposure_numbers(10_001, scale.singles))
                results += take_in(site, "sky_singles", singles, len(singles))
            if scale.zips:
                console.print(f"3/4 {scale.zips} exposures of the sky as zips and dimensions")
                zips = sky.zips(exposure_numbers(20_001, scale.zips), folder / "model")
                results += take_in(site, "sky_zips", zips, scale.zips * DETECTORS)
            if scale.minutes:
                console.print(f"4/4 {scale.minutes} minutes, with an exposure in each")
                results += by_the_minute(site, exposure_numbers(30_001, scale.minutes), folder / "minutes")
            results += site.sizes()
    return Report(scale.report, machine, tuple(results))


def main() -> None:
    """Measure, print, and write the results' file; a missed target is no error."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="benchmarks.arrivals", description="From Kafka into the Butler.")
    parser.add_argument("--night", action="store_true", help="a whole night: 2,400 zips, 250,000 single files; hours")
    for name in ("flats", "singles", "zips", "minutes"):
        parser.add_argument(f"--{name}", type=int, help=f"exposures; by default {getattr(SHORT, name)}")
    parser.add_argument("--state", type=Path, help="where a folder for the servers is made; by default /tmp")
    options = parser.parse_args()
    usual = NIGHT if options.night else SHORT
    names = ("flats", "singles", "zips", "minutes")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    scale = replace(usual, **given)
    logging.getLogger("lsst").setLevel(logging.WARNING)
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="arrivals-", dir=options.state) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's own user has to get through
        report = measure(Path(folder), scale, console)
    console.print(report.table())
    console.print(f"Written to {report.write()}")


if __name__ == "__main__":
    main()
