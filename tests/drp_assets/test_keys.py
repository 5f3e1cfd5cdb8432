from __future__ import annotations

import dagster as dg

from drp_assets.keys import product_assets
from drp_assets.partitions import day_obs_partitions, mapping_between
from planning.pipeline import Product, Sharding, Step
from planning.release import Release

RELEASE = Release.model_validate(
    {
        "name": "dr1",
        "description": "test",
        "owner": "team:drp",
        "pipeline": "pipelines/DRP.yaml",
        "instrument": "SimCam",
        "skymap": "sim_v1",
        "bands": ["g", "r"],
        "raw_collection": "SimCam/raw/all",
        "input_collections": ["SimCam/calib"],
        "expected_detectors": [0],
        "inputs": {"first_day_obs": 20261101, "last_day_obs": 20261104, "without_data": [20261102]},
    }
)


def test_product_per_band_has_the_band_in_its_key() -> None:
    coadd = Product(
        name="deep_coadd", dimensions=("skymap", "tract", "patch", "band"), storage_class="MaskedImageV2", task="c"
    )
    table = Product(name="object", dimensions=("skymap", "tract"), storage_class="ArrowAstropy", task="o")
    step = Step(label="step3a-coadd-tracts", dimensions=("tract",), products=(coadd, table))
    keys = [asset.key for asset in product_assets(RELEASE, step)]
    assert keys == [
        dg.AssetKey(["dr1", "deep_coadd", "g"]),
        dg.AssetKey(["dr1", "deep_coadd", "r"]),
        dg.AssetKey(["dr1", "object"]),
    ]


def test_step_of_unknown_products_is_an_asset_itself() -> None:
    step = Step(label="step4b-generate-ephemerides-global", dimensions=())
    assert [asset.key for asset in product_assets(RELEASE, step)] == [dg.AssetKey(["dr1", "step4b"])]


def test_partitions_are_exactly_the_day_obs_that_data_come_from() -> None:
    assert list(day_obs_partitions(RELEASE).get_partition_keys()) == ["20261101", "20261103", "20261104"]


def test_day_obs_begins_at_noon() -> None:
    window = day_obs_partitions(RELEASE).time_window_for_partition_key("20261101")
    assert window.start.isoformat() == "2026-11-01T12:00:00+00:00"


def test_only_partitions_of_different_kinds_need_a_mapping() -> None:
    assert mapping_between(Sharding.DAY_OBS, Sharding.DAY_OBS) is None
    assert mapping_between(Sharding.WHOLE, Sharding.TRACT) is None
    assert isinstance(mapping_between(Sharding.DAY_OBS, Sharding.TRACT), dg.AllPartitionMapping)
