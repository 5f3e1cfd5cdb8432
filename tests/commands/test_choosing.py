"""What operators write to choose messages, and what it means."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.choosing import choose, place_in, split_did, time_of
from resources.errors import Rejected

NOW = datetime(2026, 11, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("15min", NOW - timedelta(minutes=15)),
        ("90s", NOW - timedelta(seconds=90)),
        ("1w", NOW - timedelta(days=7)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T09:30", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01T09:30+01:00", datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),
    ],
)
def test_times_are_dates_or_spans_before_now(text, time):
    assert time_of(text, NOW) == time


@pytest.mark.parametrize("text", ["0001-01-01T00:00+01:00", "9999-12-31T23:59-01:00", "99999999999w"])
def test_a_time_before_all_times_or_after_them_is_none(text):
    with pytest.raises(Rejected, match="is no time"):
        time_of(text, NOW)


@given(st.text())
def test_anything_else_is_refused_and_nothing_else_raised(text):
    with suppress(Rejected):
        assert time_of(text, NOW).tzinfo is not None


def test_a_refusal_says_what_to_write():
    with pytest.raises(Rejected, match="--since: 'yesterday' is no time; write 2026-11-01"):
        time_of("yesterday", NOW, "--since")


def test_a_did_may_lack_its_scope():
    assert split_did("raw:a/b:c") == ("raw", "a/b:c")
    assert split_did("a/b.fits") == (None, "a/b.fits")


def test_a_place_is_written_as_lists_show_it():
    assert place_in("LANCS-raw.2[0]@17") == ("LANCS-raw.2", 0, 17)
    assert [place_in(text) for text in ("raw:a[0].fits", "a[0]@", f"a[0]@{'9' * 20}", "a[0]@²")] == [None] * 4


def test_nothing_chosen_is_everything():
    assert choose().is_everything
    assert not choose(did="x").is_everything
    assert not choose(since="2h", now=NOW).is_everything
