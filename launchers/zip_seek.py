"""A mend for CPython's gh-128131, without which quantum graphs cannot be read on 3.12.0-3.12.8 and 3.13.0-3.13.1.

Belongs here: the one correction to `zipfile.ZipExtFile.seek`, applied when this module is imported and only on the
versions that need it. In those, a seek inside a stored member loses count of the bytes left, so that readers of ``.qg``
files, which jump about in them, see an early end (``EOFError`` in ``butler aggregate-graph``).
Doesn't: deciding who imports it. ``drp_zip_seek.pth``, installed beside the package, does so for every process of the
environment, among them the plain ``butler`` and ``pipetask`` that BPS starts at a site.
"""

from __future__ import annotations

import io
import sys
import zipfile


def is_affected(version: tuple[int, int, int]) -> bool:
    """Whether a CPython of this version has the fault."""
    return (3, 12, 0) <= version < (3, 12, 9) or (3, 13, 0) <= version < (3, 13, 2)


def _seek_stored(self: zipfile.ZipExtFile, offset: int, whence: int = io.SEEK_SET) -> int:
    """Seek in a member; exact for stored ones, where position in the member and in the file differ by a constant."""
    if self.closed or not self._seekable or self._compress_type != zipfile.ZIP_STORED or self._decrypter is not None:  # type: ignore[attr-defined]
        return _library_seek(self, offset, whence)
    size: int = self._orig_file_size  # type: ignore[attr-defined]
    base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: size}[whence]
    position = min(max(base + offset, 0), size)
    self._expected_crc = None  # type: ignore[attr-defined]
    self._fileobj.seek(self._orig_compress_start + position)  # type: ignore[attr-defined]
    self._left = size - position  # type: ignore[attr-defined]
    self._compress_left = self._orig_compress_size - position  # type: ignore[attr-defined]
    self._readbuffer, self._offset, self._eof = b"", 0, self._left <= 0  # type: ignore[attr-defined]
    return position


_library_seek = zipfile.ZipExtFile.seek
if is_affected(sys.version_info[:3]):
    zipfile.ZipExtFile.seek = _seek_stored  # type: ignore[method-assign]
