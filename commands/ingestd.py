"""`drp ingestd`: arrivals without a sensor.

Belongs here: the daemon's command: its log, its metrics' port, its end. Doesn't: the loop (`arrivals.daemon`), or the
metrics (`arrivals.metrics`).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from arrivals.daemon import Totals, Turn, patiently, run_daemon, stopped_by_signals
from arrivals.health import duration
from arrivals.ledger import Ledger
from arrivals.metrics import LOOPBACK, ArrivalsCollector, DaemonMetrics, LedgerAway, make_registry, served
from arrivals.overview import Overview
from resources.butler import open_butler
from resources.site import Site, read_site

_LOG = logging.getLogger("drp.ingestd")


def ingestd(
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="serve Prometheus metrics; 0: any free port")
    ] = None,
    metrics_address: Annotated[str, typer.Option("--metrics-address", help="where to serve them")] = LOOPBACK,
) -> None:
    """Drain Kafka and ingest until told to stop; for sites that want no sensor.

    SIGTERM or SIGINT ends it after the batch at hand, with exit code 0. It waits for a Kafka or a database that is
    away, however long. It ends with exit code 1 and one line if the site itself is at fault: a certificate is refused,
    the instrument isn't registered.
    """
    site = read_site()
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    for ours in ("arrivals", "drp"):
        logging.getLogger(ours).setLevel(logging.INFO)
    began = time.monotonic()
    with stopped_by_signals() as stop, ExitStack() as open_until_end:
        totals = _run(site, stop, open_until_end, metrics_port, metrics_address)
    _LOG.info("stopped after %s: %s", duration(time.monotonic() - began), totals)


def _run(site: Site, stop: threading.Event, open_until_end: ExitStack, port: int | None, address: str) -> Totals:
    on_turn: Callable[[Turn], None] = lambda turn: None  # noqa: E731
    away = LedgerAway()
    registry = make_registry(away)
    if port is not None:
        on_turn = DaemonMetrics(registry).on_turn
        _LOG.info("metrics at %s", open_until_end.enter_context(served(registry, port, address)))
    ledger = patiently(lambda: Ledger(site.ledger), stop)
    if ledger is None:
        return Totals()
    open_until_end.callback(ledger.close)
    registry.unregister(away)
    registry.register(ArrivalsCollector(site.kafka, site.arrivals, ledger, Overview(ledger)))
    butler = patiently(lambda: open_butler(site.butler, writeable=True), stop)
    if butler is None:
        return Totals()
    _LOG.info("%s: reading %s into %s", site.name, site.arrivals.topics, site.butler.repository)
    return run_daemon(site.kafka, site.arrivals, ledger, butler, stop, on_turn=on_turn)
