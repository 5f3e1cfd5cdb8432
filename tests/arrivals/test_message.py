"""A Hermes message is understood, or rejected with a reason; nothing else ever happens."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrivals.announcement import HermesMessage, Kind, Sidecar
from arrivals.message import MAX_MESSAGE_BYTES, MAX_TEXT_BYTES, day_obs_of, disbelief, parse_message, parse_sidecar
from resources.errors import Rejected
from tests.arrivals.hermes import SIDECAR, encoded, event

FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures" / "hermes"

with_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="a plain clone has no ../shared/fixtures")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["None", "", "1", "zip_file"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


def rejection(value: bytes | None) -> str:
    with pytest.raises(Rejected) as raised:
        parse_message(value)
    return str(raised.value)


def test_a_raw_message_tells_what_came_where_and_when():
    message = parse_message(encoded())

    assert message.kind is Kind.RAW
    assert (message.scope, message.name) == ("test", "something/AT_O_20250113_000004_R00_S00.fits")
    assert (message.src_rse, message.dst_rse) == ("XRD1", "XRD5")
    assert (message.bytes, message.adler32, message.duration_s) == (14912640, "8b1bdc93", 4)
    assert (message.day_obs, message.exposure, message.detector) == (20250113, 2025011300004, 0)
    assert message.transferred_at == datetime(2025, 3, 20, 20, 15, 9, tzinfo=UTC)
    assert message.sidecar is not None
    assert message.sidecar.run == "LATISS/raw/all"


@pytest.mark.parametrize(
    ("declared", "kind"),
    [("data_product", Kind.PRODUCT), ("raw_file", Kind.RAW), ("zip_file", Kind.ZIP), ("dim_file", Kind.DIMENSIONS)],
)
def test_rubin_butler_says_what_came(declared, kind):
    assert parse_message(encoded(rubin_butler=declared)).kind is kind


@pytest.mark.parametrize("legacy", [1, "1", None, "None", ...])
def test_without_rubin_butler_the_sidecar_tells_raws_from_products(legacy):
    product = {**SIDECAR, "datasetType": {**SIDECAR["datasetType"], "name": "calexp"}}

    assert parse_message(encoded(rubin_butler=legacy)).kind is Kind.RAW
    assert parse_message(encoded(rubin_butler=legacy, rubin_sidecar=product)).kind is Kind.PRODUCT


@pytest.mark.parametrize("name", ["a/MC_O_20250520_000123_dimensions.yaml", "MC_O_20250520_000123_dimensions.1.yaml"])
def test_dimensions_are_recognised_by_their_name_too(name):
    message = parse_message(encoded(rubin_butler=..., rubin_sidecar="", name=name))

    assert message.kind is Kind.DIMENSIONS
    assert (message.day_obs, message.exposure) == (20250520, 2025052000123)


def test_a_zip_without_rubin_butler_is_recognised_by_its_name():
    message = parse_message(encoded(rubin_butler=..., rubin_sidecar=..., name="MC_O_20250520_000123.zip"))

    assert (message.kind, message.exposure) == (Kind.ZIP, 2025052000123)


def test_a_product_of_a_visit_belongs_to_its_day_obs():
    sidecar = {**SIDECAR, "dataId": {"instrument": "LSSTCam", "visit": 2025052000123}}

    message = parse_message(encoded(rubin_butler="data_product", rubin_sidecar=sidecar))

    assert (message.day_obs, message.exposure) == (20250520, None)


def test_numbers_that_begin_with_no_date_have_no_day_obs():
    assert [day_obs_of(number) for number in (330, 2025139900001, 2025052000123)] == [None, None, 20250520]


def test_the_sidecar_may_be_an_object_or_a_string():
    assert parse_sidecar(SIDECAR) == parse_sidecar(json.dumps(SIDECAR))


def test_a_sidecar_comes_back_from_its_own_json():
    sidecar = parse_sidecar(SIDECAR)

    assert sidecar is not None
    assert parse_sidecar(sidecar.to_json()) == sidecar
    assert Sidecar.from_json(sidecar.to_json()) == sidecar


@pytest.mark.parametrize("absent", [None, "", "None", "null"])
def test_none_in_any_spelling_is_no_sidecar(absent):
    assert parse_sidecar(absent) is None


def test_times_may_be_written_as_python_calls():
    value = event() | {"created_at": "datetime.datetime(2025, 3, 19, 20, 58, 49, 551652)"}

    assert parse_message(json.dumps(value).encode()).created_at == datetime(2025, 3, 19, 20, 58, 49, 551652, UTC)


@pytest.mark.parametrize(
    "bad",
    [
        *("yesterday", "datetime.datetime(2025, 13, 1)", "datetime.datetime(,)", 12, None),
        *("0001-01-01T00:00:00", "1970-01-01 00:00:00", "1999-12-31T23:59:59.999999Z", "2000-01-01T00:00:00+00:01"),
    ],
)
def test_a_time_that_makes_no_sense_is_no_reason_to_reject(bad):
    assert parse_message(encoded(transferred_at=bad)).transferred_at is None


@pytest.mark.parametrize(("announced", "meant"), [("None", None), (None, None), (..., None), ("B1BDC93", "0b1bdc93")])
def test_checksums_are_eight_digits_or_absent(announced, meant):
    assert parse_message(encoded(checksum_adler=announced)).adler32 == meant


@pytest.mark.parametrize("event_type", ["transfer-submitted", "transfer-failed", "deletion-done", "something-new"])
def test_other_events_are_recognised_whatever_they_lack(event_type):
    message = parse_message(json.dumps({"event_type": event_type, "payload": {"bytes": 5}}).encode())

    assert (message.kind, message.event_type, message.bytes) == (Kind.OTHER_EVENT, event_type, 5)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "not UTF-8 (byte 0)"),
        (b"x" * (MAX_MESSAGE_BYTES + 1), "1,048,577 bytes"),
        (b"[]", "a list, not an object"),
        (b'{"payload": {}}', "event_type: is missing"),
        (b'{"event_type": "transfer-done"}', "payload"),
        (encoded(rubin_butler="flying_saucer"), "unknown value 'flying_saucer'"),
        (encoded(rubin_butler=1, rubin_sidecar=...), "no rubin_sidecar"),
        (encoded(rubin_butler="data_product", rubin_sidecar=""), "a product without rubin_sidecar"),
        (encoded(rubin_sidecar='{"id": "bad7'), "rubin_sidecar: is not JSON"),
        (encoded(rubin_sidecar={**SIDECAR, "id": "42"}), "'42' is no dataset id"),
        (encoded(rubin_sidecar={**SIDECAR, "dataId": {"detector": [1]}}), "data ID's detector is a list"),
        (encoded(rubin_sidecar={**SIDECAR, "dataId": {"detector": 2**70}}), "data ID's detector is a number out of"),
        (encoded(name=...), "name: is missing"),
        (encoded(name="a\0b"), "name: is unprintable: a?b"),
        (encoded(name="\ud800"), "name: is unprintable: ?"),
        (encoded(name="n" * 1_025), "name: has 1,025 bytes, more than 1,024: nnn"),
        (encoded(scope="中" * 342), "scope: has 1,026 bytes, more than 1,024: 中"),
        (encoded("中" * 86), "event_type: has 258 bytes, more than 256: 中"),
        (encoded(rubin_sidecar={**SIDECAR, "dataId": {"skymap": "s" * 1_017}}), "the data ID has 1,025 bytes, more "),
        (encoded(rubin_sidecar={**SIDECAR, "dataId": {"skymap": "a\0b"}}), "data ID's skymap is unprintable: a?b"),
        (encoded(dst_url=None), "dst-url: is missing"),
        (encoded(checksum_adler="not hex"), "'not hex' is no adler32"),
    ],
)
def test_what_cannot_be_understood_is_rejected_with_a_reason(value, reason):
    assert reason in rejection(value)


def test_an_rse_by_a_name_that_is_too_long_is_unknown_and_its_file_is_taken():
    message = parse_message(encoded(src_rse="中" * 86, dst_rse="中" * 85))

    assert (message.kind, message.src_rse, message.dst_rse) == (Kind.RAW, "", "中" * 85)


NOW = datetime(2025, 3, 20, 21, tzinfo=UTC)
DAY_S = 86_400.0


def test_a_message_of_the_past_is_believed():
    assert disbelief(parse_message(encoded()), NOW, DAY_S) == ""


def test_clocks_may_differ_by_what_is_tolerated():
    ahead = parse_message(encoded(transferred_at="2025-03-21 20:00:00"))

    assert disbelief(ahead, NOW, DAY_S) == ""
    assert "tells of 2025-03-21 20:00:00 UTC" in disbelief(ahead, NOW, 60.0)


@pytest.mark.parametrize("time", ["submitted_at", "started_at", "transferred_at"])
def test_a_message_from_the_future_is_not_believed(time):
    message = parse_message(encoded(**{time: "2035-01-01 00:00:00"}))

    assert disbelief(message, NOW, DAY_S) == (
        "comes from the future: it tells of 2035-01-01 00:00:00 UTC; is a clock wrong, there or here?"
    )


def test_a_day_obs_that_has_not_begun_is_not_believed():
    sidecar = {**SIDECAR, "dataId": {"instrument": "LATISS", "detector": 0, "exposure": 2099011300004}}

    reason = disbelief(parse_message(encoded(rubin_sidecar=sidecar)), NOW, DAY_S)

    assert reason == "is of day_obs 20990113, which has not begun yet; is a clock wrong, there or here?"


def test_what_the_fast_reader_refuses_the_patient_one_may_understand():
    value = encoded(duration=4).replace(b'"duration": 4', b'"duration": NaN')

    assert parse_message(value).duration_s is None


@with_fixtures
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("backup", Kind.PRODUCT),
        ("dim_message", Kind.DIMENSIONS),
        ("message", Kind.PRODUCT),
        ("message330", Kind.PRODUCT),
        ("raw_message", Kind.RAW),
        ("truncated", Kind.PRODUCT),
        ("truncated2", Kind.PRODUCT),
    ],
)
def test_real_messages_are_understood(name, kind):
    message = parse_message((FIXTURES / f"{name}.json").read_bytes())

    assert message.kind is kind
    assert message.url.startswith("root://xrd")
    assert message.created_at is not None


@with_fixtures
def test_a_real_message_without_its_sidecar_is_rejected():
    assert "there is no rubin_sidecar" in rejection((FIXTURES / "nosidecar.json").read_bytes())


@given(st.binary(max_size=300))
def test_any_bytes_are_understood_or_rejected(value):
    assert_understood_or_rejected(value)


@given(JSON)
def test_any_json_is_understood_or_rejected(value):
    assert_understood_or_rejected(json.dumps(value).encode())


@given(
    st.dictionaries(
        st.sampled_from([*event()["payload"], "file-size", "rse"]), JSON | st.just(SIDECAR), min_size=1, max_size=5
    ),
    st.sampled_from(["transfer-done", "transfer-failed", "deletion-done"]),
)
def test_any_change_to_a_payload_is_understood_or_rejected(changes, event_type):
    value = event(event_type)
    value["payload"] |= changes

    assert_understood_or_rejected(json.dumps(value).encode())


@given(st.sampled_from(sorted(SIDECAR)), JSON, JSON)
def test_any_change_to_a_sidecar_is_understood_or_rejected(key, changed, inner):
    for value in (changed, {"dataId": inner}, {"name": inner, "storageClass": "X", "dimensions": ["visit"]}):
        assert_understood_or_rejected(encoded(rubin_sidecar={**SIDECAR, key: value}))


REAL = st.sampled_from(
    [
        encoded(),
        encoded(rubin_sidecar=SIDECAR),
        encoded(rubin_butler="zip_file", rubin_sidecar="", name="MC_O_20250520_000123.zip"),
        encoded("transfer-failed", name=...),
        json.dumps(event() | {"created_at": "datetime.datetime(2025, 3, 19, 20, 58, 49, 551652)"}).encode(),
    ]
)


@st.composite
def damaged(draw) -> bytes:
    """A real message, some of whose bytes were cut out, doubled, or replaced."""
    value = draw(REAL)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(value)))
        end = min(start + draw(st.integers(0, 40)), len(value))
        middle = draw(st.sampled_from([b"", value[start:end] * 2, b"\\ud800", b'"', b"{", b"[", b"9" * 30, b"null"]))
        value = value[:start] + draw(st.just(middle) | st.binary(max_size=6)) + value[end:]
    return value


@settings(max_examples=300)
@given(damaged())
def test_any_damage_to_a_real_message_is_understood_or_rejected(value):
    assert_understood_or_rejected(value)


def assert_understood_or_rejected(value: bytes) -> None:
    try:
        message = parse_message(value)
    except Rejected as rejected:
        str(rejected).encode()
        return
    assert isinstance(message, HermesMessage)
    disbelief(message, NOW, DAY_S).encode()
    for text in (message.event_type, message.scope, message.name, message.url, message.src_rse, message.dst_rse):
        assert "\0" not in text
        assert len(text.encode()) <= MAX_TEXT_BYTES
    for number in (message.bytes, message.day_obs, message.exposure, message.detector, message.duration_s):
        assert number is None or -(2**63) <= number < 2**63
