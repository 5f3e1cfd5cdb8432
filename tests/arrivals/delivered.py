"""A tiny survey as it is delivered, and a site that it arrives at: the world of the tests of ingest."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lsst.daf.butler import Butler, Config

from arrivals.ingest import IngestReport, ingest_pending
from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.records import LedgerRow, Partition, Reception
from drp_tasks.instrument import SimCam
from drp_tasks.skymap import register_skymap
from resources.errors import Rejected
from resources.site import ArrivalSettings, PathRule
from simulator.delivery import Delivery, simulate
from simulator.messages import Announcement, DeliveredFile, FileKind, Message, announce
from simulator.survey import Stream, Survey

PREFIX = Announcement().prefix
DETECTORS = (0, 1)
SURVEY = Survey(
    name="arrivals",
    detector_ids=DETECTORS,
    detector_px=64,
    bands=("r",),
    days=2,
    epochs_per_day=2,
    patches_per_side=1,
    stars_per_arcmin2=1.0,
    galaxies_per_arcmin2=0.0,
    transients=1,
    bias_frames=1,
    dark_frames=1,
    flat_frames=1,
    single_file_visits=1,
)
"""Four visits of two detectors: three travel as zips, one as single files."""


def deliver(folder: Path) -> Delivery:
    """Simulate the survey."""
    return simulate(SURVEY, folder)


def announced(files: Iterable[DeliveredFile], *, duplicates: float = 0.0) -> list[Message]:
    """Messages about these files in disorder, without other events."""
    how = Announcement(duplicate_share=duplicates, submitted_share=0.0)
    return list(announce(list(files), how, SURVEY.generator(Stream.MESSAGES)))


@dataclass
class ReceivingSite:
    """A site with an empty Butler and ledger."""

    butler: Butler
    ledger: Ledger
    settings: ArrivalSettings
    received: int = 0
    partition: Partition = field(default=Partition("cluster", "LAPTOP-raw", 0))

    def receive(self, messages: Iterable[Message | bytes]) -> None:
        """Put messages into the ledger as a drain would."""
        receptions = []
        for message in messages:
            value = message if isinstance(message, bytes) else message.value
            try:
                receptions.append(Reception(self.partition, self.received, parse_message(value)))
            except Rejected as rejected:
                receptions.append(Reception(self.partition, self.received, None, str(rejected)))
            self.received += 1
        self.ledger.record_batch(receptions, {self.partition: self.received})

    def ingest(self, day_obs: int | None = None) -> IngestReport:
        """Ingest what is pending."""
        return ingest_pending(self.butler, self.ledger, self.settings, day_obs)

    def remove_raws(self, **data_id: int) -> None:
        """Remove raws from the Butler; the files stay, and nobody tells the ledger."""
        raws = self.butler.query_datasets("raw", "SimCam/raw/all", instrument="SimCam", **data_id)
        self.butler.pruneDatasets(raws, disassociate=True, unstore=True, purge=True)

    def row(self, file: DeliveredFile) -> LedgerRow:
        """The last row of a file."""
        return self.ledger.find(scope=file.scope, name=file.name)[-1]

    def count(self, dataset_type: str) -> int:
        """Datasets of a type in the Butler."""
        refs = self.butler.query_datasets(dataset_type, collections="*", find_first=False, explain=False)
        return len(set(refs))

    def dimensions(self, element: str) -> int:
        """Records of an element in the Butler."""
        return len(self.butler.query_dimension_records(element, explain=False))


def make_repository(folder: Path, registry: str | None = None) -> Path:
    """Make a Butler that knows the instrument and the skymap; with SQLite inside, it can be copied for each test."""
    config = Config()
    if registry is not None:
        config["registry", "db"] = registry
    Butler.makeRepo(str(folder), config)
    with Butler.from_config(str(folder), writeable=True) as butler:
        SimCam().register(butler.registry)
        register_skymap(butler, SURVEY.skymap)
    return folder


def receiving_site(folder: Path, repository: Path, rucio: Path, **settings: object) -> ReceivingSite:
    """Make a site in a folder, with a copy of a repository, which sees announced files in the given Rucio folder."""
    shutil.copytree(repository, folder / "repo")
    return site_of(folder / "repo", f"sqlite:///{folder}/ledger.sqlite3", rucio, **settings)


def site_of(repository: Path, ledger: str, rucio: Path, **settings: object) -> ReceivingSite:
    """Make a site from a repository and a ledger's URL, which sees announced files in the given Rucio folder."""
    butler = Butler.from_config(str(repository), writeable=True)
    values: dict[str, object] = {
        "topics": "^LAPTOP-.*",
        "instrument": "drp_tasks.instrument.SimCam",
        "calibration_collection": "SimCam/calib",
        "paths": [PathRule(announced=PREFIX, local=str(rucio))],
        **settings,
    }
    return ReceivingSite(butler, Ledger(ledger), ArrivalSettings.model_validate(values))


def of_kind(delivery: Delivery, *kinds: FileKind) -> list[DeliveredFile]:
    """The delivery's files of some kinds."""
    return [file for file in delivery.files if file.kind in kinds]


def altered(
    delivery: Delivery, file: DeliveredFile, folder: Path, content: bytes | None = None, *, name: str = ""
) -> DeliveredFile:
    """A file of the delivery under another root or name, or with other content, truthfully announced."""
    path = folder / file.scope / (name or file.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = delivery.path(file).read_bytes() if content is None else content
    path.write_bytes(content)
    return replace(file, name=name or file.name, size=len(content), adler32=f"{zlib.adler32(content):08x}")


def with_sidecar(file: DeliveredFile, **changes: object) -> DeliveredFile:
    """A file whose sidecar has other values."""
    return replace(file, sidecar=json.dumps({**json.loads(file.sidecar), **changes}))
