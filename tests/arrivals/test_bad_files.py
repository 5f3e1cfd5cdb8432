"""Files that nobody could foresee: whatever one does to a reader or to the Butler is its own row's trouble."""

import errno
import io
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from arrivals.states import State
from arrivals.zips import member_observations
from drp_tasks.instrument import SimCam
from drp_tasks.raw_formatter import SimCamRawFormatter
from resources.errors import Retriable
from simulator.messages import FileKind
from tests.arrivals.delivered import DETECTORS, PREFIX, altered, announced, of_kind, receiving_site

INDEX = "_butler_zip_index.json"


def with_index(path: Path, changes: Mapping[str, str]) -> bytes:
    """A zip's content with another index."""
    content = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(content, "w") as changed:
        for name in source.namelist():
            member = source.read(name)
            for old, new in changes.items() if name == INDEX else ():
                member = member.replace(old.encode(), new.encode())
            changed.writestr(name, member)
    return content.getvalue()


@pytest.mark.parametrize(
    "card",
    [b"INSTRUME= 'SimCam", b"INSTRUME= 1.2.3", b"DAYOBS  = '20261"],
    ids=["open quote", "no number", "no day_obs"],
)
def test_a_raw_with_a_card_that_is_no_fits_is_refused_and_its_neighbour_goes_in(delivery, tmp_path, repository, card):
    site = receiving_site(tmp_path, repository, tmp_path / "rucio")
    raw, good = of_kind(delivery, FileKind.RAW)
    content = delivery.path(raw).read_bytes()
    start = content.index(card[:9])
    broken = content[:start] + card.ljust(80) + content[start + 80 :]
    bad = altered(delivery, raw, tmp_path / "rucio", broken)
    site.receive(announced([bad, altered(delivery, good, tmp_path / "rucio")]))

    site.ingest()

    assert site.row(good).state is State.INGESTED
    assert site.row(bad).state is State.QUARANTINED
    assert "the header" in site.row(bad).reason


def test_a_dataset_whose_known_file_cannot_be_looked_at_is_tried_again_and_its_neighbour_goes_in(
    delivery, tmp_path, repository
):
    folder = tmp_path / "rucio"
    site = receiving_site(tmp_path, repository, folder)
    raw, good = of_kind(delivery, FileKind.RAW)
    site.receive(announced([altered(delivery, raw, folder, name="first/raw.fits")]))
    site.ingest()
    shutil.rmtree(folder / raw.scope / "first")
    (folder / raw.scope / "first").write_text("a file where the folder was")
    again = altered(delivery, raw, folder, name="second/raw.fits")
    site.receive(announced([again, altered(delivery, good, folder)]))

    site.ingest()

    assert site.row(good).state is State.INGESTED
    assert site.row(again).state is State.WAITING
    assert "the Butler has this dataset from" in site.row(again).reason


def test_a_zip_that_stops_answering_while_its_headers_are_read_is_tried_again(site, delivery, monkeypatch):
    first, second, *_ = zips = of_kind(delivery, FileKind.ZIP)
    site.receive(announced(of_kind(delivery, FileKind.DIMENSIONS)))
    site.receive(announced(zips))

    def stale(file, *arguments):
        if str(file).endswith(first.name):
            raise OSError(errno.ESTALE, "Stale file handle")
        return member_observations(file, *arguments)

    monkeypatch.setattr("arrivals.footprints.member_observations", stale)
    site.ingest()

    assert site.row(second).state is State.INGESTED
    assert site.row(first).state is State.WAITING
    assert "Stale file handle" in site.row(first).reason


def test_a_zip_with_an_impossible_exposure_is_refused_and_its_neighbour_goes_in(delivery, tmp_path, repository):
    folder = tmp_path / "rucio"
    site = receiving_site(tmp_path, repository, folder)
    first, second, *_ = of_kind(delivery, FileKind.ZIP)
    impossible = with_index(delivery.path(first), {"202611010000": "999999999202611010000"})
    bad = altered(delivery, first, folder, impossible, name="bad.zip")
    good = altered(delivery, second, folder)
    site.receive(announced([altered(delivery, file, folder) for file in of_kind(delivery, FileKind.DIMENSIONS)]))
    site.receive(announced([bad, good]))

    site.ingest()

    assert site.row(good).state is State.INGESTED
    assert site.row(bad).state is State.QUARANTINED
    assert site.row(bad).reason


def test_dimensions_that_are_no_unicode_are_refused_and_their_neighbour_goes_in(delivery, tmp_path, repository):
    folder = tmp_path / "rucio"
    site = receiving_site(tmp_path, repository, folder)
    dimensions, other, *_ = of_kind(delivery, FileKind.DIMENSIONS)
    content = delivery.path(dimensions).read_bytes().replace(b"- type: dimension", b'- type: "\\ud800"')
    bad = altered(delivery, dimensions, folder, content, name="bad_dimensions.yaml")
    good = altered(delivery, other, folder)
    site.receive(announced([bad, good]))

    site.ingest()

    assert site.row(good).state is State.INGESTED
    assert site.row(bad).state is State.QUARANTINED
    assert r"Unexpected dictionary type: \ud800" in site.row(bad).reason


def test_what_nobody_foresaw_of_one_file_is_that_files_trouble(site, delivery, monkeypatch, caplog):
    raws = of_kind(delivery, FileKind.RAW)
    bad = DETECTORS[0]

    def formatter(instrument, data_id):
        if data_id["detector"] == bad:
            raise ZeroDivisionError("nobody thought\nof it")
        return SimCamRawFormatter

    monkeypatch.setattr(SimCam, "getRawFormatter", formatter)
    site.receive(announced(raws))

    site.ingest()

    states = {site.row(raw).detector: site.row(raw) for raw in raws}
    assert states.pop(bad).state is State.QUARANTINED
    assert [row.state for row in states.values()] == [State.INGESTED]
    assert "ZeroDivisionError: nobody thought of it" in site.row(raws[0]).reason + site.row(raws[1]).reason
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


def test_trouble_that_is_no_files_own_ends_the_turn_and_blames_no_row(site, delivery, monkeypatch):
    raws = of_kind(delivery, FileKind.RAW)
    site.receive(announced(raws))

    def away(ledger, keys):
        if any("exposure=" in key for key in keys):
            raise Retriable("database trouble", "ledger")

    monkeypatch.setattr("arrivals.ledger.Ledger.wake", away)
    with pytest.raises(Retriable):
        site.ingest()

    assert {site.row(raw).state for raw in raws} == {State.RECEIVED}


def test_a_header_that_a_troubled_disk_withholds_is_read_later(site, delivery, monkeypatch):
    raws = of_kind(delivery, FileKind.RAW)
    site.receive(announced(raws))
    read = SimCam.read_observation

    def troubled(instrument, raw):
        if str(raw).endswith(raws[0].name):
            raise OSError(errno.EIO, "Input/output error")
        return read(instrument, raw)

    monkeypatch.setattr(SimCam, "read_observation", troubled)
    site.ingest()

    assert site.row(raws[1]).state is State.INGESTED
    assert site.row(raws[0]).state is State.WAITING
    assert "Input/output error" in site.row(raws[0]).reason


@pytest.mark.parametrize("mount_point_stays", [True, False], ids=["empty", "gone"])
def test_what_lies_on_a_lost_mount_waits_for_it_and_is_woken_when_it_is_back(
    delivery, tmp_path, repository, caplog, mount_point_stays
):
    folder, elsewhere = tmp_path / "rucio", tmp_path / "elsewhere"
    site = receiving_site(tmp_path, repository, folder)
    files = [altered(delivery, file, folder) for file in of_kind(delivery, FileKind.RAW, FileKind.DIMENSIONS)]
    folder.rename(elsewhere)
    if mount_point_stays:
        folder.mkdir()
    site.receive(announced(files))

    site.ingest()

    rows = [site.row(file) for file in files]
    assert {(row.state, row.waits_for, row.attempts) for row in rows} == {(State.WAITING, f"folder={folder}", 0)}
    said = [record.getMessage() for record in caplog.records if record.name == "arrivals.ingest"]
    assert [PREFIX in line and str(folder) in line for line in said] == [True, True]  # once a batch of each kind

    if mount_point_stays:
        folder.rmdir()
    elsewhere.rename(folder)
    site.ingest()

    assert {site.row(file).state for file in files} == {State.INGESTED}


def test_a_file_that_is_missing_beside_others_does_not_pass_for_a_lost_mount(delivery, tmp_path, repository):
    folder = tmp_path / "rucio"
    site = receiving_site(tmp_path, repository, folder)
    raw, other = of_kind(delivery, FileKind.RAW)
    altered(delivery, other, folder)
    site.receive(announced([raw]))

    site.ingest()

    assert (site.row(raw).state, site.row(raw).waits_for) == (State.WAITING, None)
    assert "file is not there" in site.row(raw).reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({'"SimCam"': '"LATISS"'}, "holds raws of LATISS, but this site takes SimCam"),
        ({'"detector":1,': '"detector":77,', '"SimCam",1,': '"SimCam",77,'}, "SimCam has no detector 77"),
        ({'"detector":1,': '"detector":77,'}, "is no Butler zip: No dimension record for element 'detector'"),
        ({'"raw"': '"post_isr_image"'}, "holds post_isr_image, which is no raw"),
        ({"SimCam/raw/all": "u/me"}, "holds raws of the run u/me, but those of SimCam belong in SimCam/raw/all"),
    ],
    ids=["another instrument", "no such detector", "records of other detectors", "another dataset type", "another run"],
)
def test_a_zip_of_what_the_site_does_not_have_is_refused_whole(delivery, tmp_path, repository, changes, reason):
    folder = tmp_path / "rucio"
    site = receiving_site(tmp_path, repository, folder)
    first, second, *_ = of_kind(delivery, FileKind.ZIP)
    index = with_index(delivery.path(first), changes)
    bad = altered(delivery, first, folder, index, name="bad.zip")
    good = altered(delivery, second, folder)
    site.receive(announced([altered(delivery, file, folder) for file in of_kind(delivery, FileKind.DIMENSIONS)]))
    site.receive(announced([bad, good]))

    site.ingest()

    assert site.row(good).state is State.INGESTED
    assert site.row(bad).state is State.QUARANTINED
    assert reason in site.row(bad).reason
    assert site.count("raw") == len(DETECTORS)


def test_a_raw_whose_header_says_more_than_the_butler_can_keep_is_refused_and_its_neighbour_goes_in(
    delivery, tmp_path, repository
):
    folder = tmp_path / "rucio"
    site = receiving_site(tmp_path, repository, folder)
    raw, good = of_kind(delivery, FileKind.RAW)
    content = delivery.path(raw).read_bytes()
    for before, after in (
        (b"IMGTYPE = 'OBJECT  '".ljust(80), f"IMGTYPE = '{'X' * 68}'".encode().ljust(80)),
        (b"OBSID   = 'SC_S_20261102_000001'".ljust(80), b"OBSID   = 'SC_S_20261102_000009'".ljust(80)),
        (b"SEQNUM  =                    1".ljust(80), b"SEQNUM  =                    9".ljust(80)),
    ):
        assert before in content
        content = content.replace(before, after)
    bad = replace(altered(delivery, raw, folder, content, name="long.fits"), sidecar="")
    site.receive(announced([bad, altered(delivery, good, folder)]))

    site.ingest()

    assert site.row(good).state is State.INGESTED
    assert site.row(bad).state is State.QUARANTINED
    assert "the database refuses it" in site.row(bad).reason
    assert "observation_type" in site.row(bad).reason


def test_a_name_that_no_file_system_can_have_is_refused(site, delivery):
    [raw, *_] = of_kind(delivery, FileKind.RAW)
    bad = replace(raw, name=f"{'x' * 300}.fits")
    site.receive(announced([bad]))

    site.ingest()

    assert site.row(bad).state is State.QUARANTINED
    assert "File name too long" in site.row(bad).reason
