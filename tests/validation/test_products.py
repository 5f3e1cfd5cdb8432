import pytest

from validation.products import count_products, count_rows, datasets_by_partition
from validation.provenance import configuration_digest, read_provenance


def test_products_are_counted_once_a_data_id_without_bookkeeping(release_repository):
    counts = {c.product: c for c in count_products(release_repository, "demo")}
    assert counts["calibration_metrics"].datasets == 1
    assert counts["recalibrated_star"].datasets == 6
    assert counts["deep_coadd"].dimensions == ("band", "skymap", "tract", "patch")
    assert not {"packages", "detect_config"} & counts.keys()


def test_datasets_are_named_by_partition(release_repository, made_up_release):
    by_day = datasets_by_partition(release_repository, "demo", "visit_summary", "day_obs")
    assert list(by_day) == ["20261101", "20261102"]
    assert {int(v) for names in by_day.values() for v in names} == set(made_up_release.visits)
    assert datasets_by_partition(release_repository, "demo", "object", "tract") == {"0": frozenset({""})}
    assert datasets_by_partition(release_repository, "demo", "deep_coadd", "tract")["0"] == {
        f"{band} {patch}" for band in "gri" for patch in (0, 1)
    }


def test_some_partitions_only_or_none_or_a_product_that_was_never_made(release_repository):
    one_day = datasets_by_partition(release_repository, "demo", "visit_summary", "day_obs", only=["20261102"])
    assert list(one_day) == ["20261102"]
    assert len(datasets_by_partition(release_repository, "demo", "visit_summary", None)[""]) == 6
    assert datasets_by_partition(release_repository, "demo", "nobody_made_this", "tract") == {}


def test_rows_are_counted_by_data_id(release_repository):
    refs = release_repository.query_datasets("object", "demo")
    assert count_rows(release_repository, refs) == {"0": 60}


def test_provenance_tells_runs_versions_and_configurations(release_repository):
    provenance = read_provenance(release_repository, "demo", "pipelines/DRP.yaml")
    assert provenance.runs == ("demo/step5a/0123abcd/1", "demo/step5a/0123abcd/0")
    assert provenance.lsst_packages == {"lsst_images": "30.0"}
    assert provenance.configurations == 2
    assert len(provenance.configuration_digest) == 16


def test_the_digest_depends_on_what_is_configured_alone():
    isr, detect = ("isr", "a=1"), ("detect", "sigma=5")
    assert configuration_digest([isr, detect]) == configuration_digest([detect, isr, isr])
    assert configuration_digest([]) == ""


@pytest.mark.parametrize(
    "other", [[("isr", "a=2")], [("isr", "a=1"), ("x", "")], [("isra", "=1")], [("detect", "a=1")]]
)
def test_another_configuration_has_another_digest(other):
    assert configuration_digest([("isr", "a=1")]) != configuration_digest(other)
