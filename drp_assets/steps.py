"""A step of the pipeline as an asset: plan, launch and watch, report.

Belongs here: building a step's `multi_asset` from the plan. Doesn't: what is asked of the launchers
(`drp_assets.submissions`), or what is said of the outcome (`drp_assets.reporting`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import Any

import dagster as dg

from drp_assets.automation import when_overlap_ready, when_ready
from drp_assets.events import one_line_failures, output_for
from drp_assets.keys import COMPLETE, ProductAsset, inputs_key, product_assets
from drp_assets.limits import pool_of
from drp_assets.partitions import crosses, mapping_between, partitions_of
from drp_assets.pictures import pictures_of
from drp_assets.reporting import fail_if_nothing_worked, report_outcome
from drp_assets.submissions import StepConfig, request_for, work_of
from launchers.submission import SubmissionKey
from planning.pipeline import PipelinePlan, Sharding, Step
from planning.release import Release
from resources.errors import Rejected
from resources.site import Site

_STAGES = {
    "1": "1_single_visit",
    "2": "2_calibration",
    "3": "3_coadds_and_objects",
    "4": "4_variability",
    "5": "5_validation",
}


def stage_of(step: Step) -> str:
    """Give the asset group that a step belongs to.

    Parameters
    ----------
    step
        Its label's digit says the stage.
    """
    digit = step.short.removeprefix("step")[:1]
    return _STAGES.get(digit, "pipeline")


def build_step(site: Site, release: Release, plan: PipelinePlan, step: Step, code_version: str) -> dg.AssetsDefinition:
    """Build the `multi_asset` of one step.

    Parameters
    ----------
    site, release
        Where, what for.
    plan
        The whole pipeline, for what the step depends on.
    step
        One of the plan's steps.
    code_version
        Digest of pipeline and tasks.
    """
    assets = product_assets(release, step)
    partitions_def = partitions_of(release, step.sharding)
    deps, crossing = _dependencies(release, plan, step)
    condition = when_overlap_ready(site, release, step.sharding, crossing) if crossing else when_ready()
    largest = release.settings(step).partitions_per_submission

    @dg.multi_asset(
        name=f"{release.name}__{step.short}",
        specs=[
            dg.AssetSpec(
                asset.key,
                deps=deps,
                skippable=True,
                description=asset.product.description if asset.product else step.description,
                group_name=stage_of(step),
                kinds=_kinds(asset),
                owners=[release.owner],
                tags={"drp/step": step.short, "drp/release": release.name},
                code_version=code_version,
                # All products are made together: one of them is enough to ask for all.
                automation_condition=condition if asset is assets[0] else None,
            )
            for asset in assets
        ],
        check_specs=[
            dg.AssetCheckSpec(
                COMPLETE,
                asset=asset.key,
                partitions_def=partitions_def,
                blocking=True,
                description="All that the quantum graph promised is in the Butler.",
            )
            for asset in assets
        ],
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.multi_run(largest) if partitions_def else None,
        op_tags={"drp/step": step.label},
        pool=pool_of(release, step),
    )
    def make_products(context: dg.AssetExecutionContext, config: StepConfig) -> Iterator[Any]:
        # Definitions load without the middleware, whose import takes seconds.
        from launchers.casebook import Casebook
        from launchers.claiming import settle
        from launchers.step_run import FailureRules, others_of, rescue_turn, run_step

        partitions = list(context.partition_keys) if partitions_def else []
        with one_line_failures(), closing(Casebook(site.ledger)) as casebook:
            rules = FailureRules(release.policies, casebook, site.submissions, config.rescue, tuple(config.causes))

            def do(work: SubmissionKey, part: tuple[str, ...]) -> None:
                with rescue_turn(context, site.submissions, work) if config.rescue else nullcontext():
                    left_out = [entry.data_id for entry in casebook.quarantined(release.name)]
                    others = others_of(context, site.wms.silence_s)
                    request = request_for(site, release, step, work, part, config, context.run_id, left_out, others)
                    outcome = run_step(context, request, rules, poll_s=site.wms.poll_s, silence_s=site.wms.silence_s)
                    pictures = pictures_of(site, release, step, assets, part)
                    anew = not config.rescue
                    report_outcome(context, site, release, assets, part or [""], outcome, pictures, anew=anew)
                    settle(site.submissions, work, context.run_id)
                    fail_if_nothing_worked(outcome)

            _each(context, work_of(site, release, step, partitions, config, context.run_id), do)
        for asset in assets:
            yield output_for(asset.check_key)

    return make_products


def _each(
    context: dg.AssetExecutionContext,
    pieces: Sequence[tuple[SubmissionKey, tuple[str, ...]]],
    do: Callable[[SubmissionKey, tuple[str, ...]], None],
) -> None:
    """Do one piece of work after another; the run fails only where there was nothing to be done of any of them."""
    refused: list[Rejected | dg.Failure] = []
    for work, part in pieces:
        try:
            do(work, part)
        except (Rejected, dg.Failure) as error:
            refused.append(error)
            if len(pieces) > 1:
                context.log.warning(f"{work.work} ({', '.join(part)}) is left as it is: {error}")
    if refused and len(refused) == len(pieces):
        raise refused[0]


def _dependencies(release: Release, plan: PipelinePlan, step: Step) -> tuple[list[dg.AssetDep], list[dg.AssetKey]]:
    """Give a step's dependencies, and one asset of each upstream step whose partitions are of the other sharding."""
    deps: list[dg.AssetDep] = []
    crossing: list[dg.AssetKey] = []
    for upstream in plan.upstream(step):
        mapping = mapping_between(upstream.sharding, step.sharding)
        read = [a for a in product_assets(release, upstream) if not step.products or a.dataset_type in step.inputs]
        deps += [dg.AssetDep(asset.key, partition_mapping=mapping) for asset in read]
        if read and crosses(upstream.sharding, step.sharding):
            crossing.append(read[0].key)
    if set(step.inputs) & {"raw"} or (not step.products and step is plan.steps[0]):
        mapping = mapping_between(Sharding.DAY_OBS, step.sharding)
        deps.append(dg.AssetDep(inputs_key(release), partition_mapping=mapping))
    return deps, crossing


def _kinds(asset: ProductAsset) -> set[str]:
    storage = asset.product.storage_class if asset.product else ""
    if "Image" in storage or "Coadd" in storage:
        return {"butler", "fits"}
    return {"butler", "parquet"} if storage.startswith("Arrow") else {"butler"}
