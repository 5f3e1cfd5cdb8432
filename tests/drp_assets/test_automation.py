"""What runs by itself, as Dagster's own evaluation of the conditions sees it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from drp_assets.automation import OverlapDone, when_overlap_ready, when_ready
from planning.pipeline import Sharding
from planning.release import Release

DAYS = dg.StaticPartitionsDefinition(["20261101", "20261102"])
TRACTS = dg.StaticPartitionsDefinition(["0", "1"])
INPUTS = dg.AssetKey(["dr1", "inputs"])
IMAGE = dg.AssetKey(["dr1", "image"])
COADD = dg.AssetKey(["dr1", "coadd"])
MAPS = dg.AssetKey(["dr1", "maps"])
DIFFERENCE = dg.AssetKey(["dr1", "difference"])
DIA_OBJECT = dg.AssetKey(["dr1", "dia_object"])
CHECK = "complete"


class Overlap:
    """Tract 0 lies under both day_obs, tract 1 under the first alone."""

    def pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset({("20261101", "0"), ("20261102", "0"), ("20261101", "1")})

    def needs(self, sharding: Sharding) -> Mapping[str, frozenset[str]]:
        if sharding is Sharding.DAY_OBS:
            return {"20261101": frozenset({"0", "1"}), "20261102": frozenset({"0"})}
        return {"0": frozenset({"20261101", "20261102"}), "1": frozenset({"20261101"})}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def definitions(monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    monkeypatch.setattr("drp_assets.automation.SkyOverlap", lambda site, release: Overlap())
    release: Any = Release.model_construct(name="dr1")
    site: Any = None

    @dg.multi_asset(name="inputs", specs=[dg.AssetSpec(INPUTS, skippable=True)], partitions_def=DAYS)
    def inputs() -> Iterator[Any]:
        yield from ()

    @dg.multi_asset(
        name="image",
        specs=[dg.AssetSpec(IMAGE, deps=[INPUTS], skippable=True, automation_condition=when_ready())],
        check_specs=[dg.AssetCheckSpec(CHECK, asset=IMAGE, partitions_def=DAYS, blocking=True)],
        partitions_def=DAYS,
    )
    def image() -> Iterator[Any]:
        yield from ()

    dep = dg.AssetDep(IMAGE, partition_mapping=dg.AllPartitionMapping())
    condition = when_overlap_ready(site, release, Sharding.TRACT, [IMAGE])

    @dg.multi_asset(
        name="coadd",
        specs=[dg.AssetSpec(COADD, deps=[dep], skippable=True, automation_condition=condition)],
        check_specs=[dg.AssetCheckSpec(CHECK, asset=COADD, partitions_def=TRACTS, blocking=True)],
        partitions_def=TRACTS,
    )
    def coadd() -> Iterator[Any]:
        yield from ()

    @dg.multi_asset(
        name="maps",
        specs=[
            dg.AssetSpec(
                MAPS,
                deps=[COADD],
                skippable=True,
                automation_condition=when_overlap_ready(site, release, Sharding.WHOLE, [COADD]),
            )
        ],
    )
    def maps() -> Iterator[Any]:
        yield from ()

    template = dg.AssetDep(COADD, partition_mapping=dg.AllPartitionMapping())

    @dg.multi_asset(
        name="difference",
        specs=[
            dg.AssetSpec(
                DIFFERENCE,
                deps=[IMAGE, template],
                skippable=True,
                automation_condition=when_overlap_ready(site, release, Sharding.DAY_OBS, [COADD]),
            )
        ],
        check_specs=[dg.AssetCheckSpec(CHECK, asset=DIFFERENCE, partitions_def=DAYS, blocking=True)],
        partitions_def=DAYS,
    )
    def difference() -> Iterator[Any]:
        yield from ()

    every_day = dg.AssetDep(DIFFERENCE, partition_mapping=dg.AllPartitionMapping())

    @dg.multi_asset(
        name="dia_object",
        specs=[
            dg.AssetSpec(
                DIA_OBJECT,
                deps=[COADD, every_day],
                skippable=True,
                automation_condition=when_overlap_ready(site, release, Sharding.TRACT, [DIFFERENCE]),
            )
        ],
        partitions_def=TRACTS,
    )
    def dia_object() -> Iterator[Any]:
        yield from ()

    return dg.Definitions(assets=[inputs, image, coadd, maps, difference, dia_object])


class Facility:
    """An instance to which things happen."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.definitions = definitions
        self.instance = instance
        self.cursor: Any = None

    def make(self, key: dg.AssetKey, *partitions: str) -> None:
        for partition in partitions:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    def check(
        self,
        partition: str,
        *,
        passed: bool,
        key: dg.AssetKey = IMAGE,
        severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    ) -> None:
        record = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1
        ).records[0]
        evaluation = dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=CHECK,
            passed=passed,
            metadata={},
            partition=partition,
            severity=severity,
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            ),
        )
        self._report(DagsterEventType.ASSET_CHECK_EVALUATION, evaluation, str(uuid.uuid4()))

    def begin(self, key: dg.AssetKey, partition: str) -> str:
        """Start a run that makes a partition; returns its id."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        run = self.instance.create_run_for_job(
            job.get_subset(asset_selection=frozenset({key})),
            tags={"dagster/partition": partition},
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset({key}),
        )
        return str(run.run_id)

    def end(self, run_id: str, key: dg.AssetKey, partition: str) -> None:
        """Let a run have made its partition."""
        made = StepMaterializationData(dg.AssetMaterialization(key, partition=partition))
        self._report(DagsterEventType.ASSET_MATERIALIZATION, made, run_id)
        self._report(DagsterEventType.RUN_SUCCESS, None, run_id)

    def _report(self, kind: DagsterEventType, said: Any, run_id: str) -> None:
        event = DagsterEvent(event_type_value=kind.value, job_name="", event_specific_data=said)
        self.instance.report_dagster_event(event, run_id)

    def asked_for(self, key: dg.AssetKey) -> set[str]:
        result = dg.evaluate_automation_conditions(defs=self.definitions, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return set(result.get_requested_partitions(key))

    def asks_for_whole(self, key: dg.AssetKey) -> bool:
        result = dg.evaluate_automation_conditions(defs=self.definitions, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return bool(result.get_num_requested(key))


@pytest.fixture
def facility(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Facility:
    return Facility(definitions, instance)


def test_partition_runs_when_what_it_needs_has_come(facility: Facility) -> None:
    assert facility.asked_for(IMAGE) == set()
    facility.make(INPUTS, "20261101")
    assert facility.asked_for(IMAGE) == {"20261101"}


def test_partition_runs_again_when_what_it_was_made_from_is_newer(facility: Facility) -> None:
    facility.make(INPUTS, "20261101")
    facility.make(IMAGE, "20261101")
    assert facility.asked_for(IMAGE) == set()
    facility.make(INPUTS, "20261101")
    assert facility.asked_for(IMAGE) == {"20261101"}


def test_what_comes_while_a_partition_is_being_made_makes_it_run_again(facility: Facility) -> None:
    facility.make(INPUTS, "20261101")
    assert facility.asked_for(IMAGE) == {"20261101"}
    run = facility.begin(IMAGE, "20261101")
    assert facility.asked_for(IMAGE) == set()
    facility.make(INPUTS, "20261101")
    assert facility.asked_for(IMAGE) == set(), "it is being made"
    facility.end(run, IMAGE, "20261101")
    assert facility.asked_for(IMAGE) == {"20261101"}


def test_what_was_there_when_a_partition_was_begun_by_hand_does_not_make_it_run_again(facility: Facility) -> None:
    facility.make(INPUTS, "20261101")
    facility.make(IMAGE, "20261101")
    assert facility.asked_for(IMAGE) == set()
    facility.make(INPUTS, "20261101")
    run = facility.begin(IMAGE, "20261101")
    assert facility.asked_for(IMAGE) == set()
    facility.end(run, IMAGE, "20261101")
    assert facility.asked_for(IMAGE) == set()


def test_nothing_is_made_from_what_ought_to_be_made_again_first(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    facility.make(IMAGE, "20261101", "20261102")
    for day_obs in ("20261101", "20261102"):
        facility.check(day_obs, passed=True)
    facility.make(COADD, "0", "1")
    assert facility.asked_for(COADD) == set()
    run = facility.begin(IMAGE, "20261101")
    assert facility.asked_for(COADD) == set()
    facility.make(INPUTS, "20261101")
    facility.end(run, IMAGE, "20261101")
    facility.check("20261101", passed=True)
    assert facility.asked_for(COADD) == set(), "the image it would be made from is outdated"
    run = facility.begin(IMAGE, "20261101")
    assert facility.asked_for(COADD) == set()
    facility.end(run, IMAGE, "20261101")
    facility.check("20261101", passed=True)
    assert facility.asked_for(COADD) == {"0", "1"}


def test_what_depends_on_a_step_directly_and_through_another_waits_for_the_other(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    for key, partitions in (
        (IMAGE, ("20261101", "20261102")),
        (COADD, ("0", "1")),
        (DIFFERENCE, ("20261101", "20261102")),
    ):
        facility.make(key, *partitions)
        for partition in partitions:
            facility.check(partition, passed=True, key=key)
    facility.make(DIA_OBJECT, "0", "1")
    assert facility.asked_for(DIA_OBJECT) == set()

    run = facility.begin(COADD, "0")
    assert facility.asked_for(DIA_OBJECT) == set()
    other = facility.begin(COADD, "1")
    facility.end(run, COADD, "0")
    facility.check("0", passed=True, key=COADD)
    assert facility.asked_for(DIA_OBJECT) == set(), "the differences have to be made again first"
    facility.end(other, COADD, "1")
    facility.check("1", passed=True, key=COADD)
    assert facility.asked_for(DIA_OBJECT) == set(), "and that isn't forgotten while nothing can be done about it"
    runs = {day_obs: facility.begin(DIFFERENCE, day_obs) for day_obs in ("20261101", "20261102")}
    assert facility.asked_for(DIA_OBJECT) == set()
    for day_obs, run in runs.items():
        facility.end(run, DIFFERENCE, day_obs)
        facility.check(day_obs, passed=True, key=DIFFERENCE)
    assert "0" in facility.asked_for(DIA_OBJECT)


def test_tract_waits_until_every_overlapping_day_obs_is_done(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    facility.make(IMAGE, "20261101")
    facility.check("20261101", passed=True)
    assert facility.asked_for(COADD) == {"1"}
    facility.make(IMAGE, "20261102")
    facility.check("20261102", passed=True)
    assert facility.asked_for(COADD) == {"0", "1"}


def test_only_a_tract_that_overlaps_a_day_obs_waits_while_that_is_being_made_again(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    facility.make(IMAGE, "20261101", "20261102")
    facility.check("20261101", passed=True)
    facility.check("20261102", passed=True)
    run = facility.begin(IMAGE, "20261102")
    assert facility.asked_for(COADD) == {"1"}
    facility.end(run, IMAGE, "20261102")
    facility.check("20261102", passed=True)
    assert facility.asked_for(COADD) == {"0", "1"}


def test_tract_waits_until_the_inputs_of_all_day_obs_have_come(facility: Facility) -> None:
    facility.make(INPUTS, "20261101")
    facility.make(IMAGE, "20261101")
    facility.check("20261101", passed=True)
    assert facility.asked_for(COADD) == set()
    facility.make(INPUTS, "20261102")
    assert facility.asked_for(COADD) == {"1"}


def test_failed_blocking_check_stops_what_depends_on_it(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    facility.make(IMAGE, "20261101", "20261102")
    facility.check("20261101", passed=True)
    facility.check("20261102", passed=False)
    assert facility.asked_for(COADD) == {"1"}


def test_check_that_only_warns_does_not_stop_what_depends_on_it(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    facility.make(IMAGE, "20261101", "20261102")
    facility.check("20261101", passed=True)
    facility.check("20261102", passed=False, severity=dg.AssetCheckSeverity.WARN)
    assert facility.asked_for(COADD) == {"0", "1"}
    facility.make(COADD, "0", "1")
    facility.check("0", passed=False, severity=dg.AssetCheckSeverity.WARN, key=COADD)
    facility.check("1", passed=True, key=COADD)
    assert facility.asked_for(DIFFERENCE) == {"20261101", "20261102"}


def test_error_after_a_warning_stops_and_warning_after_an_error_lets_go(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    facility.make(IMAGE, "20261101", "20261102")
    facility.check("20261101", passed=False, severity=dg.AssetCheckSeverity.WARN)
    facility.check("20261102", passed=False)
    assert facility.asked_for(COADD) == {"1"}
    facility.check("20261101", passed=False)
    facility.check("20261102", passed=False, severity=dg.AssetCheckSeverity.WARN)
    assert facility.asked_for(COADD) == set()
    facility.check("20261101", passed=False, severity=dg.AssetCheckSeverity.WARN)
    assert facility.asked_for(COADD) == {"0", "1"}


def test_whole_step_waits_for_every_tract_that_a_visit_touches(facility: Facility) -> None:
    facility.make(INPUTS, "20261101", "20261102")
    facility.make(COADD, "0")
    facility.check("0", passed=True, key=COADD)
    assert not facility.asks_for_whole(MAPS)
    facility.make(COADD, "1")
    facility.check("1", passed=True, key=COADD)
    assert facility.asks_for_whole(MAPS)


def test_definitions_with_conditions_of_our_own_can_be_sent_to_the_daemon(definitions: dg.Definitions) -> None:
    sent = serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    assert "dr1" in sent


def test_condition_says_in_the_ui_what_is_waited_for() -> None:
    overlap: Any = Overlap()
    condition = OverlapDone(overlap, IMAGE, INPUTS, Sharding.TRACT)
    assert condition.name == "overlapping partitions of dr1/image are done"
