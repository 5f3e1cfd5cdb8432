"""What a release was made by and from: its collections, software versions and configurations.

Belongs here: reading these from the Butler, and one digest of all configurations. Doesn't: which quanta failed
(`launchers` know), or presenting it (`validation.report`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lsst.daf.butler import Butler, CollectionType, MissingDatasetTypeError


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a release was made by and from.

    Parameters
    ----------
    collection
        The release's chain.
    runs
        RUN collections in it, newest first.
    inputs
        Its TAGGED and CALIBRATION collections.
    pipeline
        The pipeline's file.
    packages
        Version of each software package, of the newest run that recorded them.
    configurations
        How many task configurations were recorded.
    configuration_digest
        16 hex digits that are the same for two releases if and only if their tasks' configurations are; empty if none
        was recorded.
    """

    collection: str
    runs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    pipeline: str = ""
    packages: Mapping[str, str] | None = None
    configurations: int = 0
    configuration_digest: str = ""

    @property
    def lsst_packages(self) -> Mapping[str, str]:
        """The packages of the survey's own software."""
        return {
            name: v for name, v in sorted((self.packages or {}).items()) if name.startswith(("lsst", "daf_", "pipe_"))
        }


def read_provenance(butler: Butler, collection: str, pipeline: str = "") -> Provenance:
    """Read what the Butler knows of how a release was made.

    Parameters
    ----------
    butler
        Of the repository.
    collection
        The release's chain.
    pipeline
        The pipeline's file, as the release names it.
    """
    info = butler.collections.query_info(collection, flatten_chains=True, include_summary=True)
    runs = tuple(entry.name for entry in info if entry.type is CollectionType.RUN)
    inputs = tuple(entry.name for entry in info if entry.type is not CollectionType.RUN)
    types = {str(name) for entry in info for name in entry.dataset_types or ()}
    texts = []
    for name in sorted(name for name in types if name.endswith("_config")):
        for ref in butler.query_datasets(name, collection, find_first=False, explain=False, limit=None):
            texts.append((name, butler.get(ref).saveToString()))
    return Provenance(
        collection, runs, inputs, pipeline, _packages(butler, collection), len(texts), configuration_digest(texts)
    )


def configuration_digest(configurations: Iterable[tuple[str, str]]) -> str:
    """Boil configurations down to 16 hex digits, whatever their order and however often the same one was used.

    Parameters
    ----------
    configurations
        Task and text.

    Returns
    -------
    str
        Empty if there are none.
    """
    distinct = sorted(set(configurations))
    if not distinct:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for task, text in distinct:
        for part in (task, text):
            content = part.encode()
            digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _packages(butler: Butler, collection: str) -> Mapping[str, str]:
    try:
        found = butler.query_datasets("packages", collection, explain=False)
    except MissingDatasetTypeError:
        return {}
    return {str(name): str(version) for name, version in sorted(butler.get(found[0]).items())} if found else {}
