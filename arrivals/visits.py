"""Visits, defined while raws arrive: one exposure, one visit, with the regions of the detectors that are there.

Belongs here: the visit's records, made from the exposure's record and the raws' footprints, and conflicts with what
the Butler has. Doesn't: exposures (`arrivals.raws`), or visits of several exposures (obs_base's task, where it is).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lsst.daf.butler import Butler, DimensionRecord
from lsst.sphgeom import ConvexPolygon

from arrivals.exposures import KnownExposures
from arrivals.outcomes import ingest_in_bulk
from arrivals.raws import IngestedRaw
from resources.databases import is_database_trouble

ONE_TO_ONE = 0
ONE_TO_ONE_NAME = "one-to-one"


@dataclass(frozen=True, slots=True)
class VisitConflict:
    """A visit that the Butler has with another definition."""

    visit: int
    what: str

    def __str__(self) -> str:
        return f"visit {self.visit}: {self.what}"


@dataclass(frozen=True, slots=True)
class DefinedVisits:
    """What a definition did.

    Parameters
    ----------
    visits
        All visits that are defined now, whether they were before or not.
    conflicts
        Those that can't be.
    """

    visits: frozenset[int] = frozenset()
    conflicts: tuple[VisitConflict, ...] = ()


class VisitDefinition(Protocol):
    """How visits come to be: by `OneToOneVisits`, or by obs_base's task at a site that has it."""

    def define(self, raws: Iterable[IngestedRaw]) -> DefinedVisits:
        """Define the visits of these raws, or add these raws to them; a second call changes nothing."""

    def correct(self, exposures: Collection[int]) -> DefinedVisits:
        """Change visits that are defined to what the exposures' corrected records say."""

    def needs_footprints(self, members: Collection[tuple[int, int]]) -> Collection[tuple[int, int]]:
        """Of these pairs of exposure and detector, those whose headers the definition would use."""


@dataclass(slots=True)
class _Visit:
    """A visit as the Butler has it: its record, its exposures, and the detectors whose regions are known."""

    record: DimensionRecord | None = None
    exposures: set[int] = field(default_factory=set)
    detectors: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Growth:
    """What is to be written of one visit: its own row, if that is new or changes, and detectors' regions."""

    exposure: int
    is_new: bool
    row: Mapping[str, Any] | None
    regions: Mapping[int, ConvexPolygon]


class OneToOneVisits:
    """Each exposure on the sky is a visit of the same number.

    Parameters
    ----------
    butler
        Where visits are defined.
    instrument
        Its name.
    known
        The exposures that the Butler knows.
    """

    def __init__(self, butler: Butler, instrument: str, known: KnownExposures) -> None:
        self._butler = butler
        self._instrument = instrument
        self._known = known
        self._visits: dict[int, _Visit] = {}

    def needs_footprints(self, members: Collection[tuple[int, int]]) -> Collection[tuple[int, int]]:
        """Those that saw the sky, and whose detector's region isn't known."""
        on_sky = self._on_sky({exposure for exposure, _ in members})
        visits = self._look_up(on_sky)
        return {(e, detector) for e, detector in members if e in on_sky and detector not in visits[e].detectors}

    def define(self, raws: Iterable[IngestedRaw]) -> DefinedVisits:
        """Define visits; see `VisitDefinition`."""
        by_exposure: dict[int, dict[int, IngestedRaw]] = {}
        for raw in raws:
            by_exposure.setdefault(raw.exposure, {})[raw.detector] = raw
        on_sky = self._on_sky(by_exposure)
        visits = self._look_up(on_sky)
        defined: set[int] = set()
        conflicts: list[VisitConflict] = []
        growths: list[_Growth] = []
        for exposure, record in on_sky.items():
            try:
                found = self._growth(record, visits[exposure], by_exposure[exposure])
            except (ValueError, ArithmeticError, LookupError, TypeError) as error:  # a header that makes no sense
                found = VisitConflict(exposure, f"its region can't be computed: {' '.join(str(error).split())}")
            if isinstance(found, VisitConflict):
                conflicts.append(found)
            elif found is None:
                defined.add(exposure)
            else:
                growths.append(found)
        written = self._write_all(growths)
        return DefinedVisits(written.visits | defined, (*conflicts, *written.conflicts))

    def correct(self, exposures: Collection[int]) -> DefinedVisits:
        """Correct visits; see `VisitDefinition`. Their regions stay as they are."""
        on_sky = self._on_sky(exposures)
        growths: list[_Growth] = []
        conflicts: list[VisitConflict] = []
        for exposure, visit in self._look_up(on_sky).items():
            if visit.record is None:
                continue
            row = _visit_row(on_sky[exposure], visit.record.region)
            if others := visit.exposures - {exposure}:
                conflicts.append(VisitConflict(exposure, _shared(others)))
            elif any(getattr(visit.record, column) != value for column, value in row.items()):
                growths.append(_Growth(exposure, False, row, {}))
        written = self._write_all(growths)
        return DefinedVisits(written.visits, (*conflicts, *written.conflicts))

    def _growth(
        self, exposure: DimensionRecord, visit: _Visit, members: Mapping[int, IngestedRaw]
    ) -> _Growth | VisitConflict | None:
        """What the raws add to their visit: nothing, if all of it is known."""
        if visit.record is not None and (conflict := _conflict(exposure, visit)) is not None:
            return conflict
        regions = {
            detector: raw.observation.footprint()
            for detector, raw in members.items()
            if detector not in visit.detectors and raw.observation is not None
        }
        if visit.record is None:
            if not regions:
                return VisitConflict(exposure.id, "no header of it could be read, so its region is unknown")
            return _Growth(exposure.id, True, _visit_row(exposure, _hull(regions.values())), regions)
        if not regions:
            return None
        before = visit.record.region
        region = _hull(regions.values() if before is None else (before, *regions.values()))
        row = None if before is not None and before.contains(region) else {**visit.record.toDict(), "region": region}
        return _Growth(exposure.id, False, row, regions)

    def _write_all(self, growths: Sequence[_Growth]) -> DefinedVisits:
        errors = ingest_in_bulk(growths, self._write)
        conflicts = []
        for position, error in errors.items():
            if is_database_trouble(error):
                raise error
            conflicts.append(VisitConflict(growths[position].exposure, " ".join(str(error).split())))
        written = {growth.exposure for position, growth in enumerate(growths) if position not in errors}
        return DefinedVisits(frozenset(written), tuple(conflicts))

    def _write(self, growths: Sequence[_Growth]) -> None:
        registry = self._butler.registry
        ids = {g.exposure: {"instrument": self._instrument, "visit": g.exposure} for g in growths}
        new = [growth.exposure for growth in growths if growth.is_new]
        system = {"instrument": self._instrument, "id": ONE_TO_ONE, "name": ONE_TO_ONE_NAME}
        rows: Sequence[tuple[str, list[Mapping[str, Any]]]] = (
            ("visit_system", [system] if new else []),
            ("visit", [growth.row for growth in growths if growth.row is not None]),
            ("visit_definition", [{**ids[visit], "exposure": visit} for visit in new]),
            ("visit_system_membership", [{**ids[visit], "visit_system": ONE_TO_ONE} for visit in new]),
            (
                "visit_detector_region",
                [
                    {**ids[g.exposure], "detector": d, "region": region}
                    for g in growths
                    for d, region in g.regions.items()
                ],
            ),
        )
        with self._butler.transaction():
            for element, some in rows:
                if some:
                    changes = element == "visit"
                    registry.insertDimensionData(element, *some, replace=changes, skip_existing=not changes)
        visit_element = self._butler.dimensions["visit"]
        for growth in growths:
            visit = self._visits[growth.exposure]
            if growth.row is not None:
                visit.record = visit_element.RecordClass(**growth.row)
            visit.exposures.add(growth.exposure)
            visit.detectors |= growth.regions.keys()

    def _on_sky(self, exposures: Iterable[int]) -> dict[int, DimensionRecord]:
        found = self._known.look_up(exposures)
        records = {exposure: data_id.records["exposure"] for exposure, data_id in found.items()}
        return {exposure: record for exposure, record in records.items() if record is not None and _is_on_sky(record)}

    def _look_up(self, visits: Collection[int]) -> dict[int, _Visit]:
        """The visits of these numbers, with three queries for all that are new here."""
        unknown = sorted(set(visits) - self._visits.keys())
        if unknown:
            found = {visit: _Visit() for visit in unknown}
            for record in self._query("visit", unknown):
                found[record.id].record = record
            defined = [visit for visit in unknown if found[visit].record is not None]
            for record in self._query("visit_definition", defined):
                found[record.visit].exposures.add(record.exposure)
            for record in self._query("visit_detector_region", defined):
                found[record.visit].detectors.add(record.detector)
            self._visits |= found
        return {visit: self._visits[visit] for visit in visits}

    def _query(self, element: str, visits: Sequence[int]) -> Iterable[DimensionRecord]:
        if not visits:
            return []
        with self._butler.query() as query:
            chosen = query.expression_factory.visit.in_iterable(visits)
            return list(query.where(chosen, instrument=self._instrument).dimension_records(element))


def _conflict(exposure: DimensionRecord, visit: _Visit) -> VisitConflict | None:
    record = visit.record
    assert record is not None  # the caller has looked
    pairs = {
        "name": (record.name, exposure.obs_id),
        "physical_filter": (record.physical_filter, exposure.physical_filter),
        "day_obs": (record.day_obs, exposure.day_obs),
    }
    differing = [f"{name} {has!r}, not {should!r}" for name, (has, should) in pairs.items() if has != should]
    if differing:
        return VisitConflict(exposure.id, f"the Butler has {'; '.join(differing)}")
    others = visit.exposures - {exposure.id}
    return VisitConflict(exposure.id, _shared(others)) if others else None


def _shared(others: Collection[int]) -> str:
    return f"the Butler has it with the exposures {', '.join(map(str, sorted(others)))} too"


def _is_on_sky(exposure: DimensionRecord) -> bool:
    return exposure.can_see_sky is not False and exposure.tracking_ra is not None


def _hull(regions: Iterable[ConvexPolygon]) -> ConvexPolygon:
    return ConvexPolygon.convexHull([vertex for region in regions for vertex in region.getVertices()])


def _visit_row(exposure: DimensionRecord, region: ConvexPolygon) -> dict[str, Any]:
    """The visit's row, as obs_base's task fills it for a visit of one exposure."""
    same = ("instrument", "physical_filter", "day_obs", "seq_num", "exposure_time", "target_name", "observation_reason")
    also = ("science_program", "azimuth", "zenith_angle", "timespan")
    return {
        "id": exposure.id,
        "name": exposure.obs_id,
        "region": region,
        **{column: getattr(exposure, column) for column in (*same, *also)},
    }
