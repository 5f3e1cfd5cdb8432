"""Whether a night is here: exposure by exposure, detector by detector, and why not."""

import json
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrivals.completeness import (
    NEVER_ANNOUNCED,
    NOT_IN_ZIP,
    REMOVED,
    DayCompleteness,
    ExposureCompleteness,
    Readiness,
    day_completeness,
    ranges,
)
from arrivals.states import State
from simulator.messages import DeliveredFile, FileKind
from tests.arrivals.delivered import altered, announced, of_kind, with_sidecar

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
BOTH = frozenset({0, 1})


def exposure(arrived: frozenset[int], *, expected=BOTH, unfinished=0, known=None) -> ExposureCompleteness:
    return ExposureCompleteness(1, expected, arrived, unfinished, 0, known or {})


def day(*exposures: ExposureCompleteness, quiet_s: float = 60.0) -> DayCompleteness:
    return DayCompleteness(20261101, exposures, NOW - timedelta(seconds=quiet_s) if exposures else None)


@pytest.mark.parametrize(
    ("found", "readiness"),
    [
        (day(), Readiness.EMPTY),
        (day(exposure(BOTH)), Readiness.READY),
        (day(exposure(BOTH), quiet_s=59.9), Readiness.ARRIVING),
        (day(exposure(BOTH), exposure(BOTH, unfinished=1)), Readiness.ARRIVING),
        (day(exposure(BOTH), exposure(frozenset({0}))), Readiness.INCOMPLETE),
        (day(exposure(frozenset(), expected=frozenset())), Readiness.INCOMPLETE),
    ],
)
def test_a_day_can_be_worked_on_when_all_is_here_and_nothing_comes_any_more(found, readiness):
    assert found.readiness(NOW, 60.0) is readiness
    assert found.is_settled(NOW, 60.0) == (readiness is Readiness.READY)


def test_missing_detectors_are_told_by_what_is_known_of_them():
    found = exposure(frozenset({3}), expected=frozenset(range(5)), known={0: "waiting: for it", 1: "waiting: for it"})
    assert found.why_missing == {"waiting: for it": (0, 1), NEVER_ANNOUNCED: (2, 4)}


@given(st.sets(st.integers(0, 300)))
def test_ranges_say_every_number_once(numbers):
    said = [part.split("-") for part in ranges(numbers).split(", ") if part]
    assert sorted(n for part in said for n in range(int(part[0]), int(part[-1]) + 1)) == sorted(numbers)


def test_a_half_arrived_exposure_says_why_its_detector_is_missing(site, delivery, tmp_path):
    first, second = of_kind(delivery, FileKind.RAW)
    others = [file for file in delivery.files if file.kind is not FileKind.RAW]
    broken = altered(delivery, second, tmp_path / "elsewhere")
    site.receive(announced([*others, first]))
    site.receive([message.value.replace(broken.adler32.encode(), b"00000001") for message in announced([second])])
    site.ingest()

    found = day_completeness(site.butler, site.ledger, site.settings, 20261102)

    [half] = found.incomplete
    [(why, detectors)] = half.why_missing.items()
    assert why.startswith("quarantined: …: has adler32 …")
    assert set(detectors) == half.missing == {1}
    assert half.quarantined == 1


def test_the_detectors_of_a_zip_are_missing_for_the_reason_of_the_zip(site, delivery):
    late = of_kind(delivery, FileKind.DIMENSIONS)[0]
    site.receive(announced([file for file in delivery.files if file is not late]))
    site.ingest()

    [exposure] = day_completeness(site.butler, site.ledger, site.settings, 20261101).incomplete
    assert exposure.why_missing == {"in a zip, waiting: instrument=SimCam,exposure=N: waits for its dimensions": (0, 1)}

    site.receive(announced([late]))
    site.ingest()
    assert day_completeness(site.butler, site.ledger, site.settings, 20261101).complete


def test_detectors_that_were_removed_are_not_called_never_announced(site, delivery):
    site.receive(announced(delivery.files))
    site.ingest()
    single, zipped = (site.row(of_kind(delivery, kind)[-1]).exposure for kind in (FileKind.RAW, FileKind.ZIP))
    site.remove_raws(day_obs=20261102, detector=1)

    found = day_completeness(site.butler, site.ledger, site.settings, 20261102, expected_detectors=[0, 1])

    assert {exposure.exposure: exposure.why_missing for exposure in found.incomplete} == {
        single: {REMOVED: (1,)},
        zipped: {NOT_IN_ZIP: (1,)},
    }


def test_messages_of_another_instrument_or_detector_keep_no_night_from_being_ready(site, delivery):
    raw, _ = of_kind(delivery, FileKind.RAW)
    ours = json.loads(raw.sidecar)["dataId"]["dataId"]

    def announced_as(name: str, **changes: object) -> DeliveredFile:
        return with_sidecar(altered(delivery, raw, delivery.rucio_folder, name=name), dataId={**ours, **changes})

    wrong = [
        announced_as("wrong/detector.fits", detector=77),
        announced_as("wrong/instrument.fits", instrument="LATISS", detector=5),
        announced_as("wrong/exposure.fits", instrument="LATISS", exposure=2026110200077),
    ]
    site.receive(announced([*delivery.files, *wrong]))
    site.ingest()
    assert {site.row(file).state for file in wrong} == {State.QUARANTINED}

    found = day_completeness(site.butler, site.ledger, site.settings, 20261102)

    assert found.readiness(NOW + timedelta(days=9999), 60.0) is Readiness.READY
    assert "messages name detectors that the instrument doesn't have: 77" in found.remarks


def test_detectors_are_expected_as_soon_as_they_are_announced(site, delivery):
    site.receive(announced(of_kind(delivery, FileKind.RAW, FileKind.DIMENSIONS)))

    found = day_completeness(site.butler, site.ledger, site.settings, 20261102)

    assert (found.arrived, found.expected) == (0, 2 * len(found.exposures))
    assert found.readiness(NOW + timedelta(days=9999), 0.0) is Readiness.ARRIVING


def test_a_detector_that_is_absent_all_night_and_skipped_exposures_are_told(site, delivery):
    site.receive(announced(delivery.files))
    site.ingest()
    last = max(
        site.butler.query_dimension_records("exposure", day_obs=20261101, instrument="SimCam"),
        key=attrgetter("seq_num"),
    )
    later = {**last.toDict(), "id": last.id + 3, "obs_id": "later", "seq_num": last.seq_num + 3}
    site.butler.registry.insertDimensionData("exposure", later)

    found = day_completeness(site.butler, site.ledger, site.settings, 20261101)

    assert found.remarks == (
        "no exposure has the detectors 2-8",
        f"no exposure has the sequence numbers {last.seq_num + 1}-{last.seq_num + 2}",
    )
    assert found.readiness(NOW + timedelta(days=9999), 60.0) is Readiness.READY


def test_a_sequence_number_that_is_wrong_by_billions_costs_no_memory(site, delivery):
    site.receive(announced(of_kind(delivery, FileKind.DIMENSIONS)))
    site.ingest()
    first, *_ = site.butler.query_dimension_records(
        "exposure", day_obs=20261101, instrument="SimCam", order_by="seq_num"
    )
    wrong = {**first.toDict(), "id": first.id + 9_000, "obs_id": "wrong", "seq_num": 4_000_000_000}
    site.butler.registry.insertDimensionData("exposure", wrong)

    found = day_completeness(site.butler, site.ledger, site.settings, 20261101)

    [(_, last)] = found.skipped
    assert last == 3_999_999_999
    assert any(remark.endswith("-3999999999") for remark in found.remarks)


def test_of_a_day_of_which_nothing_came_nothing_is_remarked(site):
    assert day_completeness(site.butler, site.ledger, site.settings, 20261101).remarks == ()
