"""The files that a soak's messages announce: real raws, zips and dimensions, and products that share their contents.

Products of the same content are one file under many names (hard links), so that a million of them is a matter of
seconds; each of them is a file of its own to everybody who looks.

Belongs here: writing files, and what is announced about them. Doesn't: which files there are
(`benchmarks.soak.population`), or messages (`benchmarks.soak.messages`).
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
from lsst.daf.butler import DatasetRef

from benchmarks.soak.population import DETECTORS, DIMENSIONS, PRODUCT_RUN, Population, Product
from drp_tasks.camera import INSTRUMENT, OVERSCAN_PX
from simulator.header import observation_id, raw_file_name, raw_header, write_raw
from simulator.messages import DeliveredFile, FileKind
from simulator.source import SourceFacility, sidecar
from simulator.survey import Visit

SCOPE = "soak"
STORAGE_CLASS = "StructuredDataDict"
_CONTENTS = 16
_LINKS_A_FILE = 20_000
"""File systems allow some 65,000 names of one file."""

_BIAS_LEVEL_ADU = 1000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ExposureFiles:
    """What lies there of one exposure, besides products.

    Parameters
    ----------
    files
        Its dimensions, then its raws or its zip.
    raw_ids
        Datasets that those become.
    """

    files: tuple[DeliveredFile, ...]
    raw_ids: tuple[UUID, ...]


class SoakFiles:
    """All files of a soak.

    Parameters
    ----------
    population
        Which.
    folder
        Where: ``rucio/<scope>/<name>``, what the announced prefix stands for at the site.
    """

    def __init__(self, population: Population, folder: Path) -> None:
        self.population = population
        self.folder = folder
        self.rucio = folder / "rucio"
        self._exposures: list[ExposureFiles] = []
        self._contents = [f"content: {number}\n{'#' * number}\n".encode() for number in range(_CONTENTS)]
        self._links = 0

    def write(self, progress: Progress = lambda done, of: None) -> None:
        """Write all good files.

        Parameters
        ----------
        progress
            Told how many exposures are done, and of how many.
        """
        population = self.population
        survey = population.survey()
        source = SourceFacility(self.folder / "source", survey.skymap)
        raws = self.folder / "raws"
        raws.mkdir()
        pixels = np.full((survey.detector_px, survey.detector_px + OVERSCAN_PX), _BIAS_LEVEL_ADU, np.uint16)
        try:
            for exposure, visit in enumerate(population.visits):
                paths = [raws / raw_file_name(visit, detector) for detector in DETECTORS]
                for path, detector in zip(paths, DETECTORS, strict=True):
                    write_raw(path, pixels, raw_header(survey, visit, detector))
                refs = source.take(paths)
                self._exposures.append(self._deliver(exposure, visit, paths, refs, source))
                for role in range(population.raw_roles(exposure).stop, population.files(exposure)):
                    file = self.file(exposure, role)
                    self.place(file.name, self._content_of(exposure, role))
                progress(exposure + 1, population.exposures)
        finally:
            source.close()
        shutil.rmtree(self.folder / "source")
        shutil.rmtree(raws)

    def file(self, exposure: int, role: int) -> DeliveredFile:
        """Give one good file, as it is announced."""
        product = self.population.product(exposure, role)
        if product is None:
            return self._exposures[exposure].files[role]
        content = self._content_of(exposure, role)
        name = f"{folder_of(product.visit)}/{product.dataset_type}_{product.detector}.yaml"
        return described(FileKind.PRODUCT, name, content, product_sidecar(product))

    def raw_ids(self, exposure: int) -> Sequence[UUID]:
        """Datasets of an exposure's raws."""
        return self._exposures[exposure].raw_ids

    def place(self, name: str, content: bytes) -> None:
        """Put a file of some content under a name; contents that occur often are written once in a while."""
        path = self.rucio / SCOPE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content not in self._contents:
            path.write_bytes(content)
            return
        original = self.folder / "contents" / f"{self._contents.index(content)}-{self._links // _LINKS_A_FILE}"
        if not original.exists():
            original.parent.mkdir(exist_ok=True)
            original.write_bytes(content)
        os.link(original, path)
        self._links += 1

    def path(self, file: DeliveredFile) -> Path:
        """Where a file lies."""
        return self.rucio / file.scope / file.name

    def _content_of(self, exposure: int, role: int) -> bytes:
        return self._contents[(exposure + role) % _CONTENTS]

    def _deliver(
        self, exposure: int, visit: Visit, raws: Sequence[Path], refs: Sequence[DatasetRef], source: SourceFacility
    ) -> ExposureFiles:
        folder = self.rucio / SCOPE / folder_of(visit)
        folder.mkdir(parents=True)
        dimensions = folder / f"{observation_id(visit)}_dimensions.yaml"
        source.write_dimensions(refs, dimensions)
        files = [self._delivered(FileKind.DIMENSIONS, dimensions)]
        if self.population.is_zipped(exposure):
            archive = folder / f"{observation_id(visit)}.zip"
            source.write_zip(refs, archive)
            files.append(self._delivered(FileKind.ZIP, archive))
        else:
            for raw, ref in zip(raws, refs, strict=True):
                raw.rename(folder / raw.name)
                files.append(self._delivered(FileKind.RAW, folder / raw.name, sidecar(ref)))
        assert self.population.raw_roles(exposure).stop == len(files) > DIMENSIONS
        return ExposureFiles(tuple(files), tuple(ref.id for ref in refs))

    def _delivered(self, kind: FileKind, path: Path, reference: str = "") -> DeliveredFile:
        return described(kind, str(path.relative_to(self.rucio / SCOPE)), path.read_bytes(), reference)


def described(kind: FileKind, name: str, content: bytes, reference: str = "") -> DeliveredFile:
    """Describe a file truthfully, as it is announced.

    Parameters
    ----------
    kind, name
        What it is, and its DID's name.
    content
        What is in it.
    reference
        Its sidecar.
    """
    return DeliveredFile(
        kind=kind,
        scope=SCOPE,
        name=name,
        size=len(content),
        adler32=f"{zlib.adler32(content):08x}",
        md5="",
        sidecar=reference,
    )


def folder_of(visit: Visit) -> str:
    """Folder of an exposure's files below the scope's."""
    return f"{INSTRUMENT}/{visit.day_obs}/{observation_id(visit)}"


def product_sidecar(product: Product) -> str:
    """Give a product's dataset reference, as it travels with the file."""
    return json.dumps(
        {
            "id": str(product.dataset_id),
            "datasetType": {
                "name": product.dataset_type,
                "storageClass": STORAGE_CLASS,
                "dimensions": ["instrument", "detector", product.waits_for],
            },
            "dataId": {
                "dataId": {
                    "instrument": INSTRUMENT,
                    "detector": product.detector,
                    product.waits_for: product.visit.id,
                }
            },
            "run": PRODUCT_RUN,
        }
    )
