"""At a site with obs_base its own tasks do the work, behind the same interface."""

import errno
import sys
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import pytest
from lsst.daf.butler import DataCoordinate, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.resources import ResourcePath

from arrivals.announcement import Sidecar
from arrivals.exposures import KnownExposures, exposure_records
from arrivals.files import Arrived
from arrivals.message import parse_sidecar
from arrivals.obs_base import ObsBaseRawIngest, ObsBaseVisits, obs_base
from arrivals.raws import IngestedRaw, RawFile
from drp_tasks.instrument import SimCam
from resources.errors import Rejected, Retriable, SiteFault
from simulator.messages import FileKind
from tests.arrivals.delivered import of_kind

TROUBLES = {"unreadable": ValueError("no header"), "troubled disk": OSError(errno.EIO, "Input/output error")}
"""What the task meets where it reads a header, by a word in the file's name."""


@dataclass
class StandInRawFileData:
    """What of ``lsst.obs.base.ingest.RawFileData`` is looked at here."""

    datasets: list[SimpleNamespace]
    filename: ResourcePath
    instrument: SimCam | None


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
        found = [self.extractMetadata(file) for file in files]
        readable = [each.filename for each in found if each.datasets]
        failed = len(readable) < len(found)
        if any("clash" in file.basename() for file in readable):
            exposure = SimpleNamespace(files=[SimpleNamespace(filename=file) for file in readable])
            self.on_ingest_failure(exposure, ConflictingDefinitionError("clash"))
            failed = True
        elif readable:
            self.on_success([self._ingest(file) for file in readable if "existing" not in file.basename()])
        if failed:
            raise RuntimeError("Some failures encountered during ingestion")

    def extractMetadata(self, filename):
        for word, error in TROUBLES.items():
            if word in filename.basename():
                self.on_metadata_failure(filename, error)
                return StandInRawFileData([], filename, None)
        info = SimCam().read_observation(filename).info
        data_id = {"exposure": info.exposure_id, "detector": info.detector_num}
        return StandInRawFileData([SimpleNamespace(dataId=data_id)], filename, SimCam())

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

    def named(name: str, detector: int = 0, sidecar: Sidecar | None = None) -> RawFile:
        path = tmp_path / f"{name}.fits"
        path.write_bytes(delivery.path(of_kind(delivery, FileKind.RAW)[detector]).read_bytes())
        return RawFile(Arrived(ResourcePath(path)), sidecar)

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


def test_a_header_that_a_troubled_disk_withholds_is_read_later_and_its_neighbour_goes_in(site, stack, raws):
    ingest = ObsBaseRawIngest(site.butler, SimCam(), KnownExposures(site.butler, "SimCam"))

    good, troubled = ingest.ingest([raws("good"), raws("on a troubled disk", 1)])

    assert isinstance(good, IngestedRaw)
    assert isinstance(troubled, Retriable)
    assert "Input/output error" in str(troubled)
    assert ingest._task.calls == [2]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_id": (("instrument", "LATISS"),)}, "is of LATISS, but this site takes SimCam"),
        ({"data_id": (("detector", 5),)}, "the header says detector 1, the message 5"),
        ({"data_id": (("exposure", 7),)}, "the header says exposure 2026110200001, the message 7"),
        ({"run": "u/me"}, "announced as raw of run u/me, but a raw of SimCam is raw of run SimCam/raw/all"),
        ({"dataset_type": "guider_raw"}, "announced as guider_raw of run SimCam/raw/all"),
    ],
    ids=["another instrument", "another detector", "another exposure", "another run", "another dataset type"],
)
def test_a_raw_that_its_message_calls_something_else_is_not_ingested(site, delivery, stack, raws, changes, reason):
    first, second = (parse_sidecar(file.sidecar) for file in of_kind(delivery, FileKind.RAW))
    ingest = ObsBaseRawIngest(site.butler, SimCam(), KnownExposures(site.butler, "SimCam"))

    good, bad = ingest.ingest([raws("good", 0, first), raws("bad", 1, replace(second, **changes))])

    assert isinstance(good, IngestedRaw)
    assert isinstance(bad, Rejected)
    assert reason in str(bad)
    assert len(ingest._task.calls) == 1


def test_visits_that_conflict_are_shown(site, stack):
    visits = ObsBaseVisits(site.butler, SimCam())
    raws = [IngestedRaw(exposure, 0, 20261101) for exposure in (2026110100001, 2026110100002)]

    defined = visits.define(raws)

    assert [str(conflict) for conflict in defined.conflicts] == ["visit 2026110100001: another definition is there"]
    assert not visits.needs_footprints({(2026110100001, 0)})


def test_without_obs_base_the_fault_says_what_to_do():
    with pytest.raises(SiteFault, match=r"lsst\.obs\.base is not installed; run in the site's stack"):
        obs_base()
