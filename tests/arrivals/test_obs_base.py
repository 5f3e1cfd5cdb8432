"""At a site with obs_base its own tasks do the work, behind the same interface."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from lsst.daf.butler import DataCoordinate, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.resources import ResourcePath

from arrivals.exposures import KnownExposures, exposure_records
from arrivals.files import Arrived
from arrivals.obs_base import ObsBaseRawIngest, ObsBaseVisits, obs_base
from arrivals.raws import IngestedRaw, RawFile
from drp_tasks.instrument import SimCam
from resources.errors import Rejected, SiteFault
from simulator.messages import FileKind
from tests.arrivals.delivered import of_kind


class StandInRawIngestTask:
    """Calls and callbacks as those of ``lsst.obs.base.RawIngestTask``: an exposure goes in whole or fails whole."""

    ConfigClass = SimpleNamespace

    def __init__(self, config, *, butler, on_success, on_metadata_failure, on_ingest_failure):
        self.config, self.butler = config, butler
        self.on_success, self.on_metadata_failure, self.on_ingest_failure = (
            on_success, on_metadata_failure, on_ingest_failure,
        )  # fmt: skip
        self.calls: list[int] = []

    def run(self, files, *, group_files, skip_existing_exposures):
        self.calls.append(len(files))
        readable, failed = [], False
        for file in files:
            if "unreadable" in file.basename():
                self.on_metadata_failure(file, ValueError("no header"))
                failed = True
            else:
                readable.append(file)
        if any("clash" in file.basename() for file in readable):
            exposure = SimpleNamespace(files=[SimpleNamespace(filename=file) for file in readable])
            self.on_ingest_failure(exposure, ConflictingDefinitionError("clash"))
            failed = True
        elif readable:
            self.on_success([self._ingest(file) for file in readable if "existing" not in file.basename()])
        if failed:
            raise RuntimeError("Some failures encountered during ingestion")

    def _ingest(self, file):
        info = SimCam().read_observation(file).info
        for element, record in exposure_records(info).items():
            self.butler.registry.insertDimensionData(element, record, skip_existing=True)
        dataset_type = DatasetType(*SimCam.raw_definition, universe=self.butler.dimensions)
        data_id = DataCoordinate.standardize(
            instrument="SimCam",
            exposure=info.exposure_id,
            detector=info.detector_num,
            dimensions=dataset_type.dimensions,
        )
        return FileDataset(file, [DatasetRef(dataset_type, data_id, run="SimCam/raw/all")])


class StandInDefineVisitsTask:
    """Calls as those of ``lsst.obs.base.DefineVisitsTask``."""

    ConfigClass = SimpleNamespace
    _DefaultName = "defineVisits"

    def __init__(self, config, *, butler):
        self.butler = butler

    def run(self, data_ids, *, collections, incremental=False, update_records=False):
        assert collections == "SimCam/raw/all"
        assert incremental != update_records
        if any(data_id["exposure"] % 2 for data_id in data_ids):
            raise ConflictingDefinitionError("another definition\nis there")


@pytest.fixture
def stack(monkeypatch):
    package = ModuleType("lsst.obs.base")
    package.RawIngestTask = StandInRawIngestTask
    package.DefineVisitsTask = StandInDefineVisitsTask
    monkeypatch.setitem(sys.modules, "lsst.obs", ModuleType("lsst.obs"))
    monkeypatch.setitem(sys.modules, "lsst.obs.base", package)


@pytest.fixture
def raws(delivery, tmp_path):
    """Files named for what the task is to do with them, all of one exposure."""

    def named(name: str, detector: int = 0) -> RawFile:
        path = tmp_path / f"{name}.fits"
        path.write_bytes(delivery.path(of_kind(delivery, FileKind.RAW)[detector]).read_bytes())
        return RawFile(Arrived(ResourcePath(path)))

    return named


def test_raws_go_in_through_the_task(site, stack, raws):
    ingest = ObsBaseRawIngest(site.butler, SimCam(), KnownExposures(site.butler, "SimCam"))

    first, second = ingest.ingest([raws("a", 0), raws("b", 1)])

    assert isinstance(first, IngestedRaw)
    assert isinstance(second, IngestedRaw)
    assert (first.detector, second.detector, first.day_obs) == (0, 1, 20261102)
    assert ingest._task.config.transfer == "direct"


def test_a_bad_raw_does_not_hold_up_the_others_of_its_exposure(site, stack, raws):
    ingest = ObsBaseRawIngest(site.butler, SimCam(), KnownExposures(site.butler, "SimCam"))

    good, unreadable, clash, existing = ingest.ingest(
        [raws("good"), raws("unreadable"), raws("clash"), raws("existing")]
    )

    assert isinstance(good, IngestedRaw)
    assert isinstance(unreadable, Rejected)
    assert isinstance(clash, ConflictingDefinitionError)
    assert "neither ingested nor refused" in str(existing)


def test_visits_that_conflict_are_shown(site, stack):
    visits = ObsBaseVisits(site.butler, SimCam())
    raws = [IngestedRaw(exposure, 0, 20261101) for exposure in (2026110100001, 2026110100002)]

    defined = visits.define(raws)

    assert [str(conflict) for conflict in defined.conflicts] == ["visit 2026110100001: another definition is there"]
    assert not visits.needs_footprints({(2026110100001, 0)})


def test_without_obs_base_the_fault_says_what_to_do():
    with pytest.raises(SiteFault, match=r"lsst\.obs\.base is not installed; run in the site's stack"):
        obs_base()
