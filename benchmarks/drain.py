"""How fast messages get from Kafka into the ledger: a million of them, from a real Kafka into a real PostgreSQL.

The yardstick reads the same topic with the same client library and parses JSON, and does nothing else: nobody who reads
these messages in Python can be faster by much.

Belongs here: making messages of real size, the measured processes, and what they cost the servers. Doesn't: what
follows the ledger (`benchmarks.arrivals`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from rich.console import Console

from arrivals.announcement import Kind
from arrivals.drain import DrainLimits, drain
from arrivals.ledger import Ledger
from arrivals.records import Recorded, Settlement
from arrivals.states import State
from benchmarks.ending import end_in_order
from benchmarks.report import Machine, Report, Result
from resources.site import ArrivalSettings, KafkaSettings, TlsSettings
from services.apache_kafka import ApacheKafka, may_read
from services.pki import Authority
from services.postgresql import PostgreSQL
from services.service import Service

TOPIC = "LANCS-raw"
PARTITIONS = 12
READER = "drp-arrivals"
DETECTORS = 205
EXPOSURES_A_DAY = 1_200
MOST_US_A_MESSAGE = 50.0
"""20,000 messages a second."""

MOST_S_A_MILLION = 60.0
MOST_MEMORY_GROWTH = 1.2
"""From a tenth of the messages to all of them: flat, but for the allocator."""

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "4GB"}
_SETTLED = 10_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What reading took.

    Parameters
    ----------
    messages, wall_s, cpu_s
        How many, how long, and how much of the reading process's CPU.
    memory_mb
        The process's largest resident set by then, at a tenth of the messages and at the end.
    """

    messages: int
    wall_s: float
    cpu_s: float
    memory_mb: tuple[float, float]


def messages(count: int) -> Iterator[bytes]:
    """Make messages as Hermes writes them, of single raws, exposure by exposure.

    Parameters
    ----------
    count
        How many.
    """
    template = json.dumps(_event("%(name)s", "%(sidecar)s", "%(transfer)s"))
    for number in range(count):
        exposure, detector = divmod(number, DETECTORS)
        day, sequence = divmod(exposure, EXPOSURES_A_DAY)
        day_obs = 20251101 + day
        name = f"LSSTCam/{day_obs}/MC_O_{day_obs}_{sequence:06d}/MC_O_{day_obs}_{sequence:06d}_{detector:03d}.fits"
        transfer = uuid.UUID(int=number)
        sidecar = json.dumps(_sidecar(str(transfer), day_obs, day_obs * 100_000 + sequence, detector))
        values = {"name": name, "transfer": transfer, "sidecar": sidecar.replace('"', '\\"')}
        yield (template % values).encode()


def publish(kafka: ApacheKafka, count: int) -> float:
    """Fill the topic, round the partitions; gives the mean size of a message.

    Parameters
    ----------
    kafka
        The cluster.
    count
        How many messages.
    """
    producer = Producer(kafka.client() | {"linger.ms": 50, "queue.buffering.max.messages": 200_000})
    size = 0
    for number, value in enumerate(messages(count)):
        size += len(value)
        while True:
            try:
                producer.produce(TOPIC, value, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError("Kafka didn't take all messages")
    return size / count


def read_only(kafka: KafkaSettings, count: int) -> Cost:
    """Read and parse, and nothing else: the yardstick."""
    client = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": "drp-yardstick",
            "enable.auto.commit": False,
            "security.protocol": "ssl",
            **{
                f"ssl.{key}.location": str(getattr(kafka.tls, name))
                for key, name in (("ca", "ca"), ("certificate", "certificate"), ("key", "key"))
            },
        }
    )
    watch = _Watch(count)
    client.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    while watch.messages < count:
        read = client.consume(2_000, timeout=1.0)
        for message in read:
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise RuntimeError(error.str())
            json.loads(message.value())
        watch.count(len(read))
    client.close()
    return watch.cost()


def read_into(kafka: KafkaSettings, count: int, url: str) -> Cost:
    """Drain into a ledger."""
    watch = _Watch(count)

    class Watched(Ledger):
        """A ledger whose growth is watched."""

        def record_batch(self, *arguments: Any, **options: Any) -> Recorded:
            """Record, and look."""
            recorded = super().record_batch(*arguments, **options)
            watch.count(recorded.rows + recorded.events)
            return recorded

    ledger = Watched(url)
    limits = DrainLimits(messages=count, seconds=3_600.0, backlog=2 * count)
    result = drain(kafka, _settings(), ledger, limits)
    cost = watch.cost()
    if result.rows != count or ledger.counts()[State.RECEIVED] != count:
        raise RuntimeError(f"{count:,} messages, but {result}")
    ledger.close()
    return cost


def ask(url: str) -> dict[str, float]:
    """What the ledger's daily work takes with all those rows in it, in microseconds a row, or milliseconds a question.

    Parameters
    ----------
    url
        The ledger's.
    """
    ledger = Ledger(url)
    took: dict[str, float] = {}

    def timed[T](name: str, scale: float, question: Callable[[], T]) -> T:
        began = time.perf_counter()
        answer = question()
        took[name] = (time.perf_counter() - began) * scale
        return answer

    each_us = 1e6 / _SETTLED
    rows = timed("pending_us", each_us, lambda: ledger.pending({Kind.RAW}, limit=_SETTLED))
    waiting = [
        Settlement(row.row_id, State.WAITING, "dimensions", waits_for=f"exposure={row.exposure}") for row in rows
    ]
    timed("settle_waiting_us", each_us, lambda: ledger.settle(waiting))
    timed("wake_us", each_us, lambda: ledger.wake({settlement.waits_for or "" for settlement in waiting}))
    done = [Settlement(row.row_id, State.INGESTED, day_obs=row.day_obs, exposure=row.exposure) for row in rows]
    timed("settle_ingested_us", each_us, lambda: ledger.settle(done))
    timed("ingested_contents_us", each_us, lambda: ledger.ingested_contents({(row.scope, row.name) for row in rows}))
    timed("find_by_did_ms", 1e3, lambda: ledger.find(scope=rows[0].scope, name=rows[0].name))
    timed("find_by_exposure_ms", 1e3, lambda: ledger.find(exposure=rows[0].exposure))
    timed("exposures_of_a_day_ms", 1e3, lambda: ledger.exposures(rows[0].day_obs or 0, "LSSTCam"))
    timed("unfinished_by_day_obs_ms", 1e3, lambda: ledger.by_day_obs(unfinished_only=True))
    timed("all_by_day_obs_ms", 1e3, ledger.by_day_obs)
    ledger.close()
    return took


def measure(folder: Path, count: int, console: Console) -> Report:
    """Measure everything.

    Parameters
    ----------
    folder
        Of the servers; what they hold is no use afterwards.
    count
        How many messages.
    console
        Is told how far it is.
    """
    machine = Machine.here()
    authority = Authority(folder / "pki")
    rules = may_read(READER, ["LANCS-"], "drp-")
    with (
        ApacheKafka(folder / "kafka", authority, topics={TOPIC: PARTITIONS}, rules=rules) as kafka,
        PostgreSQL(folder / "postgresql", _DURABLE) as postgresql,
    ):
        os.environ["PGPASSFILE"] = str(postgresql.passfile)
        postgresql.create_database("ledger")
        url = postgresql.url("ledger")
        console.print(f"1/4 Publishing {count:,} messages to {PARTITIONS} partitions")
        size = publish(kafka, count)
        settings = _reader_settings(kafka)
        console.print("2/4 Reading them without a ledger")
        yardstick = _apart(read_only, settings, count)
        console.print("3/4 Draining them into the ledger")
        before = _cpu_s(postgresql), _cpu_s(kafka)
        drained = _apart(read_into, settings, count, url)
        postgresql_s, kafka_s = _cpu_s(postgresql) - before[0], _cpu_s(kafka) - before[1]
        console.print("4/4 Asking the ledger")
        answers = _apart(ask, url)
    each_us = 1e6 / count
    return Report(
        name="drain",
        machine=machine,
        results=(
            Result("messages", count, ""),
            Result("message_bytes", size, "B"),
            Result("yardstick_us", yardstick.wall_s * each_us, "µs"),
            Result("drain_us", drained.wall_s * each_us, "µs", MOST_US_A_MESSAGE),
            Result("drain_messages_a_second", count / drained.wall_s, "1/s"),
            Result("drain_s_a_million", drained.wall_s * each_us, "s", MOST_S_A_MILLION),
            Result("drain_to_yardstick", drained.wall_s / yardstick.wall_s, ""),
            Result("yardstick_cpu_us", yardstick.cpu_s * each_us, "µs"),
            Result("drain_cpu_us", drained.cpu_s * each_us, "µs"),
            Result("postgresql_cpu_us", postgresql_s * each_us, "µs"),
            Result("kafka_cpu_us", kafka_s * each_us, "µs"),
            Result("memory_at_a_tenth", drained.memory_mb[0], "MB"),
            Result("memory_at_the_end", drained.memory_mb[1], "MB"),
            Result("memory_growth", drained.memory_mb[1] / drained.memory_mb[0], "", MOST_MEMORY_GROWTH),
            *(Result(name, value, "µs" if name.endswith("_us") else "ms") for name, value in answers.items()),
        ),
    )


class _Watch:
    """Counts messages, and notes time and memory on the way."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._began = time.perf_counter(), time.process_time()
        self._early_mb = 0.0
        self.messages = 0

    def count(self, messages: int) -> None:
        self.messages += messages
        if not self._early_mb and self.messages >= self._expected / 10:
            self._early_mb = _memory_mb()

    def cost(self) -> Cost:
        wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        return Cost(self.messages, wall_s, cpu_s, (self._early_mb, _memory_mb()))


def _apart[**P, T](work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Do something in a process of its own, whose memory and CPU are then its own as well."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments, options)


def _memory_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel doesn't tell the largest resident set")


def _cpu_s(service: Service) -> float:
    """CPU that a server has used, with its children's, living or ended."""
    own = service.pid
    ticks = 0
    for process in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = process.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if process.parent.name == str(own):
            ticks += sum(map(int, fields[11:15]))
        elif fields[1] == str(own):
            ticks += sum(map(int, fields[11:13]))
    return ticks / _TICKS_A_SECOND


def _reader_settings(kafka: ApacheKafka) -> KafkaSettings:
    certificate = kafka.certificate(READER)
    tls = TlsSettings(ca=certificate.ca, certificate=certificate.certificate, key=certificate.key)
    return KafkaSettings(bootstrap=kafka.address, tls=tls)


def _settings() -> ArrivalSettings:
    values = {"topics": "^LANCS-.*", "instrument": "-", "paths": [{"announced": "-", "local": "-"}]}
    return ArrivalSettings.model_validate(values)


def _event(name: str, sidecar: str, transfer: str) -> dict[str, object]:
    return {
        "event_type": "transfer-done",
        "payload": {
            "activity": "Data Brokering",
            "request-id": transfer,
            "duration": 4,
            "checksum-adler": "8b1bdc93",
            "checksum-md5": "781c3d2bb0382cd2b4d7bff8cb1ca527",
            "file-size": 14912640,
            "bytes": 14912640,
            "guid": None,
            "previous-request-id": None,
            "protocol": "davs",
            "scope": "raw",
            "name": name,
            "dataset": "Dataset/LSSTCam/raw/Obs",
            "datasetScope": "raw",
            "src-type": "DISK",
            "src-rse": "SLAC_RAW_DISK",
            "src-url": f"davs://source.example:1094/raw/{name}",
            "dst-type": "DISK",
            "dst-rse": "LANCS_RAW_DISK",
            "dst-url": f"davs://destination.example:1094/raw/{name}",
            "reason": "",
            "transfer-endpoint": "https://fts.example:8446",
            "transfer-id": transfer,
            "transfer-link": None,
            "created_at": "2025-11-02 20:14:31.396678",
            "submitted_at": "2025-11-02 20:14:56.715866",
            "started_at": "2025-11-02 20:15:05",
            "transferred_at": "2025-11-02 20:15:09",
            "tool-id": "rucio-conveyor",
            "account": "root",
            "datatype": None,
            "transfer_link": f"https://fts.example:8449/fts3/ftsmon/#/job/{transfer}",
            "rubin_butler": "raw_file",
            "rubin_sidecar": sidecar,
        },
        "created_at": "2025-11-02 20:15:43.153695",
    }


def _sidecar(identity: str, day_obs: int, exposure: int, detector: int) -> dict[str, object]:
    dataset_type = {"name": "raw", "storageClass": "Exposure", "dimensions": ["instrument", "detector", "exposure"]}
    data_id = {
        "instrument": "LSSTCam",
        "detector": detector,
        "exposure": exposure,
        "band": "r",
        "day_obs": day_obs,
        "group": "2025-11-02T03:57:30.535",
        "physical_filter": "r_57",
    }
    return {"id": identity, "datasetType": dataset_type, "dataId": {"dataId": data_id}, "run": "LSSTCam/raw/all"}


def main() -> None:
    """Measure, print, and write the results' file; a missed target is no error."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="benchmarks.drain", description="Messages into the ledger.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many")
    parser.add_argument("--state", type=Path, help="where a folder for the servers is made; by default /tmp")
    options = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="drain-", dir=options.state) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's own user has to get through
        report = measure(Path(folder), options.messages, console)
    console.print(report.table())
    console.print(f"Written to {report.write()}")


if __name__ == "__main__":
    main()
