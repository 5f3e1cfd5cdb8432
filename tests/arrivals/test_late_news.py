"""What comes late, twice or in the wrong order: corrections, contradicting contents, second calibrations."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from arrivals.dimensions import MAX_CORRECTIONS, correction_number, later_corrections
from arrivals.files import HEAD_BYTES, Arrived
from arrivals.states import State
from drp_tasks.instrument import SimCam
from simulator.messages import DeliveredFile, FileKind
from tests.arrivals.delivered import DETECTORS, altered, announced, of_kind, with_sidecar


@pytest.mark.parametrize(
    ("name", "number"),
    [("a_dimensions.yaml", 0), ("a_dimensions.1.yaml", 1), ("a_dimensions.12.yml", 12), ("a_dimensions.x.yaml", 0)],
)
def test_corrections_are_numbered_by_their_names(name, number):
    assert correction_number(name) == number


def test_later_corrections_bear_larger_numbers():
    names = later_corrections("b/a_dimensions.3.yaml")

    assert names[0] == "b/a_dimensions.4.yaml"
    assert len(names) == MAX_CORRECTIONS
    assert later_corrections("a.zip") == []


@pytest.fixture
def correction(delivery):
    """Makes a correction of the first exposure's dimensions: its number is in the target's name."""
    original = of_kind(delivery, FileKind.DIMENSIONS)[0]

    def make(number: int):
        return altered(
            delivery,
            original,
            delivery.rucio_folder,
            delivery.path(original).read_bytes().replace(b"target_name: ", f"target_name: {number}_".encode()),
            name=original.name.replace("_dimensions.yaml", f"_dimensions.{number}.yaml"),
        )

    return make


def test_what_was_removed_from_the_butler_and_is_delivered_again_is_ingested_again(site, delivery):
    product = of_kind(delivery, FileKind.PRODUCT)[0]
    raw, zipped = of_kind(delivery, FileKind.RAW)[0], of_kind(delivery, FileKind.ZIP)[0]
    site.receive(announced(delivery.files))
    site.ingest()
    before = site.count("raw")
    site.remove_raws(exposure=site.row(raw).exposure, detector=site.row(raw).detector)
    site.remove_raws(exposure=site.row(zipped).exposure)
    site.butler.pruneDatasets(
        [site.butler.get_dataset(json.loads(product.sidecar)["id"])], disassociate=True, unstore=True, purge=True
    )

    site.receive(announced(delivery.files))
    report = site.ingest()

    again = {raw.name, zipped.name, product.name}
    assert {row.name for row in site.ledger.find(state=State.INGESTED)[len(delivery.files) :]} == again
    assert report.count(State.DUPLICATE) == len(delivery.files) - 3
    assert site.count("raw") == before


@pytest.mark.parametrize("order", [(3, 4, 0), (4, 3, 0), (0, 4, 3)])
def test_the_latest_correction_holds_in_whatever_order_they_come(site, delivery, correction, order):
    original = of_kind(delivery, FileKind.DIMENSIONS)[0]
    for number in order:
        site.receive(announced([correction(number) if number else original]))
        site.ingest()

    [exposure] = site.butler.query_dimension_records("exposure")
    assert exposure.target_name.startswith("4_")
    assert site.ledger.counts()[State.INGESTED] == 3


def test_a_correction_that_changed_nothing_says_why(site, correction):
    for number in (6, 5):
        site.receive(announced([correction(number)]))
        site.ingest()

    reason = site.row(correction(5)).reason
    assert reason.startswith("ingested, but changed nothing")
    assert "_dimensions.6.yaml is later and came before" in reason


def test_a_correction_reaches_the_visit_that_is_defined(site, delivery, correction):
    exposure_files = of_kind(delivery, FileKind.DIMENSIONS)[:1] + of_kind(delivery, FileKind.ZIP)[:1]
    site.receive(announced(exposure_files))
    site.ingest()
    [before] = site.butler.query_dimension_records("visit")

    site.receive(announced([correction(7)]))
    report = site.ingest()

    [after] = site.butler.query_dimension_records("visit")
    assert after.target_name == f"7_{before.target_name}"
    assert after.region == before.region
    assert report.conflicts == ()


@pytest.fixture
def rewritten(delivery):
    """Rewrites a file of dimensions under another name."""

    def make(file: DeliveredFile, name: str, *changes: tuple[str, str]) -> DeliveredFile:
        text = delivery.path(file).read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return altered(delivery, file, delivery.rucio_folder, text.encode(), name=name)

    return make


@pytest.mark.parametrize("kind", [FileKind.RAW, FileKind.ZIP])
def test_an_exposure_that_sees_the_sky_only_by_a_correction_becomes_a_visit_of_the_raws_that_came(
    site, delivery, rewritten, kind
):
    raws = of_kind(delivery, kind)[: len(DETECTORS) if kind is FileKind.RAW else 1]
    folder = raws[0].name.rpartition("/")[0]
    [original] = [file for file in of_kind(delivery, FileKind.DIMENSIONS) if file.name.startswith(folder)]
    site.receive(announced([rewritten(original, "blind/a_dimensions.yaml", ("sky: true", "sky: false"))]))
    site.receive(announced(raws))
    assert site.ingest().count(State.INGESTED) == 1 + len(raws)
    assert site.dimensions("visit") == 0

    site.receive(announced([rewritten(original, "blind/a_dimensions.1.yaml")]))
    report = site.ingest()

    [visit] = site.butler.query_dimension_records("visit")
    assert report.visits == {visit.id}
    assert visit.region is not None
    assert site.dimensions("visit_detector_region") == len(DETECTORS)


def test_a_correction_whose_raws_cannot_be_read_now_is_tried_again(site, delivery, rewritten, monkeypatch):
    raws = of_kind(delivery, FileKind.RAW)
    folder = raws[0].name.rpartition("/")[0]
    [original] = [file for file in of_kind(delivery, FileKind.DIMENSIONS) if file.name.startswith(folder)]
    site.receive(announced([rewritten(original, "ill/a_dimensions.yaml", ("sky: true", "sky: false"))]))
    site.receive(announced(raws))
    site.ingest()
    correction = rewritten(original, "ill/a_dimensions.1.yaml")
    site.receive(announced([correction]))

    def troubled(instrument, raw):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(SimCam, "read_observation", troubled)
        site.ingest()

    assert site.row(correction).state is State.WAITING
    assert "can't be read now: [Errno 5] Input/output error" in site.row(correction).reason


def test_a_correction_leaves_what_the_site_has_registered_and_says_so(site, delivery, rewritten):
    original = of_kind(delivery, FileKind.DIMENSIONS)[0]
    changes = ("detector_max: 9", "detector_max: 5"), ("SCIENCE", "GUIDER"), ("target_name: ", "target_name: NOT_")
    correction = rewritten(original, original.name.replace("_dimensions", "_dimensions.1"), *changes)
    site.receive(announced([original]))
    site.ingest()

    site.receive(announced([correction]))
    site.ingest()

    [instrument] = site.butler.query_dimension_records("instrument")
    [exposure] = site.butler.query_dimension_records("exposure")
    detectors = site.butler.query_dimension_records("detector", instrument="SimCam")
    assert (instrument.detector_max, {detector.purpose for detector in detectors}) == (9, {"SCIENCE"})
    assert exposure.target_name.startswith("NOT_")
    assert site.row(correction).reason == (
        "ingested, but the Butler's instrument=SimCam stays as it is: detector_max 9, not 5, and so do 2 others"
    )


def test_dimensions_that_contradict_the_butler_without_being_a_correction_say_so(site, delivery, rewritten):
    original = of_kind(delivery, FileKind.DIMENSIONS)[0]
    site.receive(announced([original]))
    site.ingest()
    other = rewritten(original, "other/a_dimensions.yaml", ("exposure_time: 30.0", "exposure_time: 15.0"))
    same = rewritten(original, "same/a_dimensions.yaml", ("exposure_time: 30.0", "exposure_time: 30.0000001"))

    site.receive(announced([other, same]))
    site.ingest()

    [exposure] = site.butler.query_dimension_records("exposure")
    assert exposure.exposure_time == 30.0
    assert site.row(same).reason == ""
    assert site.row(other).reason == (
        f"ingested, but the Butler's instrument=SimCam,exposure={exposure.id} stays as it is: "
        "exposure_time 30.0, not 15.0"
    )


def test_of_two_contents_in_one_batch_the_right_one_goes_in_though_it_came_second(site, delivery):
    product = of_kind(delivery, FileKind.PRODUCT)[0]
    wrong = replace(product, adler32="00000001")
    [wrong_message], [right_message] = announced([wrong]), announced([product])
    site.receive([wrong_message, right_message])

    site.ingest()

    first, second = site.ledger.find(name=product.name)
    assert (first.state, second.state) == (State.QUARANTINED, State.INGESTED)
    assert "has adler32" in first.reason


def test_of_two_calibrations_in_one_batch_the_second_is_not_certified(site, delivery):
    bias = of_kind(delivery, FileKind.PRODUCT)[0]
    other_id = "00000000-0000-0000-0000-000000000001"
    renamed = altered(delivery, bias, delivery.rucio_folder, name="second/bias.fits")
    second = with_sidecar(renamed, id=other_id, run="SimCam/calib/second")
    site.receive([*announced([bias]), *announced([second])])

    site.ingest()

    assert site.row(bias).state is State.INGESTED
    assert "is in the Butler, but was not certified" in site.row(second).reason
    assert len(list(site.butler.registry.queryDatasetAssociations("bias", collections=["SimCam/calib"]))) == 1


def test_what_was_read_for_the_checksum_is_not_fetched_again():
    def fetch(size: int = -1) -> bytes:
        raise AssertionError("fetched again")

    far = SimpleNamespace(isLocal=False, getExtension=lambda: ".fits", read=fetch, size=lambda: 5)
    arrived = Arrived(far, b"SIMPL")

    assert arrived.read(10) == b"SIMPL"
    with arrived.head() as head:
        assert head.read() == b"SIMPL"


def test_of_a_far_file_only_the_beginning_is_fetched_for_its_header():
    asked = []

    def fetch(size: int = -1) -> bytes:
        asked.append(size)
        return b"SIMPLE"

    far = SimpleNamespace(isLocal=False, getExtension=lambda: ".fits", read=fetch)

    with Arrived(far).head() as head:
        assert head.read() == b"SIMPLE"
    assert asked == [HEAD_BYTES]


@pytest.fixture
def halves(delivery):
    """An export of one exposure's records without its group and day_obs, and one of those."""
    original = of_kind(delivery, FileKind.DIMENSIONS)[0]
    head, *sections = delivery.path(original).read_text().split("- type: dimension\n")

    def export(name: str, *elements: str):
        kept = [
            section for section in sections if section.strip().startswith(tuple(f"element: {e}\n" for e in elements))
        ]
        content = "- type: dimension\n".join((head, *kept)).encode()
        return altered(delivery, original, delivery.rucio_folder, content, name=f"{name}_dimensions.yaml")

    return export("halves/exposure", "exposure"), export("halves/group", "group", "day_obs")


def test_dimensions_wait_for_those_that_they_need_and_are_woken_by_them(site, halves):
    exposure, group = halves
    site.receive(announced([exposure]))
    site.ingest()

    row = site.row(exposure)
    assert (row.state, row.attempts) == (State.WAITING, 0)
    assert row.waits_for in {"instrument=SimCam,day_obs=20261101", "instrument=SimCam,group=2026-11-02T03:00:40.000"}

    site.receive(announced([group]))
    site.ingest()
    site.ingest()

    assert site.row(exposure).state is State.INGESTED
    assert site.dimensions("exposure") == 1


def test_dimensions_that_need_others_of_a_batch_with_a_bad_one_are_not_forgotten(site, delivery, halves):
    exposure, group = halves
    text = delivery.path(of_kind(delivery, FileKind.DIMENSIONS)[1]).read_bytes()
    bad = altered(
        delivery,
        exposure,
        delivery.rucio_folder,
        text.replace(b"physical_filter: r_57", b"physical_filter: z_9"),
        name="halves/bad_dimensions.yaml",
    )
    for file in (exposure, bad, group):
        site.receive(announced([file]))

    site.ingest()
    site.ingest()

    assert site.row(exposure).state is State.INGESTED
    assert site.row(bad).state is State.QUARANTINED


def test_dimensions_wait_for_a_day_that_raws_bring(site, delivery, halves):
    [of_raws] = {json.loads(raw.sidecar)["dataId"]["dataId"]["exposure"] for raw in of_kind(delivery, FileKind.RAW)}
    exposure = altered(
        delivery,
        halves[0],
        delivery.rucio_folder,
        delivery.path(halves[0]).read_bytes().replace(b"day_obs: 20261101", f"day_obs: {of_raws // 100_000}".encode()),
        name="halves/another_dimensions.yaml",
    )
    site.receive(announced([halves[1]]))
    site.receive(announced([exposure]))
    site.ingest()
    assert site.row(exposure).waits_for == f"instrument=SimCam,day_obs={of_raws // 100_000}"

    site.receive(announced(of_kind(delivery, FileKind.RAW)))
    site.ingest()
    site.ingest()

    assert site.row(exposure).state is State.INGESTED


def test_dimensions_that_need_what_only_the_site_can_register_are_refused(site, delivery):
    original = of_kind(delivery, FileKind.DIMENSIONS)[0]
    text = delivery.path(original).read_bytes()
    unknown = altered(
        delivery,
        original,
        delivery.rucio_folder,
        text.replace(b"physical_filter: r_57", b"physical_filter: z_9"),
        name="unknown/filter_dimensions.yaml",
    )
    site.receive(announced([unknown]))

    site.ingest()

    assert site.row(unknown).state is State.QUARANTINED
    assert "needs records that neither it nor the Butler has" in site.row(unknown).reason
