"""What products a release has: counted, named and measured by asking the Butler.

Belongs here: the Butler queries behind `validation.counts` and the report's list of products. Doesn't: judging them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lsst.daf.butler import Butler, DatasetRef, MissingDatasetTypeError

BOOKKEEPING = ("_config", "_metadata", "_log", "packages", "run_provenance")
"""Endings of dataset types that tell of the processing, not of the sky."""

_GOVERNORS = frozenset({"instrument", "skymap"})


@dataclass(frozen=True, slots=True)
class ProductCount:
    """How many datasets of a type a collection holds, the newest of each data ID."""

    product: str
    dimensions: tuple[str, ...]
    datasets: int


def count_products(butler: Butler, collection: str) -> tuple[ProductCount, ...]:
    """Count the datasets of every product in a collection, bookkeeping left out.

    Parameters
    ----------
    butler
        Of the repository.
    collection
        The release's chain.

    Returns
    -------
    tuple of ProductCount
        By name. A data ID that several runs hold counts once.
    """
    summaries = butler.collections.query_info(collection, include_summary=True, flatten_chains=True)
    names = {str(name) for info in summaries for name in info.dataset_types or ()}
    counts = []
    for name in sorted(name for name in names if not name.endswith(BOOKKEEPING)):
        with butler.query() as query:
            found = query.datasets(name, collection, find_first=True).count(exact=True, discard=True)
        dimensions = butler.get_dataset_type(name).dimensions.required
        counts.append(ProductCount(name, tuple(str(d) for d in dimensions), found))
    return tuple(counts)


def datasets_by_partition(
    butler: Butler,
    collection: str,
    product: str,
    partition: str | None,
    *,
    only: Collection[str] | None = None,
) -> Mapping[str, frozenset[str]]:
    """Name the datasets of a product, partition by partition.

    Parameters
    ----------
    butler
        Of the repository.
    collection
        Where to look; the newest of each data ID counts.
    product
        Dataset type; one that was never made has no datasets.
    partition
        Dimension that partitions it: day_obs, tract, or None.
    only
        Partitions wanted; all if None.

    Returns
    -------
    mapping from str to frozenset of str
        Partition (empty text if unpartitioned) to labels such as ``2026110100001 4``: the data ID's values without
        instrument, skymap and the partition.
    """
    try:
        dimensions = butler.get_dataset_type(product).dimensions
    except MissingDatasetTypeError:
        return {}
    labels: dict[str, set[str]] = {}
    wanted = {*dimensions.required, *([partition] if partition else [])}
    with butler.query() as query:
        for data_id in query.join_dataset_search(product, collection).data_ids(wanted):
            key = str(data_id[partition]) if partition else ""
            if only is None or key in only:
                parts = [str(data_id[d]) for d in dimensions.required if d not in _GOVERNORS and d != partition]
                labels.setdefault(key, set()).add(" ".join(parts))
    return {key: frozenset(names) for key, names in sorted(labels.items())}


def count_rows(butler: Butler, refs: Collection[DatasetRef]) -> Mapping[str, int]:
    """Count the rows of tables without reading them.

    Parameters
    ----------
    butler
        Of the repository.
    refs
        Datasets that are tables stored as Parquet.

    Returns
    -------
    mapping from str to int
        Label of the data ID to rows.
    """
    rows = {}
    for ref in refs:
        label = " ".join(str(ref.dataId[d]) for d in ref.dimensions.required if d not in _GOVERNORS)
        rows[label] = int(butler.get(ref.makeComponentRef("rowcount")))
    return rows
