"""The life of a message: one table says what may follow what."""

import pytest

from arrivals.states import FIRST_STATES, TRANSITIONS, UNFINISHED, State, may_become


def test_every_state_is_in_the_table():
    assert set(TRANSITIONS) == set(State)


def test_every_state_can_be_reached():
    reached, frontier = set(FIRST_STATES), set(FIRST_STATES)
    while frontier:
        frontier = set().union(*(TRANSITIONS[state] for state in frontier)) - reached
        reached |= frontier

    assert reached == set(State)


@pytest.mark.parametrize("state", [State.INGESTED, State.DUPLICATE])
def test_what_is_in_the_butler_stays_as_it_is(state):
    assert not TRANSITIONS[state]


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_what_is_unfinished_can_still_be_ingested_or_quarantined(state):
    assert {State.INGESTED, State.QUARANTINED} <= TRANSITIONS[state]


def test_only_an_operator_takes_a_message_out_of_quarantine():
    assert TRANSITIONS[State.QUARANTINED] == {State.RECEIVED}


def test_the_table_can_be_read_backwards():
    assert may_become(State.INGESTED) == {State.RECEIVED, State.WAITING}
