"""The raws that a release is made from: tagged day_obs by day_obs, and checked to be all there.

Belongs here: the asset ``<release>/inputs`` and its check. Doesn't: what arrived at the site (`drp_assets.raws`).
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from drp_assets.automation import when_ready
from drp_assets.events import log_check, log_materialization, one_line_failures, output_for
from drp_assets.keys import COMPLETE, RAW, SITE_PRODUCTS, inputs_key
from drp_assets.partitions import day_obs_partitions, tract_partitions
from planning.release import Release
from resources.butler import extend_chain, open_butler
from resources.site import Site

if TYPE_CHECKING:
    from lsst.daf.butler import Butler, DatasetRef


_DIGEST = "raws digest"


@dataclass(frozen=True, slots=True)
class TaggedDay:
    """What of one day_obs goes into the release.

    Parameters
    ----------
    exposures, raws, left_out
        Counts; left out are those that the release's selection doesn't want.
    incomplete
        A line for each exposure that misses detectors.
    missing_collections
        Input collections of the release that nothing has arrived for yet.
    digest
        The same for the same raws.
    """

    exposures: int
    raws: int
    left_out: int
    incomplete: tuple[str, ...]
    missing_collections: tuple[str, ...]
    digest: str

    @property
    def complete_fraction(self) -> float:
        """Share of the exposures that have every expected detector."""
        return 1 - len(self.incomplete) / self.exposures if self.exposures else 0.0


def select_raws(butler: "Butler", release: Release, day_obs: int) -> "tuple[list[DatasetRef], int]":
    """Find the raws of one day_obs that the release's selection lets in.

    Parameters
    ----------
    butler
        The site's Butler.
    release
        Its `inputs` say which raws are wanted.
    day_obs
        YYYYMMDD.

    Returns
    -------
    wanted
        The raws' references.
    left_out
        How many science raws of that day_obs the selection leaves out.
    """
    with butler.query() as query:
        found = list(
            query.datasets("raw", collections=release.raw_collection).where(
                "day_obs = this_day AND exposure.observation_type = 'science'",
                instrument=release.instrument,
                bind={"this_day": day_obs},
            )
        )
        program_of = {
            record.id: record.science_program
            for record in query.dimension_records("exposure").where(
                "day_obs = this_day", instrument=release.instrument, bind={"this_day": day_obs}
            )
        }
    selection = release.inputs
    wanted = [
        ref
        for ref in found
        if ref.dataId["exposure"] not in selection.excluded_visits
        and ref.dataId["detector"] not in selection.excluded_detectors
        and (not selection.programs or program_of[ref.dataId["exposure"]] in selection.programs)
    ]
    return wanted, len(found) - len(wanted)


def tag_day(butler: "Butler", release: Release, day_obs: int) -> TaggedDay:
    """Put one day_obs' raws into the release's inputs, and say what is there.

    Parameters
    ----------
    butler
        Writeable.
    release
        The release.
    day_obs
        YYYYMMDD.
    """
    from lsst.daf.butler import CollectionType

    butler.collections.register(release.inputs_collection, CollectionType.TAGGED)
    wanted, left_out = select_raws(butler, release, day_obs)
    butler.registry.associate(release.inputs_collection, wanted)
    missing = extend_chain(butler, release.chain, release.base_collections)
    detectors: dict[int, set[int]] = defaultdict(set)
    for ref in wanted:
        detectors[ref.dataId["exposure"]].add(ref.dataId["detector"])
    expected = set(release.expected_detectors) - set(release.inputs.excluded_detectors)
    incomplete = tuple(
        f"{exposure}: detectors {', '.join(map(str, sorted(expected - present)))}"
        for exposure, present in sorted(detectors.items())
        if expected - present
    )
    digest = hashlib.blake2s("".join(sorted(str(ref.id) for ref in wanted)).encode(), digest_size=8).hexdigest()
    return TaggedDay(len(detectors), len(wanted), left_out, incomplete, tuple(missing), digest)


def tracts_touched(butler: "Butler", release: Release, day_obs: int) -> Counter[str]:
    """Count the visits of one day_obs in each of the release's tracts.

    Parameters
    ----------
    butler
        The site's Butler.
    release
        The release.
    day_obs
        YYYYMMDD.
    """
    with butler.query() as query:
        rows = (
            query.join_dimensions(["visit", "tract"])
            .where("day_obs = d", instrument=release.instrument, skymap=release.skymap, bind={"d": day_obs})
            .data_ids(["visit", "tract"])
        )
        tracts = Counter(str(row["tract"]) for row in rows)
    return Counter({t: n for t, n in tracts.items() if not release.tracts or int(t) in release.tracts})


def build_inputs(site: Site, release: Release) -> dg.AssetsDefinition:
    """Build the asset ``<release>/inputs``.

    Parameters
    ----------
    site, release
        Where, and what for.
    """
    key = inputs_key(release)
    days = day_obs_partitions(release)
    check = dg.AssetCheckSpec(
        COMPLETE,
        asset=key,
        partitions_def=days,
        blocking=True,
        description="Every exposure has every detector that the release expects, and calibrations have come.",
    )

    @dg.multi_asset(
        name=f"{release.name}__inputs",
        specs=[
            dg.AssetSpec(
                key,
                deps=[RAW, SITE_PRODUCTS],
                skippable=True,
                group_name="inputs",
                kinds={"butler"},
                owners=[release.owner],
                description="Raws that this release is made from, in the TAGGED collection "
                f"`{release.inputs_collection}`.",
                automation_condition=when_ready(),
            )
        ],
        check_specs=[check],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def inputs(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with one_line_failures():
            butler = open_butler(site.butler, writeable=True)
        for partition in context.partition_keys:
            day = tag_day(butler, release, int(partition))
            tracts = tracts_touched(butler, release, int(partition))
            context.instance.add_dynamic_partitions(str(tract_partitions(release).name), sorted(tracts))
            if day.digest != _last_digest(context.instance, key, partition):
                # What depends on this runs again whenever it is recorded: only when the raws have changed.
                log_materialization(
                    context,
                    key,
                    partition,
                    {
                        "exposures": day.exposures,
                        "raws": day.raws,
                        "raws left out": day.left_out,
                        "tracts": ", ".join(sorted(tracts)),
                        "collection": release.inputs_collection,
                        _DIGEST: day.digest,
                    },
                )
            log_check(
                context,
                key,
                COMPLETE,
                partition,
                passed=not day.missing_collections
                and day.exposures > 0
                and day.complete_fraction >= release.validation.least_arrived_fraction,
                metadata={
                    "missing collections": ", ".join(day.missing_collections),
                    "exposures": day.exposures,
                    "complete fraction": day.complete_fraction,
                    "incomplete exposures": dg.MetadataValue.md("\n".join(f"* {line}" for line in day.incomplete)),
                },
            )
        yield output_for(dg.AssetCheckKey(key, COMPLETE))

    return inputs


def _last_digest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> str:
    records = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1).records
    if not records or records[0].asset_materialization is None:
        return ""
    digest = records[0].asset_materialization.metadata.get(_DIGEST)
    return str(digest.value) if digest else ""
