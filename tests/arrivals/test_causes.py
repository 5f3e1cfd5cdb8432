"""Reasons that differ in what they name only are one cause, and every cause is of one kind of trouble."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrivals.causes import ReasonClass, cause_of, classify, matches, surest_fragment
from arrivals.files import locate
from arrivals.message import parse_message
from resources.errors import Rejected
from resources.site import PathRule

RULES = [PathRule(announced="root://here//rucio", local="/data")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "/data/a/SC_S_20261102_000001.fits: has 1,234 bytes, but 99 were announced; have it transferred again",
            "/data/b/SC_20261103_000077.fits: has 2 bytes, but 12,000,001 were announced; have it transferred again",
        ),
        (
            "file:///data/x.fits: has adler32 0a1b2c3d, but deadbeef was announced; have it transferred again",
            "file:///data/y.fits: has adler32 12345678, but 0000000a was announced; have it transferred again",
        ),
        (
            "exposure=2026110200001, instrument=SimCam: waits for its dimensions",
            "exposure=2026110200002, instrument=SimCam: waits for its dimensions",
        ),
        (
            "rubin_sidecar: is no dataset id bad79e54-31ae-5403-984b-22c992ff6eec",
            "rubin_sidecar: is no dataset id 00000000-31ae-5403-984b-22c992ff6eec",
        ),
    ],
)
def test_reasons_about_other_files_are_one_cause(one, other):
    assert cause_of(one) == cause_of(other) != one


def test_what_tells_causes_apart_stays():
    assert cause_of("unknown value 'zip'; known: raw_file") != cause_of("unknown value 'rar'; known: raw_file")
    assert cause_of("payload: payload is a list, not an object") == "payload: payload is a list, not an object"
    assert "adler32" in cause_of("has adler32 12345678, but it is 87654321")


@given(st.text())
def test_a_cause_is_its_own_cause_and_any_reason_has_one(reason):
    cause = cause_of(reason)
    assert cause_of(cause) == cause


@given(st.text(min_size=1))
def test_what_is_copied_from_a_list_finds_its_reasons(reason):
    assert matches(reason, cause_of(reason))
    assert surest_fragment(cause_of(reason)) in reason


def refusal(act) -> str:
    with pytest.raises(Rejected) as raised:
        act()
    return str(raised.value)


def test_real_refusals_are_of_their_kind():
    outside = refusal(lambda: locate("https://elsewhere/x.fits", RULES))
    prefixed = refusal(lambda: locate("file://root://here//rucio/x.fits", RULES))
    climbing = refusal(lambda: locate("root://here//rucio/../x.fits", RULES))
    unread = refusal(lambda: parse_message(b"not json"))

    assert {classify(reason) for reason in (outside, prefixed, climbing)} == {ReasonClass.OUTSIDE_MAPPING}
    assert classify(unread, understood=False) is ReasonClass.NOT_UNDERSTOOD
    assert classify("what nobody thought of") is ReasonClass.OTHER
