"""What the site's assets record: half-arrived exposures, transfers with what can't be computed, health."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.records import Partition, Reception
from arrivals.transfers import RsePair, TransferStatistics
from drp_assets.arrival_checks import ARRIVALS, build_arrival_checks
from drp_assets.keys import COMPLETE, RAW, SITE_PRODUCTS
from drp_assets.raws import build_site_assets
from drp_assets.transfers import EFFICIENCY, TRANSFERS, build_transfers, pair_table
from resources.site import Site
from sensors.arrivals import ARRIVING_TAG
from simulator.messages import DeliveredFile, FileKind
from tests.arrivals.delivered import announced, deliver, make_repository, of_kind, receiving_site
from tests.arrivals.hermes import encoded

PLACE = Partition("cluster", "LAPTOP-raw", 0)


@pytest.fixture(scope="module")
def delivery(tmp_path_factory):
    return deliver(tmp_path_factory.mktemp("survey") / "survey")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return make_repository(tmp_path_factory.mktemp("repository") / "repository")


@pytest.fixture
def receiving(tmp_path, repository, delivery):
    return receiving_site(tmp_path, repository, delivery.rucio_folder)


def site_of(folder: Path, **arrivals: object) -> Site:
    settings = {
        "topics": "^LAPTOP-.*",
        "instrument": "drp_tasks.instrument.SimCam",
        "paths": [{"announced": "root://a", "local": str(folder)}],
        **arrivals,
    }
    return Site.model_validate(
        {
            "name": "test",
            "state": folder,
            "butler": {"repository": str(folder / "repo")},
            "ledger": f"sqlite:///{folder}/ledger.sqlite3",
            "kafka": {"address_file": folder / "no-address"},
            "arrivals": settings,
            "wms": {"service": "launchers.local.service.LocalService"},
            "reports_url": "http://reports",
        }
    )


def materialize(assets, key: dg.AssetKey, partition: str | None = None) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(assets, selection=[key], partition_key=partition, instance=instance)


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def test_raw_names_its_half_arrived_exposures(receiving, delivery, tmp_path):
    first, _ = of_kind(delivery, FileKind.RAW)
    others = [file for file in delivery.files if file.kind is not FileKind.RAW]
    receiving.receive(announced([*others, first]))
    site = site_of(tmp_path, **receiving.settings.model_dump())

    result = materialize(build_site_assets(site), RAW, "20261102")
    complete = checks_of(result)[COMPLETE]

    assert result.success
    assert not complete.passed
    assert complete.metadata["raws arrived"].value == 3
    assert complete.metadata["exposures incomplete"].value == 1
    assert "never announced" in str(complete.metadata["half-arrived exposures"].value)
    assert "3 of 4 raws; exposure 20261102" in str(complete.description)

    whole = checks_of(materialize(build_site_assets(site), RAW, "20261101"))[COMPLETE]
    assert whole.passed


def test_a_night_that_goes_on_is_told_of_and_materialised_only_at_its_end(receiving, delivery, tmp_path):
    first, *more = of_kind(delivery, FileKind.RAW)
    before = [file for file in delivery.files if file.kind is not FileKind.RAW]
    site = site_of(tmp_path, **receiving.settings.model_dump())

    with dg.DagsterInstance.ephemeral() as instance:

        def ingest(*files: DeliveredFile, arriving: bool) -> tuple[int, int]:
            receiving.receive(announced(files))
            tags = {ARRIVING_TAG: "true"} if arriving else {}
            assets = build_site_assets(site)
            done = dg.materialize(assets, selection=[RAW], partition_key="20261102", instance=instance, tags=tags)
            assert done.success
            return len(done.get_asset_observation_events()), len(done.get_asset_materialization_events())

        assert ingest(*before, first, arriving=True) == (1, 0)
        assert ingest(*more, arriving=True) == (1, 0)
        assert ingest(arriving=True) == (0, 0)
        assert ingest(arriving=False) == (0, 1)
        assert ingest(arriving=False) == (0, 0)


def test_raws_of_a_day_without_partition_come_with_the_products(receiving, delivery, tmp_path, monkeypatch):
    receiving.receive(announced(delivery.files))
    site = site_of(tmp_path, **receiving.settings.model_dump())
    later = dg.DailyPartitionsDefinition("20261102", fmt="%Y%m%d", hour_offset=12, end_offset=1, timezone="UTC")
    monkeypatch.setattr("drp_assets.raws.SITE_DAY_OBS", later)

    assert materialize(build_site_assets(site), SITE_PRODUCTS).success

    assert receiving.count("raw") == 4
    assert receiving.count("flat") > 0


def record(site: Site, *values: bytes) -> None:
    ledger = Ledger(site.ledger)
    start = max(ledger.offsets("cluster").values(), default=0)
    receptions = [Reception(PLACE, start + index, parse_message(value)) for index, value in enumerate(values)]
    ledger.record_batch(receptions, {PLACE: start + len(values)}, now=dt.datetime(2025, 6, 3, tzinfo=dt.UTC))
    ledger.close()


def at(hour: int, event_type: str = "transfer-done", **payload: object) -> bytes:
    return encoded(event_type, **payload).replace(b"2025-03-20 20:15:43.153695", b"2025-06-02 %02d:15:43" % hour)


def test_transfers_tell_efficiency_rate_and_volume_by_pair_and_hour(tmp_path):
    site = site_of(tmp_path)
    record(site, at(3), at(3, name="b.fits"), at(4, "transfer-failed"), at(5, "transfer-submitted"))

    result = materialize([build_transfers(site)], TRANSFERS, "2025-06-02")
    [made] = result.asset_materializations_for_node(TRANSFERS.to_python_identifier())
    numbers = {key: entry.value for key, entry in made.metadata.items()}

    assert (numbers["transfers done"], numbers["transfers failed"], numbers["other events"]) == (2, 1, 1)
    assert numbers["efficiency"] == pytest.approx(2 / 3)
    assert numbers["mean rate of a transfer (MB/s)"] == pytest.approx(14.91264 / 4)
    assert numbers["not computable"] == "nothing"
    assert numbers["figure"] == "http://reports/transfers/2025-06-02.png"
    assert "| XRD1 → XRD5 | 2 | 1 | 0.667 |" in numbers["pairs of RSEs"]
    with (site.reports / "transfers" / "2025-06-02.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["hour"][11:13], row["done"], row["efficiency"]) for row in rows] == [
        ("03", "2", "1.0"),
        ("04", "0", "0.0"),
        ("05", "0", ""),
    ]
    assert (site.reports / "transfers" / "2025-06-02.png").stat().st_size > 10_000
    check = checks_of(result)[EFFICIENCY]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.description == "2 of 3 transfers succeeded; the worst pair is XRD1 → XRD5 with 1 of 3 failed"


def test_a_day_on_which_nothing_ended_says_what_cannot_be_computed(tmp_path):
    site = site_of(tmp_path)
    record(site, at(5, "transfer-submitted"))

    result = materialize([build_transfers(site)], TRANSFERS, "2025-06-02")
    [made] = result.asset_materializations_for_node(TRANSFERS.to_python_identifier())

    assert made.metadata["not computable"].value == "no efficiency: no transfer ended; no rate: no transfer was done"
    assert "efficiency" not in made.metadata
    assert "figure" not in made.metadata
    assert checks_of(result)[EFFICIENCY].description == "not computable: no transfer ended"


def test_a_pair_without_rate_says_so():
    table = pair_table({RsePair("A", "B"): TransferStatistics(done=1, bytes=10**9)})
    assert "| A → B | 1 | 0 | 1.000 | 1.000 | not computable | 0 |" in table


def test_health_can_be_asked_for_by_hand(tmp_path):
    site = site_of(tmp_path, max_quarantined=0)
    ledger = Ledger(site.ledger)
    ledger.record_batch([Reception(PLACE, 0, None, "not JSON")], {PLACE: 1})
    ledger.close()
    definitions = dg.Definitions(assets=[dg.AssetSpec(ARRIVALS)], asset_checks=[build_arrival_checks(site)])
    job = dg.define_asset_job("look", dg.AssetSelection.all_asset_checks())

    with dg.DagsterInstance.ephemeral() as instance:
        resolved = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).resolve_job_def("look")
        found = checks_of(resolved.execute_in_process(instance=instance))

    assert {name for name, check in found.items() if not check.passed} == {"kafka_lag", "quarantine"}
    assert "1 message in quarantine (limit 0); see drp ingest quarantine" in str(found["quarantine"].description)
