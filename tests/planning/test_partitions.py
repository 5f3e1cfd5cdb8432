from __future__ import annotations

import pytest

from planning.partitions import data_query, ready
from planning.pipeline import Product, Sharding, Step
from planning.release import Release
from resources.errors import Rejected

VISIT_STEP = Step(label="step1a-single-visit-detectors", dimensions=("visit", "detector"))
TRACT_STEP = Step(label="step3a-coadd-tracts", dimensions=("tract",))
WHOLE_STEP = Step(label="step2a-recalibrate-global", dimensions=())


def release(**changes: object) -> Release:
    values: dict[str, object] = {
        "name": "dr1",
        "description": "test",
        "owner": "team:drp",
        "pipeline": "pipelines/DRP.yaml",
        "instrument": "SimCam",
        "skymap": "sim_v1",
        "bands": ["g"],
        "raw_collection": "SimCam/raw/all",
        "input_collections": ["SimCam/calib"],
        "expected_detectors": [0],
        "inputs": {"first_day_obs": 20261101, "last_day_obs": 20261103},
    }
    return Release.model_validate(values | changes)


@pytest.mark.parametrize(
    ("dimensions", "sharding"),
    [
        (("visit", "detector"), Sharding.DAY_OBS),
        (("exposure",), Sharding.DAY_OBS),
        (("tract",), Sharding.TRACT),
        ((), Sharding.WHOLE),
        (("healpix3",), Sharding.WHOLE),
        (("visit", "tract"), Sharding.DAY_OBS),
    ],
)
def test_dimensions_of_a_step_decide_its_partitions(dimensions: tuple[str, ...], sharding: Sharding) -> None:
    assert Sharding.of(dimensions) is sharding


def test_visit_step_is_selected_by_day_obs_without_the_skymap() -> None:
    query = data_query(release(), VISIT_STEP, ["20261102", "20261101"])
    assert query == "instrument = 'SimCam' AND day_obs IN (20261101, 20261102)"


def test_visit_step_that_makes_something_on_the_sky_grid_names_the_skymap() -> None:
    product = Product(name="forced", dimensions=("visit", "tract"), storage_class="ArrowAstropy", task="forced")
    step = VISIT_STEP.model_copy(update={"products": (product,)})
    assert "skymap = 'sim_v1'" in data_query(release(), step, ["20261101"])


def test_tract_step_names_the_skymap_and_the_tracts() -> None:
    query = data_query(release(), TRACT_STEP, ["7"])
    assert query == "instrument = 'SimCam' AND skymap = 'sim_v1' AND tract IN (7)"


def test_whole_step_has_no_partition_term() -> None:
    assert data_query(release(), WHOLE_STEP, []) == "instrument = 'SimCam'"


@pytest.mark.parametrize("keys", [[], ["20261101; DROP TABLE"], ["tonight"]])
def test_partition_that_is_no_number_is_rejected(keys: list[str]) -> None:
    with pytest.raises(Rejected, match="step1a"):
        data_query(release(), VISIT_STEP, keys)


def test_quote_in_a_name_is_rejected() -> None:
    with pytest.raises(Rejected, match="quote"):
        data_query(release(instrument="Sim'Cam"), WHOLE_STEP, [])


def test_tract_is_ready_when_every_overlapping_day_obs_is_done() -> None:
    needs = {"0": frozenset({"20261101", "20261102"}), "1": frozenset({"20261101"})}
    assert ready(["0", "1", "2"], needs, frozenset({"20261101"})) == {"1"}
    assert ready(["0", "1", "2"], needs, frozenset({"20261101", "20261102"})) == {"0", "1"}


def test_days_without_data_are_not_expected() -> None:
    selection = release(inputs={"first_day_obs": 20261030, "last_day_obs": 20261102, "without_data": [20261101]}).inputs
    assert selection.day_obs == (20261030, 20261031, 20261102)
