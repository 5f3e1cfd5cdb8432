"""Whatever is announced ends as a row with a state and a reason that a person understands; nothing stops the rest.

All of it comes in one shuffled batch with a good delivery, at a laptop's databases and at a site's. The reasons are
what operators read: they stand here in full.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lsst.daf.butler import DatasetType

from arrivals.records import LedgerRow
from arrivals.states import State
from simulator.delivery import Delivery
from simulator.messages import DeliveredFile, FileKind
from tests.arrivals.delivered import (
    DETECTORS,
    PREFIX,
    ReceivingSite,
    altered,
    announced,
    deliver,
    make_repository,
    of_kind,
    site_of,
    with_sidecar,
)

FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures" / "hermes"
AGAIN = "have it transferred again"
MISSING = "file is not there; is the file system mounted, or the replica gone?"
OUTSIDE = (
    "lies outside the prefixes that this site maps; mapped in arrivals.paths: root://xrootd.laptop:1094//rucio, "
    "root://xrootd.laptop:1094//rucio/bad, root://xrd5:1098//rucio"
)
NOT_PLAIN = (
    "is no plain path of a file below the prefix that this site maps; prefix: root://xrootd.laptop:1094//rucio/bad"
)
EARLY = 2026110200002
"""The exposure of which the dimensions haven't come."""

BAD = "bad"
"""The scope of what is bad, whose files lie apart."""

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Case:
    """A message that isn't good, and what becomes of it."""

    message: bytes
    state: State
    reason: str


REPEATED = ("same DID with other content", "announced twice", "raw from another file", "zip from another file")


def received(site: ReceivingSite, cases: dict[str, Case], good: list[bytes]) -> dict[str, LedgerRow]:
    """Receive everything in one shuffled batch, ingest, and give the rows of the cases by their names."""
    batch = [(name, case.message) for name, case in cases.items()] + [("", message) for message in good]
    random.Random(4).shuffle(batch)
    # What repeats something comes after it, wherever chance has put the others.
    batch.sort(key=lambda item: item[0] in REPEATED)
    site.receive([message for _, message in batch])
    site.ingest()
    rows = {row.offset: row for row in site.ledger.find(limit=10_000)}
    return {name: rows[offset] for offset, (name, _) in enumerate(batch) if name}


@pytest.fixture(scope="module")
def delivery(tmp_path_factory) -> Delivery:
    return deliver(tmp_path_factory.mktemp("survey") / "survey")


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request, tmp_path, delivery) -> ReceivingSite:
    """A site that takes known dataset types only, with Butler and ledger in either database."""
    registry, ledger = None, f"sqlite:///{tmp_path}/ledger.sqlite3"
    if request.param == "postgresql":
        server, new_database = request.getfixturevalue("postgresql"), request.getfixturevalue("new_database")
        registry, ledger = server.url(new_database(), None), server.url(new_database())
    repository = make_repository(tmp_path / "repo", registry)
    rules = [(PREFIX, delivery.rucio_folder), (f"{PREFIX}/{BAD}", tmp_path / BAD)]
    rules.append(("root://xrd5:1098//rucio", tmp_path / "xrd5"))
    made = site_of(
        repository,
        ledger,
        delivery.rucio_folder,
        register_dataset_types=False,
        paths=[{"announced": prefix, "local": str(folder)} for prefix, folder in rules],
    )
    for file in of_kind(delivery, FileKind.PRODUCT):
        defined = json.loads(file.sidecar)["datasetType"]
        made.butler.registry.registerDatasetType(
            DatasetType(
                defined["name"],
                defined["dimensions"],
                defined["storageClass"],
                universe=made.butler.dimensions,
                isCalibration=defined.get("isCalibration", False),
            )
        )
    yield made
    made.butler.close()
    made.ledger.close()


class Bad:
    """Makes bad messages and files from good ones, each file under a name of its own."""

    def __init__(self, delivery: Delivery, folder: Path) -> None:
        self.delivery = delivery
        self.folder = folder
        self.raw, _ = of_kind(delivery, FileKind.RAW)
        self.zip, self.blind, self.early = of_kind(delivery, FileKind.ZIP)
        self.dimensions = of_kind(delivery, FileKind.DIMENSIONS)[0]
        self.product = of_kind(delivery, FileKind.PRODUCT)[0]

    def file(self, like: DeliveredFile, name: str, content: bytes | None = None) -> DeliveredFile:
        """A file with other content, truthfully announced."""
        path = self.delivery.path(like)
        written = path.read_bytes() if content is None else content
        return altered(self.delivery, replace(like, scope=BAD), self.folder, written, name=name)

    def content(self, like: DeliveredFile) -> bytes:
        return self.delivery.path(like).read_bytes()

    def of_type(self, file: str, **changes: object) -> DeliveredFile:
        """A product whose dataset type is another."""
        defined = json.loads(self.product.sidecar)["datasetType"]
        return with_sidecar(self.file(self.product, file), datasetType={**defined, **changes})


def message(file: DeliveredFile, **payload: object) -> bytes:
    """The announcement of a file, with other values in its payload."""
    [made] = announced([file])
    value = json.loads(made.value)
    value["payload"] |= {key.replace("_", "-") if key == "dst_url" else key: item for key, item in payload.items()}
    return json.dumps(value).encode()


def rezipped(content: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """A zip some of whose files are changed, or left out."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            changed = change(name, source.read(name))
            if changed is not None:
                target.writestr(name, changed)
    return made.getvalue()


def no_messages(bad: Bad) -> dict[str, Case]:
    """What can't be understood at all."""
    raw = message(bad.raw)
    return {
        "empty": Case(b"", State.QUARANTINED, "message is empty"),
        "not JSON": Case(
            b"{event_type: transfer-done}",
            State.QUARANTINED,
            "message: is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        "not UTF-8": Case(
            raw.replace(b"transfer-done", b"transfer\xff"), State.QUARANTINED, "message is not UTF-8 (byte 24)"
        ),
        "cut in the middle": Case(
            raw[: len(raw) // 2], State.QUARANTINED, "message: is not JSON: Unterminated string starting at: …"
        ),
        "a list": Case(b"[1, 2]", State.QUARANTINED, "message is a list, not an object"),
        "10 MB": Case(
            message(bad.raw, reason="x" * 10_000_000),
            State.QUARANTINED,
            "message has 10,001,740 bytes, and no Hermes message is larger than 1,048,576",
        ),
        "unknown rubin_butler": Case(
            message(bad.raw, rubin_butler="sausage"),
            State.QUARANTINED,
            "rubin_butler: unknown value 'sausage'; known: data_product, raw_file, zip_file, dim_file",
        ),
        "no sidecar": Case(
            message(bad.product, rubin_sidecar=None),
            State.QUARANTINED,
            f"{bad.product.name}: a product without rubin_sidecar can't be named in the Butler",
        ),
        "sidecar is no reference": Case(
            message(bad.product, rubin_sidecar="{}"),
            State.QUARANTINED,
            "rubin_sidecar: lacks the object 'datasetType'",
        ),
        "no name": Case(message(bad.raw, name=None), State.QUARANTINED, "name: is missing"),
    }


def real_messages(bad: Bad) -> dict[str, Case]:
    """Messages of a real facility, at a site that takes another instrument, with files as their names promise."""
    if not FIXTURES.is_dir():
        return {}
    [real] = FIXTURES.glob("visitSummary*.fits")
    files = bad.folder / "xrd5"
    files.mkdir()
    shutil.copy(FIXTURES / "prep.yaml", files)
    shutil.copy(real, files)
    (files / "data.fits").write_bytes(real.read_bytes()[:1000])
    (files / "bad_data.fits").write_bytes(bytes(reversed(real.read_bytes())))

    def case(name: str, state: State, reason: str) -> Case:
        return Case((FIXTURES / f"{name}.json").read_bytes(), state, reason)

    return {
        "legacy, without sidecar": case(
            "nosidecar",
            State.QUARANTINED,
            "srp/data/calexp_HSC_y_HSC-Y_330_1_54_HSC_runs_RC2_w_2023_32_DM-40356_20230812T080035Z.fits: "
            "rubin_butler doesn't say what this is, and there is no rubin_sidecar",
        ),
        "legacy, from an RSE that isn't mapped": case(
            "backup",
            State.QUARANTINED,
            "root://xrd2:1095//rucio/test/srp/data/calexp_HSC_y_HSC-Y_330_1_54_HSC_runs_RC2_w_2023_32_DM-40356_"
            f"20230812T080035Z.fits: {OUTSIDE}",
        ),
        "truncated": case(
            "truncated",
            State.QUARANTINED,
            f"file://{files}/data.fits: has 1,000 bytes, but 1,365,120 were announced; {AGAIN}",
        ),
        "truncated to the announced size": case(
            "truncated2",
            State.QUARANTINED,
            f"file://{files}/bad_data.fits: has adler32 2797efdc, but 3210cb3f was announced; {AGAIN}",
        ),
        "dimensions with another file's checksum": case(
            "dim_message",
            State.QUARANTINED,
            f"file://{files}/prep.yaml: has 50,682 bytes, but 14,912,640 were announced; {AGAIN}",
        ),
        "another instrument's product": case(
            "message330", State.QUARANTINED, "rubin_sidecar: is of HSC, but this site takes SimCam"
        ),
        "another instrument's raw, missing": case(
            "raw_message", State.WAITING, f"file://{files}/AT_O_20250113_000004_R00_S00.fits: {MISSING}"
        ),
        "another instrument's product, missing": case(
            "message",
            State.WAITING,
            f"file://{files}/visitSummary_HSC_y_HSC-Y_328_HSC_runs_RC2_w_2023_32_DM-40356_20230814T170253Z.fits: "
            f"{MISSING}",
        ),
    }


def bad_places(bad: Bad) -> dict[str, Case]:
    """URLs that this site doesn't map, and files that aren't there."""
    file = bad.file(bad.raw, "somewhere.fits")

    def at(url: str, reason: str) -> Case:
        name = f"{zlib.crc32(url.encode())}.fits"
        return Case(message(replace(file, name=name), dst_url=url), State.QUARANTINED, f"{url}: {reason}")

    return {
        "climbs": at(f"{PREFIX}/{BAD}/../../etc/passwd", NOT_PLAIN),
        "climbs in disguise": at(f"{PREFIX}/{BAD}/%2e%2e/%2E%2e/etc/passwd", NOT_PLAIN),
        "a folder": at(f"{PREFIX}/{BAD}/", NOT_PLAIN),
        "another scheme": at(f"https{PREFIX.removeprefix('root')}/{BAD}/somewhere.fits", OUTSIDE),
        "a local path": at("/etc/passwd", OUTSIDE),
        "stray file://": at(
            f"file://{PREFIX}/{BAD}/somewhere.fits",
            "somebody put file:// before the URL; announce it with the RSE's own prefix",
        ),
        "missing": Case(
            message(replace(file, name="missing.fits")),
            State.WAITING,
            f"file://{bad.folder}/{BAD}/missing.fits: {MISSING}",
        ),
    }


def bad_files(bad: Bad) -> dict[str, Case]:
    """Files that are not the announced ones, or no good although they are."""
    header, zipped = bad.content(bad.raw), bad.content(bad.zip)
    only_fits = rezipped(zipped, lambda name, content: content if name.endswith("fits") else None)
    hollow = rezipped(zipped, lambda name, content: None if "S00" in name else content)
    pink = bad.content(bad.dimensions).replace(b"physical_filter: r_57", b"physical_filter: pink")
    pink = pink.replace(b"id: 2026110100001", b"id: 2026110100077").replace(b"SC_S_20261101_000001", b"SC_S_77")
    half = bad.content(bad.dimensions).replace(b"- type: dimension", b'- type: "\\ud800"')

    def case(like: DeliveredFile, name: str, content: bytes, reason: str, **announced: object) -> Case:
        file = replace(bad.file(like, name, content), **announced)
        return Case(message(file), State.QUARANTINED, f"file://{bad.folder}/{BAD}/{name}: {reason}")

    unreadable = "the header can't be read"
    return {
        "truncated file": case(
            bad.raw, "short.fits", header[:-100],
            f"has 17,180 bytes, but 17,280 were announced; {AGAIN}", size=len(header),
        ),
        "wrong checksum": case(
            bad.raw, "bits.fits", b"bits",
            f"has adler32 042201b3, but 12345678 was announced; {AGAIN}", adler32="12345678",
        ),
        "header unreadable": case(
            bad.raw, "noise.fits", header[:80] * 20, f"{unreadable}: Not a FITS file: its header has no end."
        ),
        "first bytes overwritten": case(
            bad.raw, "over.fits", b"x" * 80 + header[80:],
            f"{unreadable}: it doesn't begin as a FITS file does; {AGAIN}",
        ),
        "no data": case(bad.raw, "empty.fits", b"", f"{unreadable}: it doesn't begin as a FITS file does; {AGAIN}"),
        "header of another instrument": case(
            bad.raw, "other.fits", header.replace(b"'SimCam  '", b"'LSSTCam '"),
            f"{unreadable}: Not a raw of SimCam: INSTRUME is 'LSSTCam'.",
        ),
        "header with a detector that isn't": case(
            bad.raw, "detector.fits", header.replace(b"'S00     '", b"'S77     '"),
            "the header names no detector of SimCam",
        ),
        "no zip": case(bad.zip, "no.zip", b"PK no", "is no Butler zip: File is not a zip file"),
        "zip cut short": case(bad.zip, "cut.zip", zipped[:-5000], "is no Butler zip: File is not a zip file"),
        "zip without an index": case(
            bad.zip, "bare.zip", only_fits,
            "is no Butler zip: There is no item named '_butler_zip_index.json' in the archive",
        ),
        "zip without one of its files": case(
            bad.zip, "hollow.zip", hollow, "lacks 1 of the files that its index lists, such as …"
        ),
        "no YAML": case(bad.dimensions, "x_dimensions.yaml", b"a: [\n", "is not YAML: while parsing a flow node …"),
        "no dimensions": case(
            bad.dimensions, "y_dimensions.yaml", b"- 1\n",
            "is no export of dimension records (list indices must be integers or slices, not str)",
        ),
        "dimensions that are no Unicode": case(
            bad.dimensions, "w_dimensions.yaml", half,
            "is no export of dimension records (Unexpected dictionary type: …",
        ),
        "dimensions with an unknown filter": case(
            bad.dimensions, "z_dimensions.yaml", pink, "needs records that neither it nor the Butler has: …"
        ),
    }  # fmt: skip


def bad_sidecars(bad: Bad) -> dict[str, Case]:
    """Sidecars that this Butler can't agree with."""
    other_type = "DatasetType('bias', {{instrument{}}}, ImageV2, isCalibration=True)"
    nobody = "00000000-0000-0000-0000-000000000000"

    def case(file: DeliveredFile, reason: str) -> Case:
        return Case(message(file), State.QUARANTINED, reason)

    def at(name: str, **data_id: object) -> DeliveredFile:
        return with_sidecar(bad.file(bad.product, name), dataId={"instrument": "SimCam", **data_id})

    return {
        "unknown dataset type": case(
            bad.of_type("type", name="sausage"),
            "sausage: unknown dataset type; register it, or set arrivals.register_dataset_types",
        ),
        "unknown storage class": case(
            bad.of_type("class", storageClass="Sausage"), "bias: unknown storage class Sausage"
        ),
        "wrong storage class": case(
            bad.of_type("table", storageClass="ArrowAstropy"),
            "bias: storage class ArrowAstropy was announced, which is no ImageV2 as registered",
        ),
        "wrong dimensions": case(
            bad.of_type("dimensions", dimensions=["instrument"]),
            f"bias: dataset type was announced as {other_type.format('')}, "
            f"but is registered as {other_type.format(', detector')}",
        ),
        "another instrument's": case(
            at("instrument", instrument="LATISS", detector=0),
            "rubin_sidecar: is of LATISS, but this site takes SimCam",
        ),
        "detector that isn't": case(at("number", detector=77), "rubin_sidecar: SimCam has no detector 77"),
        "detector beyond all": case(at("huge", detector=2**40), "rubin_sidecar: SimCam has no detector 1099511627776"),
        "detector by name": case(
            at("name", detector="S00"), "rubin_sidecar: the data ID's detector is 'S00', not of type int"
        ),
        "lacks the detector": case(at("lacking"), "rubin_sidecar: the data ID lacks detector"),
        "raw with another instrument's": case(
            with_sidecar(
                bad.file(bad.raw, "latiss.fits"),
                dataId={"instrument": "LATISS", "detector": 0, "exposure": 2025011300004},
            ),
            "rubin_sidecar: is of LATISS, but this site takes SimCam",
        ),
        "raw under another id": case(
            with_sidecar(bad.file(bad.raw, "id.fits"), id=nobody),
            f"file://{bad.folder}/{BAD}/id.fits: was announced as dataset {nobody} of run SimCam/raw/all, "
            "but as a raw of SimCam in SimCam/raw/all it is b9386511-858f-5a0d-bb4f-212bf67f0345",
        ),
    }


def oddities(bad: Bad) -> dict[str, Case]:
    """What can be dealt with and is worth a remark, and what waits."""
    again = of_kind(bad.delivery, FileKind.RAW)[1]
    blind = rezipped(bad.content(bad.blind), lambda name, content: b"noise" if "S01" in name else content)
    return {
        "same DID with other content": Case(
            message(replace(bad.product, size=5, adler32="00000001")),
            State.QUARANTINED,
            "the same DID was announced with other content before: "
            f"{bad.product.size} bytes, adler32 {bad.product.adler32}, now 5 bytes, adler32 00000001",
        ),
        "announced twice": Case(message(bad.product), State.DUPLICATE, "announced before"),
        "raw from another file": Case(
            message(bad.file(again, "again.fits")),
            State.DUPLICATE,
            f"file://{bad.folder}/{BAD}/again.fits: the Butler has this dataset from another file: "
            f"file://{bad.delivery.path(again)}",
        ),
        "zip from another file": Case(
            message(bad.file(bad.zip, "again.zip")),
            State.DUPLICATE,
            f"file://{bad.folder}/{BAD}/again.zip: the Butler has these datasets from other files, "
            f"such as file://{bad.delivery.path(bad.zip)}",
        ),
        "zip with an unreadable member": Case(
            message(bad.file(bad.blind, "blind.zip", blind)),
            State.INGESTED,
            "ingested, but the headers of 1 of its 2 members can't be read: "
            "detector 1 (Not a FITS file: its header has no end.)",
        ),
        "zip without dimensions": Case(
            message(bad.file(bad.early, "early.zip")),
            State.WAITING,
            f"instrument=SimCam,exposure={EARLY}: waits for its dimensions",
        ),
        "from the future": Case(
            message(bad.file(bad.dimensions, "f_dimensions.yaml"), transferred_at="2099-01-01 00:00:00"),
            State.INGESTED,
            "ingested, but its message comes from the future: transferred at 2099-01-01 00:00 UTC",
        ),
    }


def all_cases(bad: Bad) -> dict[str, Case]:
    return {
        name: case
        for group in (no_messages, real_messages, bad_places, bad_files, bad_sidecars, oddities)
        for name, case in group(bad).items()
    }


def test_all_that_is_bad_says_why_and_all_that_is_good_is_in(site, delivery, tmp_path):
    bad = Bad(delivery, tmp_path)
    cases = all_cases(bad)
    early = bad.early.name.removesuffix(".zip")
    good = [file for file in delivery.files if file is not bad.blind and not file.name.startswith(early)]

    rows = received(site, cases, [message.value for message in announced(good, duplicates=0.2)])

    found = {name: (row.state, row.reason) for name, row in rows.items()}
    expected = {
        name: (case.state, found[name][1] if is_said(found[name][1], case.reason) else case.reason)
        for name, case in cases.items()
    }
    assert found == expected
    assert {site.row(file).name for file in good if file_is_in(site, file)} == {file.name for file in good}
    raws = len(of_kind(delivery, FileKind.RAW)) + 2 * len(DETECTORS)
    assert site.count("raw") == raws
    assert site.dimensions("visit") == 3
    assert site.dimensions("visit_detector_region") == raws - 1


def is_said(reason: str, expected: str) -> bool:
    """Whether a reason is the expected one, which may end with an ellipsis where the words are a library's."""
    return reason == expected or (expected.endswith("…") and reason.startswith(expected[:-1]))


def file_is_in(site: ReceivingSite, file: DeliveredFile) -> bool:
    return State.INGESTED in {row.state for row in site.ledger.find(scope=file.scope, name=file.name)}
