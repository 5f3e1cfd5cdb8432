"""Arrivals in numbers for Prometheus: the ledger when it is scraped, and the daemon's own pace.

Belongs here: names, labels and values of metrics, and serving them. Doesn't: asking (`arrivals.overview`,
`arrivals.health`), or alerting rules and dashboards (`deploy`). Labels have few values whatever messages say: no DIDs,
exposures or reasons, and what goes beyond the busiest pairs of RSEs is added up as ``other``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from arrivals.causes import ReasonClass, classify
from arrivals.health import Observation, lag_or_trouble
from arrivals.ledger import Ledger
from arrivals.overview import Overview
from arrivals.states import State
from arrivals.transfers import UNKNOWN
from resources.errors import OperatorError, SiteFault
from resources.site import ArrivalSettings, KafkaSettings

if TYPE_CHECKING:
    from arrivals.daemon import Turn

LOOPBACK = "127.0.0.1"

LEAST_AGE_S = 15.0
"""So long a scrape's answer serves for the next one: scrapes cost the database the same however many scrape."""

MOST_SHARE = 0.1
"""Of the time at most, the ledger's database is busy with scrapes, however long the ledger has got."""

MOST_PAIRS = 100
"""Pairs of RSEs that have metrics of their own: names come in messages, and anybody's could."""

OTHER = "other"
_EVENTS = frozenset(
    f"{subject}-{what}"
    for subject, fates in (("transfer", ("submitted", "queued", "done", "failed")), ("deletion", ("done", "failed")))
    for what in fates
)
_DURATION_BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class ArrivalsCollector(Collector):
    """What ledger and Kafka say, asked when somebody scrapes.

    Parameters
    ----------
    kafka, settings, ledger, overview
        The site's.
    least_age_s
        How long an answer serves; longer where it took the database long.
    clock
        Tells the time.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: ArrivalSettings,
        ledger: Ledger,
        overview: Overview,
        *,
        least_age_s: float = LEAST_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = (kafka, settings, ledger)
        self._overview = overview
        self._least_age_s = least_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._serves_until = float("-inf")

    def collect(self) -> Iterable[Metric]:
        """Give the metrics; without a database, that it is away."""
        with self._lock:
            if self._clock() >= self._serves_until:
                took_s = 0.0
                try:
                    answer, took_s = self._ask()
                    self._metrics = [*answer, _ledger_up(True)]
                except OperatorError:
                    self._metrics = [_ledger_up(False)]
                self._serves_until = self._clock() + max(self._least_age_s, took_s / MOST_SHARE)
            return self._metrics

    def _ask(self) -> tuple[list[Metric], float]:
        """Ask Kafka, then the ledger; give the metrics, and how long the ledger took (s)."""
        lag, trouble = lag_or_trouble(*self._site)
        asked_at = self._clock()
        seen = Observation(datetime.now(UTC), self._overview.states(), lag, trouble)
        answer = [
            *_of_states(seen),
            *_of_kafka(seen),
            self._quarantined(),
            self._expired(),
            *self._transfers(),
        ]
        return answer, self._clock() - asked_at

    def _quarantined(self) -> Metric:
        metric = GaugeMetricFamily(
            "drp_arrivals_quarantined_messages", "Messages in quarantine, by kind of trouble.", labels=["reason"]
        )
        rows: Counter[ReasonClass] = Counter()
        for group in self._overview.causes({State.QUARANTINED}):
            rows[classify(group.example, understood=group.kind is not None)] += group.rows
        for reason in ReasonClass:
            metric.add_metric((reason,), rows[reason])
        return metric

    def _expired(self) -> Metric:
        metric = CounterMetricFamily(
            "drp_arrivals_expired_messages", "Messages that Kafka deleted before they were read.", labels=["topic"]
        )
        for topic, expired in self._overview.expired().items():
            metric.add_metric((topic,), expired)
        return metric

    def _transfers(self) -> Iterator[Metric]:
        labels = ["src_rse", "dst_rse", "event"]
        families = (
            CounterMetricFamily("drp_transfer_events", "Events of transfers and deletions.", labels=labels),
            CounterMetricFamily("drp_transfer_bytes", "Announced bytes of those events' files.", labels=labels),
            CounterMetricFamily(
                "drp_transfer_duration_seconds", "Sum of the times that those transfers took.", labels=labels
            ),
        )
        totals = self._overview.transfer_totals()
        busiest: Counter[tuple[str, str]] = Counter()
        for source, destination, _, count, *_ in totals:
            busiest[source, destination] += count
        known = {pair for pair, _ in busiest.most_common(MOST_PAIRS)}
        sums: dict[tuple[str, str, str], list[int]] = {}
        for source, destination, event, *values in totals:
            pair = (source or UNKNOWN, destination or UNKNOWN) if (source, destination) in known else (OTHER, OTHER)
            entry = sums.setdefault((*pair, event if event in _EVENTS else OTHER), [0, 0, 0])
            for index, value in enumerate(values):
                entry[index] += value
        for index, family in enumerate(families):
            for names, values in sorted(sums.items()):
                family.add_metric(names, values[index])
            yield family


class LedgerAway(Collector):
    """What there is to say while the ledger can't even be opened."""

    def collect(self) -> Iterable[Metric]:
        """Say that it is away, and nothing else."""
        yield _ledger_up(False)


def _ledger_up(answers: bool) -> Metric:
    return GaugeMetricFamily("drp_arrivals_ledger_up", "Whether the ledger's database answers.", value=answers)


def _of_states(seen: Observation) -> Iterator[Metric]:
    rows = GaugeMetricFamily("drp_arrivals_messages", "Messages in the ledger.", labels=["kind", "state"])
    size = GaugeMetricFamily("drp_arrivals_announced_bytes", "Announced bytes of files.", labels=["kind", "state"])
    for count in seen.states:
        names = (count.kind or UNKNOWN, count.state)
        rows.add_metric(names, count.rows)
        size.add_metric(names, count.bytes)
    yield rows
    yield size
    for state, name, what in (
        (State.WAITING, "waiting", "that waits for something is here"),
        (State.RECEIVED, "received", "to be ingested is due"),
    ):
        yield GaugeMetricFamily(
            f"drp_arrivals_oldest_{name}_age_seconds",
            f"Since when the oldest message {what}; 0 if there is none.",
            value=seen.oldest_s(state) or 0.0,
        )
    last = seen.last_received_at
    yield GaugeMetricFamily(
        "drp_arrivals_last_received_timestamp_seconds",
        "When the newest message came; 0 if none did.",
        value=last.timestamp() if last else 0.0,
    )


def _of_kafka(seen: Observation) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "drp_arrivals_kafka_up", "Whether Kafka tells how much there is to read.", value=seen.lag is not None
    )
    lag = GaugeMetricFamily(
        "drp_arrivals_kafka_lag_messages", "Messages in Kafka and not yet in the ledger.", labels=["topic"]
    )
    for topic, messages in (seen.lag or {}).items():
        lag.add_metric((topic,), messages)
    yield lag


class DaemonMetrics:
    """The daemon's own pace.

    Parameters
    ----------
    registry
        Where its metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, what: str) -> Histogram:
            return Histogram(name, what, buckets=_DURATION_BUCKETS_S, registry=registry)

        def counter(name: str, what: str, *labels: str) -> CounterMetric:
            return CounterMetric(name, what, labels, registry=registry)

        self._drains = histogram("drp_ingestd_drain_duration_seconds", "Time of drains that read something.")
        self._ingests = histogram("drp_ingestd_ingest_duration_seconds", "Time of ingests that had something to do.")
        self._turns = counter("drp_ingestd_turns", "Turns of the daemon's loop.", "result")
        self._read = counter("drp_ingestd_read_messages", "Messages read from Kafka.")
        self._settled = counter("drp_ingestd_settled_messages", "Messages that reached a state.", "state")
        self._datasets = counter("drp_ingestd_ingested_datasets", "Datasets that came into the Butler.")
        self._last = Gauge("drp_ingestd_last_turn_timestamp_seconds", "When the last turn ended.", registry=registry)
        for result in ("worked", "idle", "trouble"):
            self._turns.labels(result)
        for state in State:
            self._settled.labels(state)

    def on_turn(self, turn: Turn) -> None:
        """Count one turn.

        Parameters
        ----------
        turn
            What it did.
        """
        self._turns.labels("trouble" if turn.trouble else "idle" if turn.idle else "worked").inc()
        self._last.set_to_current_time()
        drained, ingested = turn.drained, turn.ingested
        if drained is not None and drained.rows + drained.events:
            self._drains.observe(drained.elapsed_s)
            self._read.inc(drained.rows + drained.events)
        if ingested is not None and ingested.outcomes:
            self._ingests.observe(ingested.elapsed_s)
            self._datasets.inc(ingested.datasets)
            for state in State:
                self._settled.labels(state).inc(ingested.count(state))


def make_registry(collector: Collector) -> CollectorRegistry:
    """Put the arrivals' metrics and this process's own (memory, CPU, files) into a registry.

    Parameters
    ----------
    collector
        Of the site's ledger.
    """
    disable_created_metrics()  # a series more for each counter, which nobody asks for
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


@contextmanager
def served(registry: CollectorRegistry, port: int, address: str = LOOPBACK) -> Iterator[str]:
    """Serve metrics over HTTP while the context lasts, from a thread of its own.

    Parameters
    ----------
    registry
        The metrics.
    port, address
        Where; with port 0, on any that is free.

    Yields
    ------
    url
        Where they are.

    Raises
    ------
    resources.errors.SiteFault
        The port is taken, or the address isn't this machine's.
    """
    try:
        server = ThreadingHTTPServer((address, port), MetricsHandler.factory(registry))
    except OSError as error:
        raise SiteFault(
            f"metrics can't be served: {error.strerror}", f"{address}:{port}", "choose another --metrics-port"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
