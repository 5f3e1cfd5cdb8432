"""What was received becomes datasets and visits; what can't says why, and holds up nothing else."""

import json
import re
from dataclasses import replace

import pytest
from lsst.daf.butler import Butler, Timespan

from arrivals.announcement import Kind
from arrivals.completeness import day_completeness
from arrivals.ingest import ingest_pending
from arrivals.states import State
from drp_tasks.instrument import SimCam
from resources.errors import SiteFault
from simulator.messages import DeliveredFile, FileKind
from tests.arrivals.delivered import DETECTORS, altered, announced, of_kind, receiving_site, with_sidecar

VISITS = 4
RAWS = VISITS * len(DETECTORS)


def test_a_delivery_in_disorder_with_repetitions_becomes_datasets_and_visits(site, delivery):
    messages = announced(delivery.files, duplicates=0.3)
    site.receive(messages)

    report = site.ingest()

    counts = site.ledger.counts()
    assert counts[State.INGESTED] == len(delivery.files)
    assert counts[State.DUPLICATE] == len(messages) - len(delivery.files)
    assert report.datasets == RAWS + len(of_kind(delivery, FileKind.PRODUCT))
    assert site.count("raw") == RAWS
    assert len(report.visits) == site.dimensions("visit") == VISITS
    assert site.dimensions("visit_detector_region") == RAWS
    assert (report.problems, report.conflicts) == ((), ())


def test_the_same_delivery_twice_changes_nothing(site, delivery):
    site.receive(announced(delivery.files))
    site.ingest()

    site.receive(announced(delivery.files))
    report = site.ingest()

    assert report.count(State.DUPLICATE) == len(delivery.files)
    assert site.count("raw") == RAWS
    assert site.dimensions("visit") == VISITS


def test_an_ingest_that_died_before_it_settled_is_completed_by_the_next(site, delivery, tmp_path, repository):
    site.receive(announced(delivery.files))
    site.ingest()
    died = receiving_site(tmp_path / "second", repository, delivery.rucio_folder)
    died.butler = site.butler
    died.receive(announced(delivery.files))

    report = died.ingest()

    assert report.count(State.INGESTED) == len(delivery.files)
    assert site.count("raw") == RAWS
    assert site.count("bias") == len(DETECTORS)
    assert site.dimensions("visit_detector_region") == RAWS


def test_raws_can_be_read_with_their_region_on_the_sky(site, delivery):
    site.receive(announced(delivery.files))
    site.ingest()

    for exposure in sorted(record.id for record in site.butler.query_dimension_records("exposure")):
        raw = site.butler.get(
            "raw", instrument="SimCam", exposure=exposure, detector=DETECTORS[0], collections="SimCam/raw/all"
        )
        [region] = site.butler.query_dimension_records(
            "visit_detector_region", instrument="SimCam", visit=exposure, detector=DETECTORS[0]
        )
        [visit] = site.butler.query_dimension_records("visit", instrument="SimCam", visit=exposure)
        assert raw.array.shape == (64, 80)
        assert visit.region.contains(region.region)


def test_zips_wait_for_their_dimensions_and_are_woken_by_them(site, delivery):
    zips, dimensions = of_kind(delivery, FileKind.ZIP), of_kind(delivery, FileKind.DIMENSIONS)
    site.receive(announced(zips))
    assert site.ingest().count(State.WAITING) == len(zips)
    assert "exposure=" in site.row(zips[0]).reason
    assert not site.ingest().outcomes  # nothing is due, nothing is done

    site.receive(announced(dimensions))
    report = site.ingest()

    assert report.outcomes[Kind.ZIP, State.INGESTED] == len(zips)
    assert site.row(zips[0]).day_obs == 20261101


def test_single_raws_bring_their_own_dimensions(site, delivery):
    site.receive(announced(of_kind(delivery, FileKind.RAW)))

    report = site.ingest()

    assert report.outcomes[Kind.RAW, State.INGESTED] == len(DETECTORS)
    assert len(report.visits) == 1


def test_dimensions_from_headers_are_those_of_the_dimensions_file(site, delivery, tmp_path, repository):
    raws = of_kind(delivery, FileKind.RAW)
    site.receive(announced(raws))
    site.ingest()
    other = receiving_site(tmp_path / "other", repository, delivery.rucio_folder)
    other.receive(announced(of_kind(delivery, FileKind.DIMENSIONS)))
    other.ingest()

    [here] = site.butler.query_dimension_records("exposure")
    [there] = other.butler.query_dimension_records("exposure", instrument="SimCam", exposure=here.id)

    assert here.toDict(splitTimespan=True) == pytest.approx(there.toDict(splitTimespan=True))


def test_a_visit_grows_as_its_detectors_arrive(site, delivery):
    first, second = of_kind(delivery, FileKind.RAW)
    site.receive(announced([first]))
    site.ingest()
    [before] = site.butler.query_dimension_records("visit")

    site.receive(announced([second]))
    site.ingest()

    [after] = site.butler.query_dimension_records("visit")
    assert after.region.contains(before.region)
    assert not before.region.contains(after.region)
    assert site.dimensions("visit_detector_region") == 2


def test_a_visit_that_the_butler_has_otherwise_is_shown_and_its_raws_are_kept(site, delivery):
    raws = of_kind(delivery, FileKind.RAW)
    site.receive(announced(of_kind(delivery, FileKind.DIMENSIONS)))
    site.ingest()
    site.receive(announced(raws))
    number = site.row(raws[0]).exposure
    [record] = site.butler.query_dimension_records("exposure", instrument="SimCam", exposure=number)
    site.butler.registry.insertDimensionData(
        "visit",
        {
            "instrument": "SimCam",
            "id": number,
            "name": "somebody else's",
            "physical_filter": record.physical_filter,
            "day_obs": record.day_obs,
            "timespan": Timespan(None, None),
        },
    )

    report = site.ingest()

    assert [conflict.visit for conflict in report.conflicts] == [number]
    assert 'name "somebody else\'s"' in str(report.conflicts[0])
    assert site.row(raws[0]).state is State.INGESTED
    assert "somebody else's" in site.row(raws[0]).reason
    [remark] = [
        said for said in day_completeness(site.butler, site.ledger, site.settings, 20261102).remarks if "visit" in said
    ]
    assert remark.startswith(f'2 messages ingested, but visit {number}: the Butler has name "somebody else\'s"')


def test_calibrations_are_certified_for_all_times(site, delivery):
    site.receive(announced(of_kind(delivery, FileKind.PRODUCT)))
    site.ingest()

    for name in ("bias", "dark", "flat", "defects"):
        associations = list(site.butler.registry.queryDatasetAssociations(name, collections=["SimCam/calib"]))
        assert len(associations) == len(DETECTORS)
        assert {association.timespan for association in associations} == {Timespan(None, None)}


@pytest.mark.parametrize(("dimension", "what"), [("visit", "exposure"), ("group", "group")])
def test_products_wait_for_what_raws_bring(site, delivery, dimension, what):
    product = of_kind(delivery, FileKind.PRODUCT)[-1]
    raws = of_kind(delivery, FileKind.RAW)
    value = json.loads(raws[0].sidecar)["dataId"]["dataId"][what]
    notes = with_sidecar(
        product,
        datasetType={
            "name": "notes",
            "storageClass": "ArrowAstropy",
            "dimensions": ["instrument", dimension],
        },
        dataId={"instrument": "SimCam", dimension: value},
    )
    site.receive(announced([notes]))
    site.ingest()
    assert site.row(notes).waits_for == f"instrument=SimCam,{dimension}={value}"

    site.receive(announced(raws))
    site.ingest()

    assert site.row(notes).state is State.INGESTED
    assert site.count("notes") == 1


def test_one_day_obs_can_be_ingested_alone_and_so_can_what_belongs_to_none(site, delivery):
    site.receive(announced(delivery.files))

    report = site.ingest(20261101)

    assert {exposure // 100_000 for exposure in report.exposures} == {20261101}
    before = site.ledger.by_day_obs()
    assert before[20261101].due == 0
    assert before[None].due > 0

    ingest_pending(site.butler, site.ledger, site.settings, undated=True)

    after = site.ledger.by_day_obs()
    assert after[None].due == 0
    assert after[20261102].due == before[20261102].due > 0


def test_a_correction_of_dimensions_changes_what_is_there_even_if_the_original_comes_later(site, delivery, tmp_path):
    original = of_kind(delivery, FileKind.DIMENSIONS)[0]
    corrected = altered(
        delivery,
        original,
        delivery.rucio_folder,
        delivery.path(original).read_bytes().replace(b"target_name: ", b"target_name: NOT_"),
        name=original.name.replace("_dimensions.yaml", "_dimensions.1.yaml"),
    )
    site.receive(announced([original]))
    site.ingest()
    [before] = site.butler.query_dimension_records("exposure")

    site.receive(announced([corrected]))
    site.receive(announced([original]))
    site.ingest()

    [after] = site.butler.query_dimension_records("exposure")
    assert after.target_name == f"NOT_{before.target_name}"


def test_a_file_that_is_not_there_is_tried_again_later(site, delivery, tmp_path):
    missing = replace(of_kind(delivery, FileKind.RAW)[0], name="no/such/file.fits")
    site.receive(announced([missing]))

    site.ingest()

    row = site.row(missing)
    assert (row.state, row.attempts) == (State.WAITING, 1)
    assert "file is not there" in row.reason
    assert row.retry_at is not None


def test_the_same_did_with_other_content_is_quarantined(site, delivery):
    raw = of_kind(delivery, FileKind.RAW)[0]
    other = replace(raw, adler32="00000001")
    for file in (raw, other):
        site.receive(announced([file]))
    site.ingest()
    site.receive(announced([other]))
    site.ingest()

    states = [row.state for row in site.ledger.find(name=raw.name)]
    assert states == [State.INGESTED, State.QUARANTINED, State.QUARANTINED]
    assert "other content before" in site.row(raw).reason


def test_bad_files_end_in_quarantine_with_a_reason_and_hold_up_nothing(delivery, tmp_path, repository):
    site = receiving_site(tmp_path, repository, tmp_path / "rucio")
    folder = tmp_path / "rucio"
    raw, good_raw = of_kind(delivery, FileKind.RAW)
    zipped = of_kind(delivery, FileKind.ZIP)[0]
    product = of_kind(delivery, FileKind.PRODUCT)[0]
    good = [
        altered(delivery, file, folder)
        for file in (good_raw, *of_kind(delivery, FileKind.DIMENSIONS), *of_kind(delivery, FileKind.PRODUCT)[1:])
    ]
    good.sort(key=lambda file: "/bias/" in file.name)
    dataset_type = json.loads(product.sidecar)["datasetType"]

    def bad_raw(name: str, content: bytes | None = None, **changes: object):
        return with_sidecar(altered(delivery, raw, folder, content, name=f"bad/{name}.fits"), **changes)

    def bad_product(name: str, **changes: object):
        return with_sidecar(altered(delivery, product, folder, name=f"bad/{name}"), **changes)

    header = delivery.path(raw).read_bytes()
    yaml = of_kind(delivery, FileKind.DIMENSIONS)[0]
    bad = {
        "the header can't be read": bad_raw("empty", b""),
        "header can't be read: Not a raw of SimCam": bad_raw("other", header.replace(b"'SimCam  '", b"'Other   '")),
        "names no detector of SimCam": bad_raw("detector", header.replace(b"'S00     '", b"'S77     '")),
        "was announced as dataset": bad_raw("id", id="00000000-0000-0000-0000-000000000000"),
        "the message 5": bad_raw("mismatch", dataId={"instrument": "SimCam", "detector": 5}),
        "bytes, but": replace(bad_raw("short"), size=3),
        "has adler32": replace(bad_raw("bits"), adler32="12345678"),
        "is no Butler zip": altered(delivery, zipped, folder, b"PK no", name="bad/a.zip"),
        "is no export of dimension records": altered(delivery, yaml, folder, b"- 1\n", name="bad/x_dimensions.yaml"),
        "is not YAML": altered(delivery, yaml, folder, b"a: [\n", name="bad/y_dimensions.yaml"),
        "is of LATISS": bad_product("instrument", dataId={"instrument": "LATISS", "detector": 0}),
        "has no detector 77": bad_product("number", dataId={"instrument": "SimCam", "detector": 77}),
        "lacks detector": bad_product("lacking", dataId={"instrument": "SimCam"}),
        "unknown storage class Sausage": bad_product("class", datasetType={**dataset_type, "storageClass": "Sausage"}),
        "which is no ImageV2": bad_product("table", datasetType={**dataset_type, "storageClass": "ArrowAstropy"}),
        "registered as": bad_product("dims", datasetType={**dataset_type, "dimensions": ["instrument"]}),
    }
    site.receive(announced(good[-1:]))  # of two definitions of a dataset type the first to come counts
    site.ingest()
    site.receive(announced([*good[:-1], *bad.values()]))

    report = site.ingest()

    assert report.count(State.INGESTED) == len(good) - 1
    for reason, file in bad.items():
        row = site.row(file)
        assert (row.state, reason in row.reason) == (State.QUARANTINED, True), row.reason
    assert report.count(State.QUARANTINED) == len(bad) == sum(problem.rows for problem in report.problems)


def test_urls_outside_the_mapped_prefixes_are_quarantined(site, delivery):
    values = [json.loads(message.value) for message in announced(of_kind(delivery, FileKind.RAW))]
    values[0]["payload"]["dst-url"] = "root://elsewhere//rucio/x.fits"
    values[1]["payload"]["dst-url"] += "/../../../../etc/passwd"
    site.receive([json.dumps(value).encode() for value in values])

    report = site.ingest()

    assert sorted("outside" in problem.reason for problem in report.problems) == [False, True]
    assert report.count(State.QUARANTINED) == 2


def test_what_was_quarantined_is_ingested_when_it_was_mended_and_replayed(delivery, tmp_path, repository):
    site = receiving_site(tmp_path, repository, tmp_path / "rucio")
    raw = of_kind(delivery, FileKind.RAW)[0]
    altered(delivery, raw, tmp_path / "rucio", b"truncated")
    site.receive(announced([raw]))
    site.ingest()
    assert site.row(raw).state is State.QUARANTINED

    altered(delivery, raw, tmp_path / "rucio")
    site.ledger.replay([site.row(raw).row_id])
    site.ingest()

    assert site.row(raw).state is State.INGESTED


def test_unknown_dataset_types_need_the_sites_permission(delivery, tmp_path, repository):
    site = receiving_site(tmp_path, repository, delivery.rucio_folder, register_dataset_types=False)
    product = of_kind(delivery, FileKind.PRODUCT)[0]
    site.receive(announced([product]))

    site.ingest()

    assert "unknown dataset type" in site.row(product).reason


def test_another_calibration_for_the_same_detector_is_not_certified_over_the_first(site, delivery):
    bias = of_kind(delivery, FileKind.PRODUCT)[0]
    another = with_sidecar(
        altered(delivery, bias, delivery.rucio_folder, name="again/bias.fits"),
        id="00000000-0000-0000-0000-000000000001",
        run="SimCam/calib/again",
    )
    site.receive(announced([bias]))
    site.ingest()
    site.receive(announced([another]))
    site.ingest()

    assert site.row(another).state is State.QUARANTINED
    assert "is in the Butler, but was not certified" in site.row(another).reason


def without_instrument(delivery, folder) -> DeliveredFile:
    """A dimensions file that brings the exposure alone, as where the instrument is registered everywhere."""
    file = of_kind(delivery, FileKind.DIMENSIONS)[0]
    parts = re.split("(?m)^(?=- type: )", delivery.path(file).read_text())
    registered = re.compile("element: (instrument|physical_filter|detector)\n")
    return altered(delivery, file, folder, "".join(part for part in parts if not registered.search(part)).encode())


def the_raw(delivery, folder) -> DeliveredFile:
    file = of_kind(delivery, FileKind.RAW)[0]
    return altered(delivery, file, folder)


@pytest.mark.parametrize("announce", [the_raw, without_instrument])
def test_an_instrument_that_the_butler_does_not_know_is_the_sites_fault_and_rows_stay(
    announce, delivery, tmp_path, repository
):
    site = receiving_site(tmp_path, repository, tmp_path / "rucio")
    Butler.makeRepo(str(tmp_path / "bare"))
    site.butler = Butler.from_config(str(tmp_path / "bare"), writeable=True)
    file = announce(delivery, tmp_path / "rucio")
    site.receive(announced([file]))

    with pytest.raises(SiteFault, match="doesn't know the instrument SimCam"):
        site.ingest()

    assert site.row(file).state is State.RECEIVED
    SimCam().register(site.butler.registry)
    assert site.ingest().count(State.INGESTED) == 1


def test_an_instrument_whose_package_is_not_installed_is_the_sites_fault_for_whoever_asks(site):
    settings = site.settings.model_copy(update={"instrument": "lsst.obs.nowhere.NowhereCam"})

    for ask in (
        lambda: ingest_pending(site.butler, site.ledger, settings),
        lambda: day_completeness(site.butler, site.ledger, settings, 20261101),
    ):
        with pytest.raises(SiteFault, match=r"arrivals.instrument: .*lsst.obs.nowhere.NowhereCam.*is installed$"):
            ask()


def test_completeness_names_the_missing_detectors_of_half_arrived_exposures(site, delivery):
    first, second = of_kind(delivery, FileKind.RAW)
    site.receive(announced([file for file in delivery.files if file is not second]))
    site.ingest()

    first_day = day_completeness(site.butler, site.ledger, site.settings, 20261101)
    second_day = day_completeness(site.butler, site.ledger, site.settings, 20261102)

    assert (first_day.complete, first_day.arrived, first_day.expected) == (True, 4, 4)
    assert not second_day.complete
    [half] = second_day.incomplete
    assert half.exposure == site.row(first).exposure
    assert half.missing == {json.loads(second.sidecar)["dataId"]["dataId"]["detector"]}


def test_a_night_is_settled_when_it_is_complete_and_quiet(site, delivery):
    site.receive(announced(delivery.files))
    announced_only = day_completeness(site.butler, site.ledger, site.settings, 20261101)
    assert (announced_only.arrived, len(announced_only.exposures), announced_only.complete) == (0, 2, False)
    site.ingest()

    day = day_completeness(site.butler, site.ledger, site.settings, 20261101, expected_detectors=DETECTORS)

    assert day.last_received_at is not None
    assert day.is_settled(day.last_received_at, 0.0)
    assert not day.is_settled(day.last_received_at, 60.0)
