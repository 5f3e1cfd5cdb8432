"""Python's collector of cyclic garbage, while thousands of objects are made that have no cycles.

Each full collection looks at everything that was ever imported, and so many new objects bring on one after the other:
that took a quarter of the time in which files were ingested.

Belongs here: having it look at what is new only. Doesn't: whose objects these are.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_at_work: set[object] = set()


@contextmanager
def only_new_objects_collected() -> Iterator[None]:
    """Leave what there is now alone, until the last of those threads is done that ask for it."""
    one = object()
    with _lock:
        _at_work.add(one)
        gc.freeze()
    try:
        yield
    finally:
        with _lock:
            _at_work.remove(one)
            if not _at_work:
                gc.unfreeze()
