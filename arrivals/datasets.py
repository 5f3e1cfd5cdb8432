"""Files into the Butler: as many as there are at once, and for each that isn't in, why.

Belongs here: the one place that calls ``Butler.ingest``, and telling what is in it already from what clashes. Doesn't:
which dataset a file is (`arrivals.raws`, `arrivals.products`), or zips (`arrivals.zips`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lsst.daf.butler import Butler, DatasetRef, FileDataset
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.resources import ResourcePath

from arrivals.files import transfer_mode
from arrivals.outcomes import AlreadyThere, ingest_in_bulk, is_retriable
from resources.databases import is_database_trouble
from resources.errors import Rejected, Retriable, SiteFault


def ingest_files(butler: Butler, datasets: Sequence[FileDataset]) -> dict[int, Exception]:
    """Ingest files where they lie; those that are in already, from the same place, are left as they are.

    Parameters
    ----------
    butler
        Where to.
    datasets
        Single files, each with its one reference.

    Returns
    -------
    errors
        What is wrong with each file that isn't in, by its index. `arrivals.outcomes.AlreadyThere` where the Butler has
        the dataset from another file of the same size.

    Raises
    ------
    resources.errors.SiteFault
        No file is to blame.
    """
    if not datasets:
        return {}
    transfer = transfer_mode(butler, [ResourcePath(dataset.path) for dataset in datasets])

    def ingest(some: Sequence[FileDataset]) -> None:
        butler.ingest(*some, transfer=transfer)

    try:
        ingest(datasets)
    except SiteFault:
        raise
    except Exception as error:  # somebody is to blame, and the rest of this function finds out who
        if is_database_trouble(error):
            return dict.fromkeys(range(len(datasets)), error)
    else:
        return {}
    present = present_elsewhere(butler, datasets, range(len(datasets)))
    others = [index for index in range(len(datasets)) if index not in present]
    found = ingest_in_bulk([datasets[index] for index in others], ingest)
    errors: dict[int, Exception | None] = {**present, **{others[position]: error for position, error in found.items()}}
    clashing = [index for index, error in errors.items() if isinstance(error, ConflictingDefinitionError)]
    # Two files of a batch may be the same dataset, or another process was faster.
    errors |= present_elsewhere(butler, datasets, clashing)
    return {index: error for index, error in errors.items() if error is not None}


def present_elsewhere(
    butler: Butler, datasets: Sequence[FileDataset], indexes: Collection[int]
) -> dict[int, Exception | None]:
    """Those files whose datasets the Butler has: none if from the same place, else what that means."""
    refs: dict[DatasetRef, int] = {}
    for index in indexes:
        refs.setdefault(datasets[index].refs[0], index)
    known = butler.get_many_uris(refs, allow_missing=True) if refs else {}
    there = {ref.id: uris.primaryURI for ref, uris in known.items()}
    return {
        index: _compare(ResourcePath(datasets[index].path), uri)
        for index in indexes
        if (uri := there.get(datasets[index].refs[0].id)) is not None
    }


def _compare(file: ResourcePath, there: ResourcePath) -> Exception | None:
    if file == there:
        return None
    try:
        same_size = file.size() == there.size()
    except FileNotFoundError:
        return Rejected(f"the Butler has this dataset from a file that is gone: {there}", str(file))
    except Exception as error:  # neither file is ours: whatever they do to us is this row's trouble
        why = f"the Butler has this dataset from another file, which can't be looked at now: {there} ({error})"
        return Retriable(why, str(file)) if is_retriable(error) else Rejected(why, str(file))
    if not same_size:
        return Rejected(f"the Butler has this dataset from another file of another size: {there}", str(file))
    return AlreadyThere(f"the Butler has this dataset from another file: {there}", str(file))
