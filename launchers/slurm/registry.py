"""Which workflows a user has submitted, for questions that name none.

Belongs here: the file in the user's home with their folders, one a line. Doesn't: what is known of a workflow
(`launchers.slurm.store`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launchers.slurm.store import JobStore, Unreadable

_LOG = logging.getLogger(__name__)


def note(submit_path: Path) -> None:
    """Remember a submission."""
    registry = _registry()
    try:
        registry.parent.mkdir(parents=True, exist_ok=True)
        with registry.open("a", encoding="utf-8") as lines:
            lines.write(f"{submit_path}\n")
    except OSError:
        return  # Only ``bps report`` without an id needs it: an unwritable home is no reason not to run.


def noted() -> Iterator[JobStore]:
    """Give the workflows that were submitted and whose folders are still there."""
    try:
        lines = dict.fromkeys(_registry().read_text(encoding="utf-8").splitlines())
    except OSError:
        return
    for line in lines:
        store = JobStore(Path(line))
        with passing_over():
            if store.exists:
                yield store


@contextmanager
def passing_over() -> Iterator[None]:
    """Go on without a workflow whose record can't be read, and say so."""
    try:
        yield
    except (Unreadable, OSError) as error:
        _LOG.warning("%s; it is passed over", error)


def _registry() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "lsst-slurm-wms" / "submissions"
