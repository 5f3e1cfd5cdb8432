"""Rows come batch by batch, the next one's files are looked at meanwhile, and in vain as seldom as may be."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import islice

import pytest

from arrivals import batches
from arrivals.announcement import Kind
from arrivals.batches import READERS, Candidate, Pending
from arrivals.dimensions import dimension_key, lacking
from arrivals.files import Arrived
from arrivals.records import Settlement
from arrivals.states import State
from resources.errors import Waiting
from simulator.messages import DeliveredFile, FileKind
from tests.arrivals.delivered import ReceivingSite, announced, of_kind

PATIENCE_S = 10.0


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(READERS) as executor:
        yield executor


@pytest.fixture
def looked_at(monkeypatch) -> list[str]:
    """Names of files that were looked at."""
    names: list[str] = []

    def look(file, **_: object) -> Arrived:
        names.append(file.basename())
        return Arrived(file)

    monkeypatch.setattr(batches, "verify", look)
    return names


def pending(site: ReceivingSite, **settings: object) -> Pending:
    return Pending(site.ledger, site.settings.model_copy(update=settings), partial(lacking, site.butler))


def test_the_next_batch_is_looked_at_while_one_is_ingested(site, delivery, readers, monkeypatch):
    site.receive(announced(of_kind(delivery, FileKind.RAW)))
    second = threading.Event()
    seen: list[str] = []

    def look(file, **_: object) -> Arrived:
        seen.append(file.basename())
        if len(seen) == 2:
            second.set()
        return Arrived(file)

    monkeypatch.setattr(batches, "verify", look)
    with closing(pending(site, ingest_batch=1).batches(Kind.RAW, readers, lambda: False)) as found:
        next(found)
        assert second.wait(PATIENCE_S)


def test_who_is_told_to_stop_looks_at_no_file(site, delivery, readers, looked_at):
    site.receive(announced(delivery.files))

    assert not any(list(pending(site).batches(kind, readers, lambda: True)) for kind in Kind)

    assert looked_at == []


@pytest.mark.parametrize("ends", ["told to stop", "closed"])
def test_the_batch_that_will_not_be_ingested_is_given_up(site, delivery, readers, monkeypatch, ends):
    site.receive(announced(of_kind(delivery, FileKind.PRODUCT)))
    first_batch = 3
    looking, go_on = threading.Event(), threading.Event()
    seen: list[str] = []

    def look(file, **_: object) -> Arrived:
        seen.append(file.basename())
        if len(seen) > first_batch:
            looking.set()
            assert go_on.wait(PATIENCE_S)
        return Arrived(file)

    monkeypatch.setattr(batches, "verify", look)
    stop = threading.Event()
    with closing(pending(site, ingest_batch=first_batch).batches(Kind.PRODUCT, readers, stop.is_set)) as found:
        [(rows, _)] = islice(found, 1)
        assert looking.wait(PATIENCE_S)
        if ends == "told to stop":
            stop.set()
            assert list(found) == []
    go_on.set()
    readers.shutdown()

    assert len(rows) == first_batch
    assert len(seen) == first_batch + 1  # the file at which it was looking


def put_to_sleep(site: ReceivingSite, files: list[DeliveredFile], waits_for: str) -> None:
    """Have files wait for something and be due to be tried again."""
    now = datetime.now(UTC)
    site.ledger.settle(
        [Settlement(site.row(file).row_id, State.WAITING, "waits", waits_for, retry_at=now) for file in files], now=now
    )


def test_a_file_is_not_looked_at_while_the_dimensions_it_waits_for_lack(site, delivery, readers, looked_at):
    zips = of_kind(delivery, FileKind.ZIP)
    site.receive(announced(zips))
    key = dimension_key({"instrument": "SimCam", "exposure": 2026110100077})
    put_to_sleep(site, zips[1:], key)

    [(rows, found)] = pending(site).batches(Kind.ZIP, readers, lambda: False)

    assert looked_at == [zips[0].name.rpartition("/")[2]]
    assert [row.name for row in rows if isinstance(found[rows.index(row)], Candidate)] == [zips[0].name]
    assert {str(each) for each in found if isinstance(each, Waiting)} == {f"{key}: waits for its dimensions"}


@pytest.mark.parametrize("key", ["instrument=SimCam,detector=1", "folder=/data", "nothing that we know"])
def test_a_file_is_looked_at_when_what_it_waits_for_is_there_or_no_dimension(site, delivery, readers, looked_at, key):
    zips = of_kind(delivery, FileKind.ZIP)
    site.receive(announced(zips))
    put_to_sleep(site, zips[:1], key)

    [(rows, found)] = pending(site).batches(Kind.ZIP, readers, lambda: False)

    assert len(looked_at) == len(zips)
    assert [each.row for each in found if isinstance(each, Candidate)] == rows


def test_only_keys_of_dimension_records_can_lack(site):
    others = {"instrument=SimCam,detector=1", "instrument=SimCam", "folder=/data,x=1"}
    away = {"instrument=SimCam,visit=7", "skymap=far=a,b,tract=1", "instrument=SimCam,group=a"}

    assert lacking(site.butler, others | away) == away
