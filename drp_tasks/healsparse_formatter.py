"""How the Butler stores a sparse HEALPix map: as the files of the ``healsparse`` package.

Belongs here: the formatter that a repository's configuration names for the storage class ``HealSparseMap``, where the
one of ``lsst.pipe.tasks`` isn't installed; both write the same files. Doesn't: making maps (`drp_tasks.property_maps`).
"""

from __future__ import annotations

from typing import Any

import healsparse
from lsst.daf.butler import FormatterV2
from lsst.resources import ResourcePath


class HealSparseMapFormatter(FormatterV2):
    """Read and write sparse HEALPix maps, whole, in part (``pixels``) or at lower resolution (``degrade_nside``)."""

    default_extension = ".hsp"
    supported_extensions = frozenset({".hsp", ".fit", ".fits"})
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the map, or its component ``coverage``."""
        if component == "coverage":
            return healsparse.HealSparseCoverage.read(path)
        parameters = self.file_descriptor.parameters or {}
        return healsparse.HealSparseMap.read(
            path, pixels=parameters.get("pixels"), degrade_nside=parameters.get("degrade_nside")
        )

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the map as FITS."""
        in_memory_dataset.write(uri.ospath, clobber=True)
