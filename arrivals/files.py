"""The announced file as it is seen from here: where it lies, and whether it is the file that was announced.

Belongs here: the site's path rules, and comparing size and checksum. Doesn't: what the file holds.
"""

from __future__ import annotations

import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from lsst.daf.butler import Butler
from lsst.resources import ResourcePath

from resources.errors import Rejected, Retriable
from resources.site import PathRule

SAMPLED_ONE_IN = 20
"""With the policy ``sample``, the checksum of one file in so many is computed; which ones depends on the DID alone."""

HEAD_BYTES = 64 * 2**10
"""How much of a file is read for its headers."""

_CHUNK_BYTES = 2**20

Policy = Literal["always", "sample", "size"]


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
    for rule in sorted(rules, key=lambda rule: len(rule.announced), reverse=True):
        prefix = rule.announced.rstrip("/")
        if not url.startswith(f"{prefix}/"):
            continue
        rest = url[len(prefix) :].lstrip("/")
        if not _is_plain(rest):
            raise Rejected("is no plain path of a file below the prefix that this site maps", url, f"prefix: {prefix}")
        return ResourcePath(f"{rule.local.rstrip('/')}/{rest}", forceDirectory=False)
    if url.startswith("file:"):
        raise Rejected("somebody put file:// before the URL", url, "announce it with the RSE's own prefix")
    mapped = ", ".join(rule.announced for rule in rules)
    raise Rejected("lies outside the prefixes that this site maps", url, f"mapped in arrivals.paths: {mapped}")


def _is_plain(path: str) -> bool:
    climbs = {".", ".."} & set(unquote(path).replace("\\", "/").split("/"))
    return bool(path) and not path.endswith("/") and not climbs and not any(sign in path for sign in "?#")


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


def verify(file: ResourcePath, *, size: int | None, adler32: str | None, policy: Policy, did: str) -> Arrived:
    """Compare a file with what was announced, reading it at most once.

    Parameters
    ----------
    file
        Where it is seen from here.
    size, adler32
        As announced; what wasn't announced isn't compared.
    policy
        Whether the checksum is computed always, for a sample, or never. The size is always compared.
    did
        Decides whether it is in the sample.

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
    try:
        found = _size(file)
    except FileNotFoundError as error:
        raise Retriable("file is not there", str(file), "is the file system mounted, or the replica gone?") from error
    if size is not None and found != size:
        raise Rejected(f"has {found:,} bytes, but {size:,} were announced", str(file), "have it transferred again")
    if adler32 is None or policy == "size" or (policy == "sample" and zlib.crc32(did.encode()) % SAMPLED_ONE_IN):
        return Arrived(file)
    computed, beginning = _read_through(file)
    if computed != adler32:
        raise Rejected(f"has adler32 {computed}, but {adler32} was announced", str(file), "have it transferred again")
    return Arrived(file, b"" if file.isLocal else beginning)


def _size(file: ResourcePath) -> int:
    if not file.isLocal:
        return file.size()
    found = Path(file.ospath).stat()
    if not stat.S_ISREG(found.st_mode):
        raise Rejected("is no file", str(file))
    return found.st_size


def _read_through(file: ResourcePath) -> tuple[str, bytes]:
    """The adler32 of a file and its beginning, in one pass."""
    checksum, beginning = 1, b""
    with Path(file.ospath).open("rb", buffering=0) if file.isLocal else file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            checksum = zlib.adler32(chunk, checksum)
            beginning = beginning or chunk[:HEAD_BYTES]
    return f"{checksum:08x}", beginning


def transfer_mode(butler: Butler, files: Iterable[ResourcePath]) -> Literal["direct", "split"] | None:
    """How files are taken over without a copy: none in the Butler's own root, ``direct`` elsewhere, else ``split``.

    Butler's own ``split`` would do for all, but looks at each file for as long as everything else takes.
    """
    roots = tuple(str(root) for root in butler.get_datastore_roots().values() if root is not None)
    inside = {str(file).startswith(roots) for file in files}
    if len(inside) > 1:
        return "split"
    return None if inside == {True} else "direct"
