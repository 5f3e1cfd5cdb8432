"""The record of failures and quarantined data IDs, kept by several writers at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from launchers.casebook import Case, Casebook
from resources.errors import SiteFault

BAD = {"instrument": "SimCam", "visit": 7, "detector": 3}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.sqlite3"


def case(submission: str = "dr1_step1a_x_1", detector: int = 1, **changes) -> Case:
    values = {"release": "dr1", "step": "step1a", "submission": submission, "dagster_run": "r", "task": "isr"}
    values |= {"data_id": {"detector": detector}, "exception": "E", "message": "m", "log": "", "action": "retry"}
    return Case(**values | {"policy": "p"} | changes)


def test_a_decision_is_kept_as_it_was_made(url: str) -> None:
    book = Casebook(url)
    book.note([case(memory_mb=4096, node="n1", used_mb=2047.6)])
    (kept,) = book.cases("dr1")
    assert (kept.node, kept.used_mb) == ("n1", 2047.6)
    assert kept.data_id == {"detector": 1}
    assert kept.memory_mb == 4096
    assert kept.noted_at is not None
    assert datetime.now(UTC) - kept.noted_at < timedelta(minutes=5)


def test_decisions_about_some_submissions_are_found_among_all(url: str) -> None:
    book = Casebook(url)
    book.note([case("a"), case("b"), case("c")])
    assert [each.submission for each in book.cases("dr1", submissions=["a", "c"])] == ["c", "a"]
    assert book.cases("dr1", submissions=[]) == []


def test_a_book_that_knew_no_nodes_is_gone_on_with(url: str) -> None:
    book = Casebook(url)
    book.note([case("old", node="n1")])
    with create_engine(url).begin() as connection:
        for column in ("node", "used_mb"):
            connection.execute(text(f"ALTER TABLE failure_cases DROP COLUMN {column}"))
    book.close()

    again = Casebook(url)
    again.note([case("new", node="n2")])

    assert [(each.submission, each.node) for each in again.cases("dr1")] == [("new", "n2"), ("old", None)]


def test_a_run_that_resumes_notes_nothing_twice(url: str) -> None:
    book = Casebook(url)
    assert book.note([case(), case(detector=2)]) == 2
    assert book.note([case(action="hold"), case(detector=3)]) == 1
    assert [each.action for each in book.cases("dr1")] == ["retry"] * 3


def test_the_latest_cases_come_first_and_by_release_and_step(url: str) -> None:
    book = Casebook(url)
    book.note([case("a"), case("b", step="step2a"), case("c", release="dr2")])
    assert [each.submission for each in book.cases("dr1")] == ["b", "a"]
    assert [each.submission for each in book.cases("dr1", step="step1a")] == ["a"]
    assert [each.submission for each in book.cases("dr1", limit=1)] == ["b"]


def test_a_data_id_is_quarantined_once_whatever_the_order_of_its_keys(url: str) -> None:
    book = Casebook(url)
    assert book.quarantine("dr1", [BAD], why="glow", by="me") == 1
    assert book.quarantine("dr1", [dict(reversed(BAD.items()))], why="again", by="you") == 0
    (entry,) = book.quarantined("dr1")
    assert (entry.data_id, entry.why, entry.by) == (BAD, "glow", "me")
    assert book.quarantined("dr2") == []


def test_readmission_is_recorded_and_can_be_taken_back(url: str) -> None:
    book = Casebook(url)
    book.quarantine("dr1", [BAD], why="glow", by="me")
    assert book.readmit("dr1", [BAD], why="fixed", by="you") == 1
    assert book.readmit("dr1", [BAD], why="fixed", by="you") == 0
    assert book.quarantined("dr1") == []
    book.quarantine("dr1", [BAD], why="not fixed", by="me")
    past, now = book.quarantined("dr1", history=True)
    assert (past.readmitted_by, past.readmitted_why) == ("you", "fixed")
    assert now.readmitted_at is None


def test_writers_at_the_same_time_agree(url: str) -> None:
    def write(_: int) -> int:
        book = Casebook(url)
        try:
            return book.quarantine("dr1", [BAD], why="w", by="b") + book.note([case()])
        finally:
            book.close()

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(write, range(8))) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda book: book.note([case()]),
        lambda book: book.cases("dr1"),
        lambda book: book.quarantine("dr1", [BAD], why="glow", by="me"),
        lambda book: book.readmit("dr1", [BAD], why="mended", by="me"),
        lambda book: book.quarantined("dr1"),
    ],
)
def test_a_database_that_went_away_is_said_in_one_line(tmp_path: Path, call: Callable[[Casebook], object]) -> None:
    (tmp_path / "disk").mkdir()
    book = Casebook(f"sqlite:///{tmp_path}/disk/ledger.sqlite3")
    book.close()
    shutil.rmtree(tmp_path / "disk")

    with pytest.raises(SiteFault, match=r"^ledger sqlite:///\S+: database: unable to open database file; see .*folder"):
        call(book)


def test_a_url_that_is_none_is_told_without_quoting_it() -> None:
    with pytest.raises(SiteFault, match=r"^the site profile's ledger: is no database URL; (?!.*s3cret)"):
        Casebook("postgres://drp:s3cret@db.site.org/ledger")
