"""Raws and visits by the Rubin stack's own tasks, at a site that has obs_base installed.

Belongs here: ``RawIngestTask`` and ``DefineVisitsTask`` behind `arrivals.raws.RawIngest` and
`arrivals.visits.VisitDefinition`. Doesn't: what is done without that stack (`arrivals.raws`, `arrivals.visits`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, cast

from lsst.daf.butler import Butler, DataCoordinate, FileDataset
from lsst.pipe.base import Instrument
from lsst.resources import ResourcePath

from arrivals.exposures import KnownExposures
from arrivals.instruments import raw_dataset_type
from arrivals.outcomes import ingest_in_bulk
from arrivals.raws import IngestedRaw, RawFile, contradiction, foreign, unreadable
from arrivals.visits import DefinedVisits, VisitConflict
from resources.databases import is_database_trouble
from resources.errors import OperatorError, Rejected, SiteFault


def obs_base() -> ModuleType:
    """The package.

    Raises
    ------
    resources.errors.SiteFault
        It isn't installed.
    """
    try:
        return import_module("lsst.obs.base")
    except ModuleNotFoundError as error:
        raise SiteFault(
            "the instrument doesn't read its headers by itself (read_observation), and lsst.obs.base is not installed",
            "arrivals.instrument",
            "run in the site's stack, or use an instrument that reads its headers",
        ) from error


class ObsBaseRawIngest:
    """Raw ingest by ``RawIngestTask``.

    Parameters
    ----------
    butler
        Where to.
    instrument
        Whose raws.
    known
        The exposures that the Butler knows.
    """

    def __init__(self, butler: Butler, instrument: Instrument, known: KnownExposures) -> None:
        task_class = obs_base().RawIngestTask
        config = task_class.ConfigClass()
        config.transfer = "direct"
        self._known = known
        self._name: str = instrument.getName()
        self._type_and_run = raw_dataset_type(instrument), instrument.makeDefaultRawIngestRunName()
        self._announced: dict[ResourcePath, RawFile] = {}
        self._ingested: dict[ResourcePath, FileDataset] = {}
        self._errors: dict[ResourcePath, Exception] = {}
        self._task = _refusing(task_class, self._is_refused)(
            config=config,
            butler=butler,
            on_success=self._on_success,
            on_metadata_failure=self._on_metadata_failure,
            on_ingest_failure=self._on_ingest_failure,
        )

    def ingest(self, raws: Sequence[RawFile]) -> list[IngestedRaw | Exception]:
        """Ingest a batch; see `arrivals.raws.RawIngest`."""
        refused = {**self._misnamed(raws), **foreign(raws, self._name)}
        asked = [raw for index, raw in enumerate(raws) if index not in refused]
        self._announced = {raw.file: raw for raw in asked}
        if asked:
            self._attempt(asked)
        results = [refused.get(index) or self._result(raw) for index, raw in enumerate(raws)]
        self._ingested.clear()
        self._errors.clear()
        return results

    def _misnamed(self, raws: Sequence[RawFile]) -> dict[int, Rejected]:
        """Those raws whose sidecars name another dataset type or run than the task would give them."""
        named = {i: (raw.sidecar.dataset_type, raw.sidecar.run) for i, raw in enumerate(raws) if raw.sidecar}
        return {
            index: Rejected(
                "was announced as {} of run {}, but a raw of {} is {} of run {}".format(
                    *announced, self._name, *self._type_and_run
                ),
                "rubin_sidecar",
            )
            for index, announced in named.items()
            if announced != self._type_and_run
        }

    def _is_refused(self, file: ResourcePath, data_id: DataCoordinate) -> bool:
        """Whether a file's header contradicts its message, which is noted then."""
        exposure, detector = cast(int, data_id["exposure"]), cast(int, data_id["detector"])
        if (error := contradiction(self._announced[file], exposure, detector)) is not None:
            self._errors[file] = error
        return error is not None

    def _attempt(self, raws: Sequence[RawFile]) -> None:
        """Run the task; exposures that it fails whole are halved until the bad files stand alone."""
        self._run(raws)
        failed = [raw for raw in raws if _is_shared_blame(self._errors.get(raw.file))]
        if len(raws) == 1 or not failed:
            return
        for raw in failed:
            del self._errors[raw.file]
        middle = (len(failed) + 1) // 2
        for half in filter(None, (failed[:middle], failed[middle:])):
            self._attempt(half)

    def _run(self, raws: Sequence[RawFile]) -> None:
        try:
            self._task.run([raw.file for raw in raws], group_files=False, skip_existing_exposures=True)
        except Exception as error:  # mostly it says only that something failed, and the callbacks were told what
            if not any(raw.file in self._errors for raw in raws):
                self._errors.update({raw.file: error for raw in raws if raw.file not in self._ingested})

    def _result(self, raw: RawFile) -> IngestedRaw | Exception:
        if raw.file in self._errors:
            return self._errors[raw.file]
        numbers = self._numbers(raw)
        if numbers is None:
            return Rejected("obs_base neither ingested nor refused it, and no sidecar names it", str(raw.file))
        exposure, detector = numbers
        record = self._known.record(exposure)
        if record is None:
            return Rejected(f"obs_base made no record of exposure {exposure}", str(raw.file))
        return IngestedRaw(exposure, detector, record.day_obs)

    def _numbers(self, raw: RawFile) -> tuple[int, int] | None:
        """Exposure and detector, of what was ingested now, or before."""
        dataset = self._ingested.get(raw.file)
        if dataset is not None:
            data_id = dataset.refs[0].dataId
            return cast(int, data_id["exposure"]), cast(int, data_id["detector"])
        if raw.sidecar is None:
            return None
        exposure, detector = raw.sidecar.number("exposure"), raw.sidecar.number("detector")
        return None if exposure is None or detector is None else (exposure, detector)

    def _on_success(self, datasets: Iterable[FileDataset]) -> None:
        for dataset in datasets:
            self._ingested[ResourcePath(dataset.path)] = dataset

    def _on_metadata_failure(self, file: ResourcePath, error: Exception) -> None:
        self._errors[file] = error if isinstance(error, OperatorError) else unreadable(file, error)

    def _on_ingest_failure(self, exposure: Any, error: Exception) -> None:
        for file in exposure.files:
            self._errors[ResourcePath(file.filename)] = error


def _refusing(task_class: type[Any], is_refused: Callable[[ResourcePath, DataCoordinate], bool]) -> type[Any]:
    """Make a ``RawIngestTask`` that takes the headers of refused files for ones that can't be read."""

    class RefusingRawIngestTask(task_class):
        def extractMetadata(self, filename: ResourcePath) -> Any:
            found = super().extractMetadata(filename)
            if any(is_refused(filename, dataset.dataId) for dataset in found.datasets):
                found.datasets, found.instrument = [], None
            return found

    return RefusingRawIngestTask


def _is_shared_blame(error: Exception | None) -> bool:
    """Whether an error may be another file's: not if a header was the trouble, nor if the database was away."""
    return error is not None and not isinstance(error, OperatorError) and not is_database_trouble(error)


class ObsBaseVisits:
    """Visits by ``DefineVisitsTask``, in whatever visit systems the site's configuration names.

    Parameters
    ----------
    butler
        Where visits are defined.
    instrument
        Whose.
    """

    def __init__(self, butler: Butler, instrument: Instrument) -> None:
        task_class = obs_base().DefineVisitsTask
        config = task_class.ConfigClass()
        instrument.applyConfigOverrides(task_class._DefaultName, config)
        self._task = task_class(config=config, butler=butler)
        self._butler = butler
        self._name: str = instrument.getName()
        self._run: str = instrument.makeDefaultRawIngestRunName()

    def needs_footprints(self, members: Collection[tuple[int, int]]) -> Collection[tuple[int, int]]:
        """None: the task reads what it needs from the Butler."""
        return ()

    def define(self, raws: Iterable[IngestedRaw]) -> DefinedVisits:
        """Define visits; see `arrivals.visits.VisitDefinition`."""
        return self._run_task(sorted({raw.exposure for raw in raws}), incremental=True)

    def correct(self, exposures: Collection[int]) -> DefinedVisits:
        """Correct visits; see `arrivals.visits.VisitDefinition`."""
        return self._run_task([e for e in sorted(exposures) if self._visits_of(e)], update_records=True)

    def _run_task(self, exposures: Sequence[int], **how: bool) -> DefinedVisits:
        """Have the visits of all exposures defined at once; if they can't be, one by one, to see whose fault it is."""
        errors = ingest_in_bulk(
            exposures,
            lambda some: self._task.run([self._data_id(e) for e in some], collections=self._run, **how),
        )
        conflicts = []
        for position, error in errors.items():
            if is_database_trouble(error):
                raise error
            conflicts.append(VisitConflict(exposures[position], " ".join(str(error).split())))
        good = [exposure for position, exposure in enumerate(exposures) if position not in errors]
        return DefinedVisits(frozenset().union(*map(self._visits_of, good)), tuple(conflicts))

    def _visits_of(self, exposure: int) -> frozenset[int]:
        records = self._butler.query_dimension_records(
            "visit_definition", data_id=self._data_id(exposure), explain=False
        )
        return frozenset(record.visit for record in records)

    def _data_id(self, exposure: int) -> dict[str, Any]:
        return {"instrument": self._name, "exposure": exposure}
