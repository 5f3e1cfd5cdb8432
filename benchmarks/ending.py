"""Ending early in good order: a benchmark or a soak that is told to end ends its servers first.

Belongs here: what a signal does to a whole run. Doesn't: ending the servers (`services.service`), which each run's own
``with`` statements see to.
"""

from __future__ import annotations

import signal


def end_in_order() -> None:
    """From now on, be interrupted by SIGTERM as by Ctrl-C; at once, it would leave servers running."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
