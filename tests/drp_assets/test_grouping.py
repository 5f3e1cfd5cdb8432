from __future__ import annotations

import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from drp_assets.grouping import group_requests

A, B = dg.AssetKey("a"), dg.AssetKey("b")
ORDER = [f"202611{day:02d}" for day in range(1, 31)]


def request(partition: str | None, *keys: dg.AssetKey) -> dg.RunRequest:
    return dg.RunRequest(asset_selection=list(keys), partition_key=partition)


def covered(requests: list[dg.RunRequest]) -> list[str]:
    keys = []
    for each in requests:
        first = each.tags.get("dagster/asset_partition_range_start", each.partition_key)
        last = each.tags.get("dagster/asset_partition_range_end", each.partition_key)
        keys += ORDER[ORDER.index(str(first)) : ORDER.index(str(last)) + 1]
    return keys


@given(st.sets(st.sampled_from(ORDER)))
def test_grouped_requests_cover_exactly_what_was_asked_for(wanted: set[str]) -> None:
    grouped = group_requests([request(key, A) for key in wanted], lambda _: ORDER)
    assert sorted(covered(grouped)) == sorted(wanted)


def test_neighbours_become_one_run_and_gaps_separate() -> None:
    wanted = [request(key, A) for key in ("20261101", "20261102", "20261105")]
    assert len(group_requests(wanted, lambda _: ORDER)) == 2


def test_different_assets_are_never_merged() -> None:
    wanted = [request("20261101", A), request("20261102", B)]
    assert group_requests(wanted, lambda _: ORDER) == wanted


def test_assets_without_partitions_stay_as_they_are() -> None:
    assert group_requests([request(None, A)], lambda _: ()) == [request(None, A)]
