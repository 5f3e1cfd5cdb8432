"""Short ways to folders, for the Unix sockets in them: the kernel takes no longer path than `SOCKET_PATH_BYTES`.

Belongs here: naming, making and removing them. Doesn't: what is in the folders.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from services.service import ServiceError

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket (``sun_path`` of unix(7), without its last zero)."""


def short_way(folder: Path, longest: int) -> Path:
    """Name a path of a folder under which its sockets have short enough paths: its own wherever that will do.

    Parameters
    ----------
    folder
        Which.
    longest
        Length of the longest name that a socket has in it, with subfolders.

    Raises
    ------
    services.service.ServiceError
        There is none: the folder for temporary files has a long path too.
    """
    folder = folder.absolute()
    if _fits(folder, longest):
        return folder
    way = _links() / hashlib.blake2s(os.fsencode(folder), digest_size=6).hexdigest()
    if not _fits(way, longest):
        raise ServiceError(f"{way}: too long a path for a socket below it; set TMPDIR to a folder with a short one")
    return way


def open_way(folder: Path, way: Path) -> None:
    """Make a way that `short_way` has named lead to its folder.

    Raises
    ------
    services.service.ServiceError
        Somebody else has made a folder where ours should be.
    """
    if way == folder.absolute():
        return
    way.parent.mkdir(mode=0o700, exist_ok=True)
    found = way.parent.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise ServiceError(f"{way.parent}: isn't a folder of ours; set TMPDIR to one where nobody else writes")
    new = way.with_name(f"{way.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(folder.absolute())
    new.replace(way)


def close_way(folder: Path, way: Path) -> None:
    """Remove a way, unless it is the folder's own path."""
    if way != folder.absolute():
        way.unlink(missing_ok=True)


def _links() -> Path:
    return Path(tempfile.gettempdir()) / f"drp-{os.getuid()}"


def _fits(folder: Path, longest: int) -> bool:
    return len(os.fsencode(folder)) + 1 + longest <= SOCKET_PATH_BYTES
