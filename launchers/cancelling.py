"""Cancelling a submission because its run is cancelled, and remembering that it was this that ended it.

Belongs here: saying honestly whether that worked, and the mark in the submission's folder. What somebody has cancelled
in the batch system bears no mark, and stays cancelled.
Doesn't: when to cancel (`launchers.step_run`, `launchers.run_launcher`), or how (`launchers.watch`).
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from launchers import bps, watch
from launchers.bps import Handle
from launchers.processes import exclusive
from resources.errors import OperatorError

_MARK = "cancelled_with_its_run"

WATCH_LOCK = "watch.lock"
"""In a submission's folder: held by whoever watches it, and says who that is."""


def cancel_with_run(handle: Handle, run_id: str) -> tuple[bool, str]:
    """Cancel a submission whose run is being cancelled.

    Parameters
    ----------
    handle
        The submission.
    run_id
        The Dagster run's.

    Returns
    -------
    cancelled
        Whether the batch system has done so.
    said
        One line for the run's log.
    """
    try:
        is_cancelled, message = watch.cancel(handle)
    except (OperatorError, RuntimeError, OSError) as error:
        is_cancelled, message = False, str(error)
    if is_cancelled:
        with contextlib.suppress(OSError):  # on a full disk it stays cancelled, as if by somebody else
            (Path(handle.submit_path).parent / _MARK).write_text(run_id)
    because = f": {message}" if message else ""
    if is_cancelled:
        return True, f"{handle.name} was cancelled with its run{because}"
    by_hand = f"bps cancel --wms-service-class {handle.service_class} --id {handle.wms_id}"
    return False, f"{handle.name} was not cancelled{because}; where it still runs, end it with {by_hand}"


def cancel_unwatched(folder: Path, run_id: str) -> str:
    """Cancel what a run has submitted, unless somebody watches it, on whatever machine: that is left to him.

    Parameters
    ----------
    folder
        The submission's.
    run_id
        The Dagster run's.

    Returns
    -------
    said
        One line for the run's log.
    """
    if not folder.is_dir():
        return f"{folder.name} was not cancelled: its folder can't be seen from {socket.gethostname()}"
    lock = folder / WATCH_LOCK
    try:
        with exclusive(lock) as held:
            if held is None:
                return f"{folder.name} is left to who watches it: {lock.read_text(errors='replace')}"
            handle = bps.find(folder)
            return f"{folder.name} was not submitted" if handle is None else cancel_with_run(handle, run_id)[1]
    except (OperatorError, RuntimeError, OSError) as error:
        return f"{folder.name} was not cancelled: {error}"


def was_cancelled_with_run(folder: Path) -> bool:
    """Whether a submission was cancelled together with its run, and not gone on with since.

    Parameters
    ----------
    folder
        The submission's.
    """
    return (folder / _MARK).exists()


def forget_cancelling(folder: Path) -> None:
    """Note that a submission goes on.

    Parameters
    ----------
    folder
        The submission's.
    """
    (folder / _MARK).unlink(missing_ok=True)
