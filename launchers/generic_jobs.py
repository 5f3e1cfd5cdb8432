"""What every WMS service of ours reads out of a generic workflow in the same way.

Belongs here: groups of jobs dissolved into their members, what a job does, in the shell's words, and numbers that were
asked for.
Doesn't: what a service makes of it (`launchers.local.workflow`, `launchers.slurm.workflow`).
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsst.ctrl.bps import (
    GenericWorkflow,
    GenericWorkflowGroup,
    GenericWorkflowJob,
    GenericWorkflowNode,
    GenericWorkflowNodeType,
)

from resources.errors import Rejected

_PLACEHOLDER = re.compile(r"<(ENV|FILE|WMS):([^>]+)>")


@dataclass(frozen=True, slots=True)
class FlatJob:
    """A node of a workflow, wherever in a group it was.

    Parameters
    ----------
    node
        The node itself.
    workflow
        The workflow or group that knows its files.
    parents
        Nodes that must have succeeded before it.
    waits_for
        Nodes that must be over before it, however they ended.
    """

    node: GenericWorkflowNode
    workflow: GenericWorkflow
    parents: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()


def flat_jobs(workflow: GenericWorkflow) -> list[FlatJob]:
    """List a workflow's jobs, each after those that it depends on, with groups dissolved; the final job is not one.

    Parameters
    ----------
    workflow
        From ctrl_bps.

    Raises
    ------
    resources.errors.Rejected
        It holds a group whose jobs are not known yet.
    """
    order = _Order()
    # All of it first: the last edge may belong to the first job.
    found = list(_flatten(workflow, order))
    return [
        FlatJob(node, inner, tuple(order.parents[node.name]), tuple(order.waits_for[node.name]))
        for node, inner in found
    ]


def final_job(workflow: GenericWorkflow) -> GenericWorkflowJob | None:
    """Give the job that comes after all others, if there is one.

    Parameters
    ----------
    workflow
        From ctrl_bps.

    Raises
    ------
    resources.errors.Rejected
        It is a workflow of its own.
    """
    final = workflow.get_final()
    if final is None or isinstance(final, GenericWorkflowJob):
        return final
    raise Rejected("a final workflow of several jobs is not supported", workflow.name, "use finalJob.command1 …")


def files_of(workflow: GenericWorkflow, name: str) -> dict[str, str]:
    """Give the files of a job by the names that its command line has for them.

    Parameters
    ----------
    workflow
        The one that the job is in.
    name
        The job's.
    """
    files = [*workflow.get_job_inputs(name), *workflow.get_job_outputs(name)]
    return {file.name: file.src_uri for file in files}


def number(value: Any, setting: str, *, unit: str, where: str = "") -> float:
    """Read a number that was asked for; 0 where nothing was.

    Parameters
    ----------
    value
        As the configuration has it.
    setting
        The setting's name.
    unit
        What it counts.
    where
        Whose setting it is.

    Raises
    ------
    resources.errors.Rejected
        It is something else.
    """
    if value is None or value == "":
        return 0.0
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not 0.0 <= found < math.inf:
        raise Rejected(f"{setting} {value!r} is no number of {unit}", where, "give one in digits")
    return found


def command_of(job: GenericWorkflowJob) -> str:
    """Give a job's command line, its values filled in but not its placeholders.

    Parameters
    ----------
    job
        From ctrl_bps.
    """
    assert job.executable is not None
    return f"{job.executable.src_uri} {job.arguments or ''}".format_map(defaultdict(str, job.cmdvals))


def filled(text: str, files: Mapping[str, str], *, attempt_variable: str) -> str:
    """Replace the placeholders ``<ENV:…>``, ``<FILE:…>`` and ``<WMS:…>`` as a shell script needs it.

    Parameters
    ----------
    text
        A command line, or a variable's value.
    files
        See `files_of`.
    attempt_variable
        The variable that tells a job how often it was tried before, which is what ``<WMS:attemptNum>`` means; batch
        systems of ours know nothing else.
    """

    def value(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind == "ENV":
            return f"${{{name}}}"
        if kind == "FILE":
            return files[name]
        return {"attemptNum": f"${{{attempt_variable}}}"}.get(name, "")

    while (replaced := _PLACEHOLDER.sub(value, text)) != text:
        text = replaced
    return text


def shell_quoted(value: str) -> str:
    """Quote for the shell, with variables still to be replaced by it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`")
    return f'"{escaped}"'


def script_lines(job: GenericWorkflowJob, workflow: GenericWorkflow, *, attempt_variable: str) -> list[str]:
    """Write what a job does, for bash: its environment, its prologue, its command, and what comes after that.

    A job whose prologue fails stops there, with the prologue's exit code; otherwise its exit code is the command's.

    Parameters
    ----------
    job
        From ctrl_bps.
    workflow
        The one that the job is in.
    attempt_variable
        See `filled`.
    """
    files = files_of(workflow, job.name)

    def fill(text: str) -> str:
        return filled(text, files, attempt_variable=attempt_variable)

    lines = [f"export {key}={shell_quoted(fill(str(value)))}" for key, value in job.environment.items()]
    if job.pre_cmdline:
        lines += ["{", fill(job.pre_cmdline), "} || exit $?"]
    lines.append(fill(command_of(job)))
    if job.post_cmdline:
        lines += ["code=$?", fill(job.post_cmdline), "exit $code"]
    return lines


def programs_first(*folders: Path) -> list[str]:
    """Let a job find our own Python's programs before all others, and those in some folders before these."""
    first = (Path(sys.executable).parent, *folders)
    return [f"export PATH={shlex.quote(str(folder))}:$PATH" for folder in first]


class _Order:
    """Who comes after whom, with groups of jobs dissolved into their members."""

    def __init__(self) -> None:
        self.parents: defaultdict[str, list[str]] = defaultdict(list)
        self.waits_for: defaultdict[str, list[str]] = defaultdict(list)
        self.heads: dict[str, list[str]] = {}
        self.tails: dict[str, list[str]] = {}
        self.loose: set[str] = set()


def _flatten(workflow: GenericWorkflow, order: _Order) -> Iterator[tuple[GenericWorkflowNode, GenericWorkflow]]:
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
                yield node, workflow
    for before, after in workflow.edges:
        links = order.waits_for if before in order.loose else order.parents
        for head in order.heads[after]:
            links[head] += order.tails[before]


def _members(known: Mapping[str, list[str]], names: Iterable[str]) -> list[str]:
    return [member for name in names for member in known[name]]
