"""The announced file as it is seen from here: where it lies, and whether it is the file that was announced.

Belongs here: the site's path rules, and comparing size and checksum. Doesn't: what the file holds.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from lsst.daf.butler import Butler
from lsst.resources import ResourcePath

from resources.errors import Rejected, Retriable, Waiting
from resources.site import PathRule

SAMPLED_ONE_IN = 20
"""The sample is one file in so many; which ones depends on the DID alone."""

HEAD_BYTES = 64 * 2**10
"""How much of a file is read for its headers."""

_CHUNK_BYTES = 2**20

_CARD_BYTES = 80
"""Of a FITS header."""

_ORDINARY = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*", re.ASCII)
"""Paths of which nobody has to think twice: they climb nowhere, and no sign in them is written otherwise in a URI."""

Policy = Literal["always", "sample", "size"]
"""How closely files are looked at, beside their size: at the checksum of each, of a sample, or of none.

Whether a FITS file begins as one costs little more than its size, but on an object store a request more: it is looked
at in each file with the first two, and in a sample with the last.
"""


def locate(url: str, rules: Sequence[PathRule]) -> ResourcePath:
    """Where a replica is seen from here.

    Parameters
    ----------
    url
        As announced by Rucio.
    rules
        The site's prefixes; the longest that fits counts, and it fits only at the end of a folder's name.

    Raises
    ------
    resources.errors.Rejected
        The URL lies outside all prefixes, or tries to climb out of one.
    """
    for prefix, rule in _longest_first(tuple(rules)):
        if not url.startswith(prefix):
            continue
        rest = url[len(prefix) :].lstrip("/")
        if _ORDINARY.fullmatch(rest):
            folder = _folder(rule.local)
            return folder.replace(path=f"{folder.path}{rest}", forceDirectory=False)
        if not _is_plain(rest):
            raise Rejected(
                "is no plain path of a file below the prefix that this site maps", url, f"prefix: {rule.announced}"
            )
        return ResourcePath(f"{rule.local.rstrip('/')}/{rest}", forceDirectory=False)
    if url.startswith("file:"):
        raise Rejected("somebody put file:// before the URL", url, "announce it with the RSE's own prefix")
    mapped = ", ".join(rule.announced for rule in rules)
    raise Rejected("lies outside the prefixes that this site maps", url, f"mapped in arrivals.paths: {mapped}")


def folder_key(rule: PathRule) -> str:
    """The name by which files below a prefix wait for its folder."""
    return f"folder={rule.local}"


def is_away(rule: PathRule) -> bool:
    """Whether a prefix's own folder isn't there, or is as empty as the place of a mount that was lost."""
    folder = _folder(rule.local)
    if not folder.isLocal:
        return False
    try:
        with os.scandir(folder.ospath) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def lost_folder(url: str, rules: Sequence[PathRule]) -> LostFolder | None:
    """What a file that can't be reached has to wait for, if all that lies below its prefix is away."""
    for prefix, rule in _longest_first(tuple(rules)):
        if url.startswith(prefix):
            what = f"{rule.announced} is mapped to this folder, which is not there or empty"
            return LostFolder(what, folder_key(rule), "is it mounted?") if is_away(rule) else None
    return None


@lru_cache(maxsize=16)
def _longest_first(rules: tuple[PathRule, ...]) -> list[tuple[str, PathRule]]:
    """Rules and what a URL has to begin with, the longest first."""
    found = [(f"{rule.announced.rstrip('/')}/", rule) for rule in rules]
    return sorted(found, key=lambda pair: len(pair[0]), reverse=True)


@lru_cache(maxsize=64)
def _folder(local: str) -> ResourcePath:
    return ResourcePath(f"{local.rstrip('/')}/", forceDirectory=True)


def _is_plain(path: str) -> bool:
    climbs = {".", ".."} & set(unquote(path).replace("\\", "/").split("/"))
    return bool(path) and not path.endswith("/") and not climbs and not any(sign in path for sign in "?#")


class LostFolder(Waiting):
    """A file waits for all that lies below its prefix to come back."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that is here and is the announced one.

    Parameters
    ----------
    uri
        Where it is seen from here.
    beginning
        Its first `HEAD_BYTES`, of a file that isn't local and was read for its checksum anyway; else empty.
    """

    uri: ResourcePath
    beginning: bytes = b""

    def read(self, limit: int) -> bytes:
        """Everything that is in it.

        Raises
        ------
        resources.errors.Rejected
            It is larger than the limit.
        """
        size = self.uri.size()
        if size > limit:
            raise Rejected(f"is larger than {limit:,} bytes", str(self.uri))
        return self.beginning if self.beginning and len(self.beginning) == size else self.uri.read()

    @contextmanager
    def head(self) -> Iterator[ResourcePath]:
        """A local file that begins as this one does: itself, or the first `HEAD_BYTES` of what isn't local."""
        if self.uri.isLocal:
            yield self.uri
            return
        with tempfile.NamedTemporaryFile(suffix=self.uri.getExtension()) as copy:
            copy.write(self.beginning or self.uri.read(HEAD_BYTES))
            copy.flush()
            yield ResourcePath(copy.name, forceDirectory=False)


def verify(
    file: ResourcePath, *, size: int | None, adler32: str | None, policy: Policy, did: str, is_fits: bool = False
) -> Arrived:
    """Compare a file with what was announced, reading it at most once.

    Parameters
    ----------
    file
        Where it is seen from here.
    size, adler32
        As announced; what wasn't announced isn't compared.
    policy
        Whether the checksum is computed, and the beginning looked at. The size is always compared.
    did
        Decides whether it is in the sample.
    is_fits
        Whether it has to begin as FITS files do.

    Returns
    -------
    arrived
        The file, with what was kept of it.

    Raises
    ------
    resources.errors.Retriable
        The file isn't there.
    resources.errors.Rejected
        It is another file, or damaged.
    """
    in_sample = not zlib.crc32(did.encode()) % SAMPLED_ONE_IN
    expected = adler32 if policy == "always" or (policy == "sample" and in_sample) else None
    looks_at_beginning = is_fits and (policy != "size" or in_sample)
    try:
        if file.isLocal:
            _verify_local(file, size, expected, looks_at_beginning)
            return Arrived(file)
        return Arrived(file, _verify_remote(file, size, expected, looks_at_beginning))
    except FileNotFoundError as error:
        raise Retriable("file is not there", str(file), "is the file system mounted, or the replica gone?") from error


def _verify_local(file: ResourcePath, size: int | None, adler32: str | None, is_fits: bool) -> None:
    """Verify by the fewest calls to the system: each lets another thread run, which may keep this one waiting."""
    if adler32 is None and not is_fits:
        _compare_sizes(file, _regular_size(file, Path(file.ospath).stat()), size)
        return
    descriptor = os.open(file.ospath, os.O_RDONLY | os.O_NONBLOCK)  # for a pipe too: it is refused a line later
    try:
        left = _regular_size(file, os.fstat(descriptor))
        _compare_sizes(file, left, size)
        chunk = beginning = os.read(descriptor, _CARD_BYTES if adler32 is None else min(left, _CHUNK_BYTES))
        checksum = 1
        while adler32 is not None and chunk:
            checksum = zlib.adler32(chunk, checksum)
            left -= len(chunk)
            chunk = os.read(descriptor, min(left, _CHUNK_BYTES)) if left else b""
    finally:
        os.close(descriptor)
    if adler32 is not None:
        _compare_checksums(file, checksum, adler32)
    if is_fits:
        _compare_beginning(file, beginning)


def _verify_remote(file: ResourcePath, size: int | None, adler32: str | None, is_fits: bool) -> bytes:
    """Verify what isn't local, and keep its beginning if it was read."""
    _compare_sizes(file, file.size(), size)
    if adler32 is None:
        if is_fits:
            _compare_beginning(file, file.read(_CARD_BYTES))
        return b""
    checksum, beginning = 1, b""
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            checksum = zlib.adler32(chunk, checksum)
            beginning = beginning or chunk[:HEAD_BYTES]
    _compare_checksums(file, checksum, adler32)
    if is_fits:
        _compare_beginning(file, beginning)
    return beginning


def _regular_size(file: ResourcePath, found: os.stat_result) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise Rejected("is no file", str(file))
    return found.st_size


def _compare_sizes(file: ResourcePath, found: int, announced: int | None) -> None:
    if announced is not None and found != announced:
        raise Rejected(f"has {found:,} bytes, but {announced:,} were announced", str(file), "have it transferred again")


def _compare_checksums(file: ResourcePath, found: int, announced: str) -> None:
    if f"{found:08x}" != announced:
        raise Rejected(
            f"has adler32 {found:08x}, but {announced} was announced", str(file), "have it transferred again"
        )


def _compare_beginning(file: ResourcePath, beginning: bytes) -> None:
    if not beginning.startswith(b"SIMPLE  ="):
        raise Rejected(
            "the header can't be read: it doesn't begin as a FITS file does", str(file), "have it transferred again"
        )


def transfer_mode(butler: Butler, files: Iterable[ResourcePath]) -> Literal["direct", "split"] | None:
    """How files are taken over without a copy: none in the Butler's own root, ``direct`` elsewhere, else ``split``.

    Butler's own ``split`` would do for all, but looks at each file for as long as everything else takes.
    """
    roots = tuple(str(root) for root in butler.get_datastore_roots().values() if root is not None)
    inside = {str(file).startswith(roots) for file in files}
    if len(inside) > 1:
        return "split"
    return None if inside == {True} else "direct"
