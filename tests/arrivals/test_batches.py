"""Rows come batch by batch, the next one's files are looked at meanwhile, and in vain as seldom as may be."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice

import pytest

from arrivals import batches
from arrivals.announcement import Kind
from arrivals.batches import READERS, Pending
from arrivals.files import Arrived
from simulator.messages import FileKind
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
    return Pending(site.ledger, site.settings.model_copy(update=settings))


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
