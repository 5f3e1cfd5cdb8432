"""What BPS asked for, written down as jobs and shell scripts.

Belongs here: `LocalWorkflow`, from ctrl_bps's generic workflow to `launchers.local.jobs.Job` and one script a job, with
the command line exactly as BPS wrote it and its placeholders filled in.
Doesn't: running any of it (`launchers.local.driver`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lsst.ctrl.bps import (
    BaseWmsWorkflow,
    BpsConfig,
    GenericWorkflow,
    GenericWorkflowJob,
    GenericWorkflowNode,
)

from launchers import warm
from launchers.generic_jobs import final_job, flat_jobs, number, programs_first, script_lines
from launchers.local.driver import ATTEMPT_VARIABLE, NOT_STARTED, job_script
from launchers.local.jobs import Job
from launchers.local.store import JobStore


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job and its script."""

    job: Job
    script: str


class LocalWorkflow(BaseWmsWorkflow):
    """A workflow for `launchers.local.service.LocalService`."""

    def __init__(self, name: str, config: BpsConfig) -> None:
        super().__init__(name, config)
        self.prepared: list[PreparedJob] = []
        self.facts: dict[str, Any] = {}

    @classmethod
    def from_generic_workflow(
        cls, config: BpsConfig, generic_workflow: GenericWorkflow, out_prefix: str, service_class: str
    ) -> Self:
        """Translate; see the base class."""
        workflow = cls(generic_workflow.name, config)
        workflow.service_class = service_class
        workflow.submit_path = out_prefix
        workflow.prepared = list(_translate(generic_workflow))
        counts = generic_workflow.quanta_counts
        attributes = generic_workflow.run_attrs
        workflow.facts = {
            "name": generic_workflow.name,
            "operator": attributes.get("bps_operator", ""),
            "project": attributes.get("bps_project", ""),
            "campaign": attributes.get("bps_campaign", ""),
            "payload": attributes.get("bps_payload", ""),
            "site": attributes.get("bps_runsite", ""),
            "quanta": dict(counts),
            "cpus": _number(config, "localCores", "CPUs") or (os.cpu_count() or 1),
            "memory_mb": _number(config, "localMemory", "MB"),
        }
        return workflow

    def write(self, out_prefix: str) -> None:
        """Write scripts and record into the submit folder."""
        submit_path = Path(out_prefix)
        (submit_path / "jobs").mkdir(parents=True, exist_ok=True)
        for prepared in self.prepared:
            job_script(submit_path, prepared.job.name).write_text(prepared.script, encoding="utf-8")
        JobStore(submit_path).create((prepared.job for prepared in self.prepared), self.facts)


def _number(config: BpsConfig, key: str, unit: str) -> int | None:
    _, site = config.search("computeSite", opt={"default": None})
    options: dict[str, Any] = {"default": None, "curvals": {"curr_site": site} if site else {}}
    _, value = config.search(key, opt=options)
    return int(number(value, key, unit=unit)) or None


def _translate(workflow: GenericWorkflow) -> Iterator[PreparedJob]:
    for flat in flat_jobs(workflow):
        yield PreparedJob(_job(flat.node, flat.parents, flat.waits_for), _script(flat.node, flat.workflow))
    final = final_job(workflow)
    if final is not None:
        yield PreparedJob(_job(final, (), (), is_final=True), _script(final, workflow))


def _job(
    node: GenericWorkflowNode, parents: tuple[str, ...], waits_for: tuple[str, ...], *, is_final: bool = False
) -> Job:
    if not isinstance(node, GenericWorkflowJob):
        return Job(node.name, node.label, parents, waits_for, has_command=False)

    def asked(value: Any, setting: str, unit: str) -> float:
        return number(value, setting, unit=unit, where=node.label)

    unless = node.retry_unless_exit
    return Job(
        node.name,
        node.label,
        parents=parents,
        waits_for=waits_for,
        cpus=int(asked(node.request_cpus, "requestCpus", "CPUs")) or 1,
        memory_mb=int(asked(node.request_memory, "requestMemory", "MB")),
        walltime_s=asked(node.request_walltime, "requestWalltime", "minutes") * 60.0 or None,
        retries=int(asked(node.number_of_retries, "numberOfRetries", "tries")),
        no_retry_codes=frozenset([unless] if isinstance(unless, int) else unless or []),
        abort_code=node.abort_on_value,
        is_final=is_final,
    )


def _script(node: GenericWorkflowNode, workflow: GenericWorkflow) -> str:
    """Write a job's script.

    It begins when it reads a line, which its driver writes when it has noted the process: a driver that dies before
    leaves nothing behind that its successor doesn't know of. Its one argument is the file that takes the exit code.
    """
    if not isinstance(node, GenericWorkflowJob):
        return "exit 0\n"
    lines = [f'read -r go || {{ echo "{NOT_STARTED}" >"$1"; exit 1; }}', "("]
    lines += programs_first(*warm.shim_folder())
    lines += script_lines(node, workflow, attempt_variable=ATTEMPT_VARIABLE)
    lines += [") </dev/null", "code=$?", 'echo "$code" >"$1.new" && mv "$1.new" "$1"', "exit $code"]
    return "\n".join(lines) + "\n"
