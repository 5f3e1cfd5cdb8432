"""Dagster's daemon for a laptop: its sensors are looked at every second.

Dagster's own daemon looks at most every five seconds, which is nothing on a night and half of a demonstration.

Belongs here: that interval. Doesn't: anything that a site runs; a site runs ``dagster-daemon``.
"""

from __future__ import annotations

from dagster._daemon import sensor
from dagster._daemon.cli import main

_LOOK_EVERY_S = 1

if __name__ == "__main__":
    sensor.MIN_INTERVAL_LOOP_TIME = _LOOK_EVERY_S
    main()
