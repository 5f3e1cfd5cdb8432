"""How the Butler stores images where time is dearer than disk: the files of ``lsst.images``, without compression.

A repository's configuration chooses it for a storage class or a dataset type (``datastore.formatters``). Any reader of
``lsst.images`` reads its files. For 512 x 512 pixels the default takes five times as long, for half of the bytes.

Belongs here: that formatter. Doesn't: reading raws (`drp_tasks.raw_formatter`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from lsst.images.formatters import GenericFormatter

PLANES = ("image", "mask", "variance")


class UncompressedImageFormatter(GenericFormatter):
    """Write FITS files whose planes are plain image extensions."""

    supported_extensions: ClassVar[frozenset[str]] = frozenset({".fits"})

    def _get_compression_options(self) -> dict[str, Any]:
        return dict.fromkeys(PLANES)
