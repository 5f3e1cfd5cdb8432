import pytest

from launchers.slurm.jobs import TRANSITIONS, Element, Job, JobState


def test_a_transition_that_the_table_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="UNREADY cannot become SUCCEEDED"):
        Job("a", "a").moved(JobState.SUCCEEDED)


def test_every_state_has_a_row_in_the_table():
    assert set(TRANSITIONS) == set(JobState)


def test_an_element_is_written_as_slurm_does():
    assert Element.parse("12_7") == Element(12, 7)
    assert str(Element(12, 7)) == "12_7"
