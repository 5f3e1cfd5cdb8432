"""A whole release of the small survey: what is there when it has ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import lsst.images
import pytest

from arrivals.ledger import Ledger
from arrivals.states import State
from commands.demonstration import Demonstration
from drp_assets.plans import plan_of
from drp_assets.scorecard import judge_release
from resources.butler import open_butler
from validation.scorecard import Verdict

pytestmark = pytest.mark.e2e


def test_every_message_is_accounted_for(finished: Demonstration) -> None:
    ledger = Ledger(finished.site.ledger)
    counts = ledger.counts()
    ledger.close()
    assert counts[State.INGESTED] > 0
    assert counts[State.DUPLICATE] > 0
    assert not counts[State.WAITING]
    assert not counts[State.QUARANTINED]
    assert not counts[State.RECEIVED]


def test_every_raw_of_the_survey_is_an_input_of_the_release(finished: Demonstration) -> None:
    butler = open_butler(finished.site.butler)
    raws = butler.query_datasets("raw", collections=finished.release.inputs_collection)
    assert len(raws) == finished.survey.raw_count


def test_every_product_of_the_plan_is_in_the_release(finished: Demonstration) -> None:
    butler = open_butler(finished.site.butler)
    for step in plan_of(finished.release, finished.site.state / "plans").steps:
        for product in step.products:
            found = butler.query_datasets(product.name, collections=finished.release.chain, limit=1)
            assert found, f"{step.label} made no {product.name}"


def test_each_day_obs_tells_its_own_counts(finished: Demonstration) -> None:
    key = dg.AssetKey(["ci", "preliminary_visit_image"])
    visits_a_day = finished.survey.visit_count // finished.survey.days
    with finished.instance() as instance:
        for day_obs in finished.release.inputs.day_obs:
            wanted = dg.AssetRecordsFilter(key, asset_partitions=[str(day_obs)])
            (record,) = instance.fetch_materializations(wanted, limit=1).records
            assert record.asset_materialization is not None
            metadata = record.asset_materialization.metadata
            assert metadata["datasets"].value == visits_a_day * len(finished.survey.detector_ids)
            assert metadata["datasets expected"].value == metadata["datasets"].value
            assert metadata["quanta failed"].value == 0


def test_release_lies_in_its_own_collections(finished: Demonstration) -> None:
    butler = open_butler(finished.site.butler)
    children = butler.collections.get_info(finished.release.chain).children
    made_here = [name for name in children if name not in finished.release.base_collections]
    assert made_here
    assert all(name.startswith(f"{finished.release.name}/") for name in made_here)


def test_butler_command_lists_the_products(finished: Demonstration) -> None:
    butler = Path(sys.executable).parent / "butler"
    command = [butler, "query-datasets", finished.site.butler.repository, "deep_coadd", "--collections", "ci"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True)
    assert listing.stdout.count("deep_coadd") >= 1


@pytest.mark.parametrize("product", ["visit_image", "deep_coadd"])
def test_lsst_images_opens_the_products_with_units_and_sky(finished: Demonstration, product: str) -> None:
    butler = open_butler(finished.site.butler)
    ref = butler.query_datasets(product, collections=finished.release.chain, limit=1)[0]
    image = butler.get(ref)
    assert isinstance(image, lsst.images.MaskedImage)
    assert image.unit == "nJy"
    assert image.sky_projection is not None


def test_no_blocking_requirement_fails(finished: Demonstration) -> None:
    scorecard = judge_release(finished.site, finished.release)
    assert scorecard.verdict is not Verdict.FAILED, scorecard.summary
    assert any(row.verdict is Verdict.PASSED for row in scorecard.rows)


def test_report_is_served(finished: Demonstration) -> None:
    assert (finished.site.reports / finished.release.name / "index.html").is_file()
