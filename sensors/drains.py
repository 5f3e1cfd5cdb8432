"""The drain of a site's ticks: one a process, so that Kafka is connected to once and not at each tick.

Belongs here: keeping it. Doesn't: what it does (`arrivals.drain`), or when (`sensors.arrivals`).
"""

from __future__ import annotations

import threading

from arrivals.drain import Drain
from resources.site import ArrivalSettings, KafkaSettings, Site

_lock = threading.Lock()
_kept: list[tuple[KafkaSettings, ArrivalSettings, Drain]] = []


def kept_drain(site: Site) -> Drain:
    """Give the drain that this site's earlier ticks used, or a new one.

    Parameters
    ----------
    site
        Where messages arrive.
    """
    with _lock:
        for kafka, settings, drain in _kept:
            if (kafka, settings) == (site.kafka, site.arrivals):
                return drain
        drain = Drain(site.kafka, site.arrivals)
        _kept.append((site.kafka, site.arrivals, drain))
        return drain
