"""A submission's folder that can't be written to, said in one line.

Belongs here: turning what the operating system says of files into what an operator can mend. Doesn't: a WMS service's
own folder (each plugin says that itself), or the Butler's files.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.errors import SiteFault

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def is_folder_fault(error: OSError) -> bool:
    """Whether the operating system refuses to write, whatever is written.

    Parameters
    ----------
    error
        What it has said.
    """
    return error.errno in _FULL | _CLOSED


def folder_fault(error: OSError, folder: Path | str) -> SiteFault:
    """Say what is wrong, where, and how to mend it.

    Parameters
    ----------
    error
        What writing led to.
    folder
        Where, if the error doesn't say.
    """
    where = str(error.filename or folder)
    if error.errno in _FULL:
        return SiteFault("there is no space left", where, "make room there, then re-execute the run")
    return SiteFault(
        f"it cannot be written: {error.strerror or error}",
        where,
        "see its mode and owner, or `state` in the site profile, then re-execute the run",
    )


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one line why files can't be written.

    Parameters
    ----------
    folder
        Where they are.

    Raises
    ------
    resources.errors.SiteFault
        They can't.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and not is_folder_fault(error):
            raise  # a connection's, not a file's
        raise folder_fault(error, folder) from error
