"""Ending early in good order: a benchmark or a soak that is told to end ends its servers first.

Belongs here: what a signal, or a service that can't be started, does to a whole run. Doesn't: ending the servers
(`services.service`), which each run's own ``with`` statements see to.
"""

from __future__ import annotations

import signal
import sys
from types import TracebackType

from services.service import ServiceError


def end_in_order() -> None:
    """From now on, be interrupted by SIGTERM as by Ctrl-C; at once, it would leave servers running.

    Of a service that fails only what it says is shown: mostly that a package is missing.
    """
    sys.excepthook = _tell
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, ServiceError):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
