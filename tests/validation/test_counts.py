import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.counts import Severity, check_counts, check_datasets, check_rows, check_values, worst


def test_a_complete_partition_passes():
    (result,) = check_counts("visit_image", {"20261101": 54}, {"20261101": 54})
    assert result.passed
    assert result.message == "54 of 54"


@pytest.mark.parametrize(("found", "severity"), [(53, Severity.WARN), (49, Severity.WARN), (48, Severity.ERROR)])
def test_some_missing_warns_and_too_many_missing_is_an_error(found, severity):
    (result,) = check_counts("visit_image", {"20261101": 54}, {"20261101": found}, least_fraction=0.9)
    assert (result.passed, result.severity) == (False, severity)
    assert result.message == f"{found} of 54, {54 - found} missing"
    assert result.missing_fraction == pytest.approx(1 - found / 54)


def test_a_partition_that_brought_nothing_is_an_error_even_if_nobody_mentions_it():
    (result,) = check_counts("visit_image", {"20261102": 54}, {})
    assert result.blocks


def test_more_than_expected_is_a_warning():
    (result,) = check_counts("visit_image", {"20261101": 54}, {"20261101": 55})
    assert (result.passed, result.severity, result.blocks) == (False, Severity.WARN, False)


def test_nothing_expected_and_nothing_found_passes():
    (result,) = check_counts("deep_coadd", {"7": 0}, {})
    assert result.passed
    assert result.message == "none expected, none found"


def test_missing_datasets_are_named():
    expected = {"20261101": {"1 R22_S00", "1 R22_S01", "2 R22_S00"}}
    (result,) = check_datasets("visit_image", expected, {"20261101": {"1 R22_S01", "9 R22_S99"}})
    assert result.missing == ("1 R22_S00", "2 R22_S00")
    assert (result.expected, result.found, result.blocks) == (3, 1, True)


def test_a_surplus_dataset_is_named_too():
    (result,) = check_datasets("visit_image", {"20261101": {"a"}}, {"20261101": {"a", "b"}})
    assert result.missing == ("b",)
    assert result.severity is Severity.WARN


COUNTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 30))


@given(COUNTS, COUNTS, st.floats(0, 1))
def test_every_partition_has_one_result_and_passes_only_if_counts_agree(expected, found, least):
    results = check_counts("x", expected, found, least_fraction=least)
    assert [r.partition for r in results] == sorted({*expected, *found})
    for result in results:
        assert result.passed == (expected.get(result.partition, 0) == found.get(result.partition, 0))
        assert 0 <= result.missing_fraction <= 1


SETS = st.dictionaries(st.sampled_from(["a", "b"]), st.frozensets(st.sampled_from("uvwxyz")))


@given(SETS, SETS)
def test_names_and_counts_never_hide_a_missing_dataset(expected, found):
    for result in check_datasets("x", expected, found):
        wanted, there = expected.get(result.partition, set()), found.get(result.partition, set())
        assert result.passed == (wanted == there)
        assert bool(wanted - there) == (result.found < result.expected)


def test_an_empty_table_among_others_warns_and_only_empty_tables_are_an_error():
    assert check_rows("source", "20261101", {"1": 10, "2": 3}).passed
    some = check_rows("source", "20261101", {"1": 10, "2": 0})
    assert (some.passed, some.severity, some.missing) == (False, Severity.WARN, ("2",))
    assert some.message == "10 rows in 2 tables, 1 of them empty"
    assert check_rows("source", "20261101", {"1": 0}).blocks


def test_a_column_without_any_number_is_an_error_and_one_with_gaps_a_warning():
    assert check_values("object", "0", {"r_psfFlux": 2, "ra": 0}, 100).passed
    gaps = check_values("object", "0", {"r_psfFlux": 20, "ra": 0}, 100)
    assert (gaps.severity, gaps.message) == (Severity.WARN, "no number in: r_psfFlux 20 %")
    assert check_values("object", "0", {"r_psfFlux": 100, "ra": 0}, 100).blocks


def test_the_worst_result_is_an_error_before_a_warning_before_a_pass():
    results = check_counts("x", {"a": 10, "b": 10, "c": 10}, {"a": 10, "b": 9, "c": 2})
    assert worst(results).partition == "c"
    assert worst(()) is None
