"""A delivery is whole, the same to the bit however it was made, and what a site's Butler accepts."""

import hashlib
import json
import zlib
from dataclasses import replace

import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset

from drp_tasks.camera import INSTRUMENT
from drp_tasks.raw_formatter import SimCamRawFormatter, read_observation, read_zip_observations
from drp_tasks.skymap import register_skymap
from simulator import delivery as delivery_module
from simulator.delivery import simulate
from simulator.messages import FileKind


def digests(delivery):
    """Digest of each file; of an image alone where the file tells when it was written."""
    return {
        file.name: hashlib.sha256(
            fits.getdata(delivery.path(file)).tobytes() if file.scope == "calib" else delivery.path(file).read_bytes()
        ).hexdigest()
        for file in delivery.files
    }


def of_kind(delivery, kind):
    return [file for file in delivery.files if file.kind is kind]


@pytest.fixture
def site(tmp_path, tiny):
    Butler.makeRepo(str(tmp_path / "repo"))
    butler = Butler.from_config(str(tmp_path / "repo"), writeable=True)
    raw_type = DatasetType("raw", ("instrument", "exposure", "detector"), "ImageV2", universe=butler.dimensions)
    butler.registry.registerDatasetType(raw_type)
    register_skymap(butler, tiny.skymap)
    return butler


def ingest_single(site, delivery, file, formatter=None):
    ref = DatasetRef.from_json(file.sidecar, universe=site.dimensions)
    site.registry.registerDatasetType(ref.datasetType)
    site.collections.register(ref.run)
    site.ingest(FileDataset(str(delivery.path(file)), [ref], formatter=formatter), transfer="direct")
    return ref


def test_two_processes_make_the_same_bits_as_one(tiny, delivery, tmp_path):
    assert digests(simulate(tiny, tmp_path, processes=2)) == digests(delivery)


def test_a_finished_survey_is_found_and_not_made_again(tiny, delivery, monkeypatch):
    monkeypatch.setattr(delivery_module, "observe", None)
    assert simulate(tiny, delivery.folder) == delivery


def test_an_interrupted_survey_continues_to_the_same_bits(tiny, delivery, tmp_path, monkeypatch):
    drawn = []

    def interrupted(survey, visit, detector):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(detector)
        return observe(survey, visit, detector)

    observe = delivery_module.observe
    monkeypatch.setattr(delivery_module, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny, tmp_path)
    monkeypatch.setattr(delivery_module, "observe", observe)
    left = []
    resumed = simulate(tiny, tmp_path, progress=lambda what, done, total: left.append((what, total)))
    assert digests(resumed) == digests(delivery)
    assert ("raws and calibrations", tiny.raw_count - 2) in left


def test_a_folder_of_another_survey_is_refused(tiny, delivery):
    with pytest.raises(ValueError, match="take another folder"):
        simulate(replace(tiny, seed=5), delivery.folder)


def test_every_raw_travels_once_in_a_zip_or_as_a_file(tiny, delivery):
    in_zips = [
        (observation.info.exposure_id, observation.info.detector_num)
        for file in of_kind(delivery, FileKind.ZIP)
        for observation in read_zip_observations(str(delivery.path(file))).values()
    ]
    single = [read_observation(str(delivery.path(file))).info for file in of_kind(delivery, FileKind.RAW)]
    assert len(of_kind(delivery, FileKind.ZIP)) == tiny.visit_count - 1
    assert len(single) == len(tiny.detectors)
    assert sorted(in_zips + [(info.exposure_id, info.detector_num) for info in single]) == sorted(
        (visit.id, detector.id) for visit in tiny.visits for detector in tiny.detectors
    )


def test_checksums_and_sizes_are_those_of_the_files(delivery):
    for file in delivery.files:
        content = delivery.path(file).read_bytes()
        assert (file.size, file.adler32) == (len(content), f"{zlib.adler32(content):08x}")


def test_raws_are_laid_out_by_day_obs(tiny, delivery):
    for file in delivery.files:
        if file.scope == "raw":
            assert file.name.startswith(f"{INSTRUMENT}/20261101/SC_S_20261101_")


def test_a_zip_is_ingested_once_its_dimensions_are_there(tiny, delivery, site):
    for file in of_kind(delivery, FileKind.DIMENSIONS):
        site.import_(filename=str(delivery.path(file)))
    (zipped,) = of_kind(delivery, FileKind.ZIP)
    site.ingest_zip(str(delivery.path(zipped)), transfer="direct")
    refs = site.query_datasets("raw", collections="SimCam/raw/all")
    assert len(refs) == len(tiny.detectors)
    image = site.get(refs[0])
    assert image.array.shape == (tiny.detector_px, tiny.detector_px + 16)
    assert site.query_dimension_records("visit", explain=False) == []


def test_a_single_raws_sidecar_names_the_dataset_that_a_zip_would(delivery, site):
    for file in of_kind(delivery, FileKind.DIMENSIONS):
        site.import_(filename=str(delivery.path(file)))
    for file in of_kind(delivery, FileKind.RAW):
        ref = ingest_single(site, delivery, file, SimCamRawFormatter)
        info = read_observation(str(delivery.path(file))).info
        assert (ref.dataId["exposure"], ref.dataId["detector"]) == (info.exposure_id, info.detector_num)
        assert ref.id.version == 5
        assert site.get(ref).metadata["CCDSLOT"] == info.detector_name
        assert "records" not in json.loads(file.sidecar)["dataId"]


def test_products_are_ingested_with_the_ids_and_runs_of_their_sidecars(tiny, delivery, site):
    for file in of_kind(delivery, FileKind.DIMENSIONS):
        site.import_(filename=str(delivery.path(file)))
    refs = [ingest_single(site, delivery, file) for file in of_kind(delivery, FileKind.PRODUCT)]
    runs = {ref.datasetType.name: ref.run for ref in refs}
    assert runs == {
        **dict.fromkeys(("bias", "dark", "flat", "defects"), "SimCam/calib/gen"),
        "simulated_refcat": "refcats",
        **dict.fromkeys(("truth_object", "truth_transient", "truth_visit"), "SimCam/truth"),
    }
    flat = site.get("flat", instrument=INSTRUMENT, detector=1, physical_filter="r_57", collections="SimCam/calib/gen")
    assert flat.array.shape == (tiny.detector_px, tiny.detector_px)
    assert site.get_dataset_type("bias").isCalibration()
    assert len(site.get("truth_visit", instrument=INSTRUMENT, collections="SimCam/truth")) == tiny.raw_count


def test_every_file_is_announced_with_its_sidecar(delivery):
    announced = {}
    for message in delivery.messages():
        payload = json.loads(message.value)["payload"]
        announced[payload["scope"], payload["name"]] = payload["rubin_sidecar"]
    assert announced == {(file.scope, file.name): file.sidecar for file in delivery.files}
