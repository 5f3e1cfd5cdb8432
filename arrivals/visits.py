"""Visits, defined while raws arrive: one exposure, one visit, with the regions of the detectors that are there.

Belongs here: the visit's records, made from the exposure's record and the raws' footprints, and conflicts with what
the Butler has. Doesn't: exposures (`arrivals.raws`), or visits of several exposures (obs_base's task, where it is).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lsst.daf.butler import Butler, DimensionRecord
from lsst.sphgeom import ConvexPolygon

from arrivals.raws import IngestedRaw, KnownExposures

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

    def needs_footprint(self, exposure: int, detector: int) -> bool:
        """Whether the definition would use the header of this raw."""


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
        self._regions: dict[int, dict[int, ConvexPolygon]] = {}

    def needs_footprint(self, exposure: int, detector: int) -> bool:
        """Whether the exposure saw the sky, and the detector's region isn't known."""
        record = self._known.record(exposure)
        return record is not None and _on_sky(record) and detector not in self._regions_of(exposure)

    def define(self, raws: Iterable[IngestedRaw]) -> DefinedVisits:
        """Define visits; see `VisitDefinition`."""
        by_exposure: dict[int, dict[int, IngestedRaw]] = {}
        for raw in raws:
            by_exposure.setdefault(raw.exposure, {})[raw.detector] = raw
        defined: set[int] = set()
        conflicts: list[VisitConflict] = []
        for exposure, members in by_exposure.items():
            record = self._known.record(exposure)
            if record is None or not _on_sky(record):
                continue
            try:
                conflict = self._define(record, members)
            except (ValueError, ArithmeticError, LookupError, TypeError) as error:  # a header that makes no sense
                conflict = VisitConflict(exposure, f"its region can't be computed: {' '.join(str(error).split())}")
            if conflict is None:
                defined.add(exposure)
            else:
                conflicts.append(conflict)
        return DefinedVisits(frozenset(defined), tuple(conflicts))

    def _define(self, exposure: DimensionRecord, members: Mapping[int, IngestedRaw]) -> VisitConflict | None:
        before = self._regions_of(exposure.id)
        footprints = {
            detector: raw.observation.footprint()
            for detector, raw in members.items()
            if detector not in before and raw.observation is not None
        }
        known = self._visit(exposure.id)
        if known is not None:
            conflict = self._conflict(exposure, known)
            if conflict is not None or not footprints:
                return conflict
        regions = {**before, **footprints}
        if not regions:
            return VisitConflict(exposure.id, "no header of it could be read, so its region is unknown")
        self._write(exposure, regions, footprints)
        self._regions[exposure.id] = regions
        return None

    def _write(
        self,
        exposure: DimensionRecord,
        regions: Mapping[int, ConvexPolygon],
        footprints: Mapping[int, ConvexPolygon],
    ) -> None:
        registry = self._butler.registry
        identity = {"instrument": self._instrument, "visit": exposure.id}
        with self._butler.transaction():
            registry.syncDimensionData(
                "visit_system", {"instrument": self._instrument, "id": ONE_TO_ONE, "name": ONE_TO_ONE_NAME}
            )
            registry.syncDimensionData("visit", _visit_record(exposure, _hull(list(regions.values()))), update=True)
            registry.insertDimensionData("visit_definition", {**identity, "exposure": exposure.id}, skip_existing=True)
            registry.insertDimensionData(
                "visit_system_membership", {**identity, "visit_system": ONE_TO_ONE}, skip_existing=True
            )
            registry.insertDimensionData(
                "visit_detector_region",
                *({**identity, "detector": detector, "region": region} for detector, region in footprints.items()),
                skip_existing=True,
            )

    def _conflict(self, exposure: DimensionRecord, visit: DimensionRecord) -> VisitConflict | None:
        pairs = {
            "name": (visit.name, exposure.obs_id),
            "physical_filter": (visit.physical_filter, exposure.physical_filter),
            "day_obs": (visit.day_obs, exposure.day_obs),
        }
        differing = [f"{name} {has!r}, not {should!r}" for name, (has, should) in pairs.items() if has != should]
        members = self._butler.query_dimension_records(
            "visit_definition", instrument=self._instrument, visit=visit.id, explain=False
        )
        others = sorted(record.exposure for record in members if record.exposure != exposure.id)
        if others:
            differing.append(f"it has the exposures {', '.join(map(str, others))} too")
        return VisitConflict(exposure.id, f"the Butler has {'; '.join(differing)}") if differing else None

    def _visit(self, visit: int) -> DimensionRecord | None:
        found = self._butler.query_dimension_records("visit", instrument=self._instrument, visit=visit, explain=False)
        return found[0] if found else None

    def _regions_of(self, visit: int) -> dict[int, ConvexPolygon]:
        if visit not in self._regions:
            found = self._butler.query_dimension_records(
                "visit_detector_region", instrument=self._instrument, visit=visit, limit=None, explain=False
            )
            self._regions[visit] = {record.detector: record.region for record in found}
        return self._regions[visit]


def _on_sky(exposure: DimensionRecord) -> bool:
    return exposure.can_see_sky is not False and exposure.tracking_ra is not None


def _hull(regions: Sequence[ConvexPolygon]) -> ConvexPolygon:
    return ConvexPolygon.convexHull([vertex for region in regions for vertex in region.getVertices()])


def _visit_record(exposure: DimensionRecord, region: ConvexPolygon) -> dict[str, Any]:
    """The visit's row, as obs_base's task fills it for a visit of one exposure."""
    same = ("instrument", "physical_filter", "day_obs", "seq_num", "exposure_time", "target_name", "observation_reason")
    also = ("science_program", "azimuth", "zenith_angle", "timespan")
    return {
        "id": exposure.id,
        "name": exposure.obs_id,
        "region": region,
        **{column: getattr(exposure, column) for column in (*same, *also)},
    }
