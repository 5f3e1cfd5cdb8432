"""SimCam in a Butler."""

import pytest
from lsst.daf.butler import Butler

from drp_tasks.instrument import SimCam
from drp_tasks.raw_formatter import SimCamRawFormatter


@pytest.fixture(scope="module")
def butler(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("repo"))
    Butler.makeRepo(root)
    butler = Butler.from_config(root, writeable=True)
    SimCam().register(butler.registry)
    return butler


def test_all_detectors_and_filters_are_registered(butler):
    assert len(butler.query_dimension_records("detector", instrument="SimCam")) == 9
    bands = {record.name: record.band for record in butler.query_dimension_records("physical_filter")}
    assert bands["r_57"] == "r"
    assert len(bands) == 6


def test_registering_twice_changes_nothing(butler):
    before = butler.query_dimension_records("detector", instrument="SimCam")
    SimCam().register(butler.registry)
    assert butler.query_dimension_records("detector", instrument="SimCam") == before


def test_visits_are_one_to_one_with_exposures_by_default(butler):
    (instrument,) = butler.query_dimension_records("instrument")
    (system,) = butler.query_dimension_records("visit_system")
    assert (instrument.visit_system, system.id, system.name) == (0, 0, "one-to-one")


def test_ids_of_this_century_fit(butler):
    (instrument,) = butler.query_dimension_records("instrument")
    assert instrument.exposure_max > 20991231_99999


def test_the_class_is_found_again_by_the_instruments_name(butler):
    instrument = SimCam.fromName("SimCam", butler.registry)
    assert isinstance(instrument, SimCam)
    assert instrument.makeDefaultRawIngestRunName() == "SimCam/raw/all"
    assert instrument.getRawFormatter({}) is SimCamRawFormatter
