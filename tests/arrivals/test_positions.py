"""A partition is read on where the ledger left it; what can't be the same log any more is read from its start."""

from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from arrivals.positions import ends_of, start_of
from arrivals.records import Partition

PARTITION = Partition("cluster", "SITE-raw", 3, topic_id="first-id")
OFFSETS = st.integers(0, 50)


def test_what_was_never_read_is_read_from_its_start():
    start = start_of(PARTITION, None, 4, 10)

    assert (start.offset, start.partition, start.is_new, start.expired, start.notice) == (4, PARTITION, True, 0, "")


def test_what_was_read_is_read_on():
    start = start_of(PARTITION, (PARTITION, 7), 4, 10)

    assert (start.offset, start.partition, start.is_new, start.notice) == (7, PARTITION, False, "")


def test_what_expired_unread_is_counted_and_told():
    start = start_of(PARTITION, (PARTITION, 7), 1_007, 2_000)

    assert (start.offset, start.partition, start.expired) == (1_007, PARTITION, 1_000)
    assert start.notice == (
        "SITE-raw[3]: Kafka deleted 1,000 messages before they were read; have them announced again"
    )


def test_a_topic_that_was_made_anew_is_another_partition_from_its_start():
    start = start_of(replace(PARTITION, topic_id="second-id"), (PARTITION, 7), 0, 10)

    assert (start.offset, start.partition.incarnation, start.partition.topic_id) == (0, 2, "second-id")
    assert start.is_new
    assert "made anew under the same name" in start.notice


def test_a_log_that_ends_before_what_was_read_is_another_one():
    start = start_of(PARTITION, (replace(PARTITION, incarnation=2), 7), 0, 5)

    assert (start.offset, start.partition.incarnation) == (0, 3)
    assert "ends at 5, but was read up to 7" in start.notice


def test_a_topic_without_an_id_is_taken_for_the_same():
    for now, before in (("", "first-id"), ("first-id", ""), ("", "")):
        start = start_of(replace(PARTITION, topic_id=now), (replace(PARTITION, topic_id=before), 7), 0, 10)

        assert (start.offset, start.partition.incarnation) == (7, 1)
        assert start.partition.topic_id == (now or before)


def test_a_log_that_was_cut_off_and_has_grown_past_what_was_read_is_another_one():
    start = start_of(PARTITION, (replace(PARTITION, leader_epoch=4), 7), 2, 10, refused=True)

    assert (start.offset, start.partition.incarnation, start.partition.leader_epoch) == (2, 2, None)
    assert start.is_new
    assert start.notice == (
        "SITE-raw[3]: was read up to 7, and has other messages before that: Kafka has lost messages that are in the "
        "ledger; it is read from its start, and what comes again is recognised"
    )


def test_the_leader_epoch_goes_with_the_offset_that_it_was_read_before():
    before = (replace(PARTITION, leader_epoch=4), 7)

    assert start_of(PARTITION, before, 2, 10).partition.leader_epoch == 4
    assert start_of(PARTITION, before, 8, 10).partition.leader_epoch is None
    assert start_of(replace(PARTITION, topic_id="second-id"), before, 2, 10).partition.leader_epoch is None


@given(st.none() | OFFSETS, OFFSETS, OFFSETS, st.sampled_from(["", "first-id", "second-id"]), st.none() | OFFSETS)
def test_reading_starts_within_what_kafka_has_and_nothing_is_skipped_in_silence(known, low, length, topic_id, cut):
    """Where its log was cut off, Kafka refuses to go on after what it has no more, however far it has grown since."""
    high = low + length
    before = None if known is None else (PARTITION, known)
    refused = cut is not None and known is not None and cut < known

    start = start_of(replace(PARTITION, topic_id=topic_id), before, low, high, refused=refused)

    assert low <= start.offset <= high
    if refused and known >= low:
        assert (start.offset, start.is_new, bool(start.notice)) == (low, True, True)
    assert start.is_new == (known is None or start.partition != PARTITION)
    if known is not None and start.partition == PARTITION:
        assert start.offset - start.expired == known
        assert bool(start.expired) == bool(start.notice)
    else:
        assert start.offset == low


class ChoosingLeaders:
    """An admin client of a cluster in which one partition has its leader only when it is asked about again."""

    def __init__(self) -> None:
        self.asked: list[set[int]] = []

    def list_offsets(self, asked, isolation_level, request_timeout):
        self.asked.append({place.partition for place in asked})
        return {place: self._answer(place.partition) for place in asked}

    def _answer(self, number: int) -> Future:
        answer: Future = Future()
        if number == 1 and len(self.asked) <= 2:
            answer.set_exception(KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)))
        else:
            answer.set_result(SimpleNamespace(offset=10 * number))
        return answer


def test_a_partition_whose_leader_is_being_chosen_is_asked_about_again():
    admin = ChoosingLeaders()

    ends = ends_of(admin, [TopicPartition("SITE-raw", number) for number in (0, 1)], timeout_s=30.0)

    assert ends == {("SITE-raw", 0): (0, 0), ("SITE-raw", 1): (10, 10)}
    assert admin.asked == [{0, 1}, {0, 1}, {1}, {1}]


def test_a_partition_that_has_no_leader_for_too_long_is_an_error():
    with pytest.raises(KafkaException):
        ends_of(ChoosingLeaders(), [TopicPartition("SITE-raw", 1)], timeout_s=-1.0)
