"""What BPS asked for, written down as jobs and shell scripts.

Belongs here: `LocalWorkflow`, from ctrl_bps's generic workflow to `launchers.local.jobs.Job` and one script a job, with
the command line exactly as BPS wrote it and its placeholders filled in.
Doesn't: running any of it (`launchers.local.driver`).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lsst.ctrl.bps import (
    BaseWmsWorkflow,
    BpsConfig,
    GenericWorkflow,
    GenericWorkflowGroup,
    GenericWorkflowJob,
    GenericWorkflowNode,
    GenericWorkflowNodeType,
)

from launchers import warm
from launchers.local.driver import ATTEMPT_VARIABLE, NOT_STARTED, job_script
from launchers.local.jobs import Job
from launchers.local.store import JobStore
from resources.errors import Rejected

_PLACEHOLDER = re.compile(r"<(ENV|FILE|WMS):([^>]+)>")


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
            "cpus": _number(config, "localCores") or (os.cpu_count() or 1),
            "memory_mb": _number(config, "localMemory"),
        }
        return workflow

    def write(self, out_prefix: str) -> None:
        """Write scripts and record into the submit folder."""
        submit_path = Path(out_prefix)
        (submit_path / "jobs").mkdir(parents=True, exist_ok=True)
        for prepared in self.prepared:
            job_script(submit_path, prepared.job.name).write_text(prepared.script, encoding="utf-8")
        JobStore(submit_path).create((prepared.job for prepared in self.prepared), self.facts)


def _number(config: BpsConfig, key: str) -> int | None:
    _, site = config.search("computeSite", opt={"default": None})
    options: dict[str, Any] = {"default": None, "curvals": {"curr_site": site} if site else {}}
    _, value = config.search(key, opt=options)
    return None if value in {None, ""} else int(value)


def _translate(workflow: GenericWorkflow) -> Iterator[PreparedJob]:
    order = _Order()
    # All of it first: the last edge may belong to the first job.
    for inner in list(_flatten(workflow, order)):
        job = inner.node
        yield PreparedJob(_job(job, order.parents[job.name], order.waits_for[job.name]), _script(job, inner.workflow))
    final = workflow.get_final()
    if final is not None:
        if not isinstance(final, GenericWorkflowJob):
            raise Rejected(
                "a final workflow of several jobs is not supported", workflow.name, "use finalJob.command1 …"
            )
        yield PreparedJob(_job(final, [], [], is_final=True), _script(final, workflow))


class _Order:
    """Who comes after whom, with groups of jobs dissolved into their members."""

    def __init__(self) -> None:
        self.parents: defaultdict[str, list[str]] = defaultdict(list)
        self.waits_for: defaultdict[str, list[str]] = defaultdict(list)
        self.heads: dict[str, list[str]] = {}
        self.tails: dict[str, list[str]] = {}
        self.loose: set[str] = set()


@dataclass(frozen=True, slots=True)
class _Inner:
    node: GenericWorkflowNode
    workflow: GenericWorkflow


def _flatten(workflow: GenericWorkflow, order: _Order) -> Iterator[_Inner]:
    for name in workflow:
        node = workflow.get_job(name)
        match node.node_type:
            case GenericWorkflowNodeType.GROUP:
                assert isinstance(node, GenericWorkflowGroup)
                yield from _flatten(node, order)
                order.heads[name] = _members(order.heads, (n for n in node if node.in_degree(n) == 0))
                order.tails[name] = _members(order.tails, (n for n in node if node.out_degree(n) == 0))
                if not node.blocking:
                    order.loose.add(name)
            case GenericWorkflowNodeType.LAZY_GROUP:
                raise Rejected(
                    f"the lazy group {name} cannot run here", workflow.name, "leave bpsBatchSubmission off on this site"
                )
            case _:
                order.heads[name] = order.tails[name] = [name]
                yield _Inner(node, workflow)
    for before, after in workflow.edges:
        links = order.waits_for if before in order.loose else order.parents
        for head in order.heads[after]:
            links[head] += order.tails[before]


def _members(known: Mapping[str, list[str]], names: Iterable[str]) -> list[str]:
    return [member for name in names for member in known[name]]


def _job(node: GenericWorkflowNode, parents: list[str], waits_for: list[str], *, is_final: bool = False) -> Job:
    if not isinstance(node, GenericWorkflowJob):
        return Job(node.name, node.label, tuple(parents), tuple(waits_for), has_command=False)
    unless = node.retry_unless_exit
    return Job(
        node.name,
        node.label,
        parents=tuple(parents),
        waits_for=tuple(waits_for),
        cpus=int(node.request_cpus or 1),
        memory_mb=int(node.request_memory or 0),
        walltime_s=float(node.request_walltime) * 60.0 if node.request_walltime else None,
        retries=int(node.number_of_retries or 0),
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
    assert node.executable is not None
    command = f"{node.executable.src_uri} {node.arguments or ''}".format_map(defaultdict(str, node.cmdvals))
    files = {file.name: file.src_uri for file in workflow.get_job_inputs(node.name)}
    files |= {file.name: file.src_uri for file in workflow.get_job_outputs(node.name)}
    lines = [f'read -r go || {{ echo "{NOT_STARTED}" >"$1"; exit 1; }}', "("]
    lines += [f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"]
    lines += [f"export PATH={shlex.quote(str(folder))}:$PATH" for folder in warm.shim_folder()]
    lines += [f"export {key}={_quoted(_filled(str(value), files))}" for key, value in node.environment.items()]
    lines += [_filled(line, files) for line in (node.pre_cmdline, command) if line]
    if node.post_cmdline:
        lines += ["code=$?", _filled(node.post_cmdline, files), "exit $code"]
    lines += [") </dev/null", "code=$?", 'echo "$code" >"$1.new" && mv "$1.new" "$1"', "exit $code"]
    return "\n".join(lines) + "\n"


def _filled(text: str, files: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind == "ENV":
            return f"${{{name}}}"
        if kind == "FILE":
            return files[name]
        # What a batch system knows of a job: here, nothing but the number of its attempt.
        return {"attemptNum": f"${{{ATTEMPT_VARIABLE}}}"}.get(name, "")

    while (filled := _PLACEHOLDER.sub(value, text)) != text:
        text = filled
    return text


def _quoted(value: str) -> str:
    """Quote for the shell, with variables still to be replaced by it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`")
    return f'"{escaped}"'
