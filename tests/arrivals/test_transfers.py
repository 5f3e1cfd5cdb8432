"""Efficiency, rate and volume: sums are sums, and what can't be computed says so."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from arrivals.records import TransferCount
from arrivals.transfers import RsePair, TransferStatistics, by_pair, by_pair_and_hour, total

HOUR = datetime(2026, 11, 2, 3, tzinfo=UTC)
COUNTS = st.builds(
    TransferCount,
    hour=st.sampled_from([HOUR, HOUR.replace(hour=4)]),
    src_rse=st.sampled_from(["SLAC", "", "RAL"]),
    dst_rse=st.sampled_from(["LANCS", ""]),
    event_type=st.sampled_from(["transfer-done", "transfer-failed", "transfer-submitted", "deletion-done"]),
    count=st.integers(1, 1000),
    bytes=st.integers(0, 10**12),
    duration_s=st.integers(0, 1000),
    timed_bytes=st.integers(0, 10**12),
)


def done(count: int, size: int, seconds: int, **other) -> TransferCount:
    names = {"hour": HOUR, "src_rse": "SLAC", "dst_rse": "LANCS", "event_type": "transfer-done", **other}
    return TransferCount(**names, count=count, bytes=size, duration_s=seconds, timed_bytes=size if seconds else 0)


def test_efficiency_is_the_share_of_those_that_ended():
    counts = [
        done(9, 900, 3),
        done(1, 100, 0, event_type="transfer-failed"),
        done(5, 0, 0, event_type="transfer-submitted"),
    ]
    [found] = by_pair(counts).values()
    assert (found.efficiency, found.bytes, found.rate_bytes_per_s, found.others) == (0.9, 900, 300.0, 5)
    assert found.silence == ""


def test_a_rate_is_made_of_those_only_that_told_their_duration():
    [found] = by_pair([done(1, 600, 2), done(1, 5_000, 0)]).values()
    assert (found.bytes, found.rate_bytes_per_s) == (5_600, 300.0)


def test_what_cannot_be_computed_says_so():
    assert TransferStatistics().silence == "no efficiency: no transfer ended; no rate: no transfer was done"
    assert TransferStatistics(done=1, bytes=5).silence == "no rate: no event told how long a transfer took"
    assert TransferStatistics(failed=1).efficiency == 0.0


def test_an_event_without_rse_is_counted_as_unknown():
    assert list(by_pair([done(1, 1, 1, src_rse="")])) == [RsePair("unknown", "LANCS")]


@given(st.lists(COUNTS))
def test_however_events_are_grouped_their_sum_is_the_same(counts):
    assert total(by_pair(counts).values()) == total(by_pair_and_hour(counts).values())
    assert total(by_pair(counts).values()).done == sum(c.count for c in counts if c.event_type == "transfer-done")
