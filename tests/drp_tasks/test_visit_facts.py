"""What a data ID tells of a visit."""

import pytest

from drp_tasks.visit_facts import VisitFacts, facts_of
from tests.drp_tasks.data_ids import BEGIN, visit_detector


def test_the_facts_are_those_of_the_records():
    facts = facts_of(visit_detector())
    assert facts == VisitFacts(2026110100003, 7, "r", "r_57", 20261101, pytest.approx(BEGIN.tai.mjd + 15 / 86400), 30.0)


def test_a_visit_without_times_is_refused():
    with pytest.raises(ValueError, match="timespan"):
        facts_of(visit_detector(with_times=False))
