"""The folder of a soak, whatever it breaks.

Belongs here: making it, and never taking another one's for it. Doesn't: what a soak puts into it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = ".soak"


@contextmanager
def empty_folder(given: Path | None) -> Iterator[Path]:
    """Give an empty folder: a new one that is removed in the end, or one that stays.

    Parameters
    ----------
    given
        The one that stays; what an earlier soak has left in it is removed.

    Raises
    ------
    SystemExit
        It holds what no soak has put there.
    """
    if given is None:
        with tempfile.TemporaryDirectory(prefix="soak-") as made:
            yield Path(made)
        return
    if given.exists() and not (given / _MARK).exists() and (not given.is_dir() or any(given.iterdir())):
        raise SystemExit(f"--folder: {given} holds what no soak has put there; name a new or an empty folder")
    shutil.rmtree(given, ignore_errors=True)
    given.mkdir(parents=True)
    (given / _MARK).touch()
    yield given.resolve()
