"""What BPS asked for, written down as jobs that are alike in blocks, and one shell script a job.

Belongs here: `SlurmWorkflow`, from ctrl_bps's generic workflow and configuration to `launchers.slurm.jobs`, with each
command line exactly as BPS wrote it and its placeholders filled in.
Doesn't: submitting or running any of it (`launchers.slurm.conductor`).
"""

from __future__ import annotations

import dataclasses
import errno
import math
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from lsst.ctrl.bps import BaseWmsWorkflow, BpsConfig, GenericWorkflow, GenericWorkflowJob, GenericWorkflowNode

from launchers.generic_jobs import FlatJob, final_job, flat_jobs, number, programs_first, script_lines
from launchers.slurm.commands import user_name
from launchers.slurm.dispatcher import NOTICE_S
from launchers.slurm.jobs import Job, Request
from launchers.slurm.plan import Plan
from launchers.slurm.store import JobStore
from resources.errors import Rejected, SiteFault

ATTEMPT_VARIABLE = "BPS_SLURM_ATTEMPT"
"""Tells a job how often it was tried before."""

OURS = frozenset(
    (
        *("array", "chdir", "comment", "cpus-per-task", "dependency", "error", "export", "hold", "input", "job-name"),
        *("licenses", "mem", "mem-per-cpu", "nice", "no-requeue", "ntasks", "output", "parsable", "requeue"),
        *("test-only", "time", "tmp", "wrap"),
    )
)
"""Options of ``sbatch`` that a profile can't set, because this plugin does."""

WITHOUT_EQUIVALENT = {
    "accounting_user": "accountingUser",
    "category": "category",
    "attrs": "attrs",
    "abort_return_value": "abortReturnValue",
}
"""Attributes of ctrl_bps's jobs that Slurm has nothing for, and BPS's settings that they come from.

Jobs are accounted to whom they run as, a workflow has no exit code of its own, and the others are HTCondor's.
"""

DISPATCHER = "slurmDispatcher"
"""BPS section with what the dispatcher's own job asks for."""

_DISPATCHER_MEMORY_MB = 512
_POLL_S = 15.0


class SlurmWorkflow(BaseWmsWorkflow):
    """A workflow for `launchers.slurm.service.SlurmService`."""

    def __init__(self, name: str, config: BpsConfig) -> None:
        super().__init__(name, config)
        self.plan = Plan([], [])
        self.scripts: list[str] = []
        self.facts: dict[str, Any] = {}
        self.left_out: list[str] = []

    @classmethod
    def from_generic_workflow(
        cls, config: BpsConfig, generic_workflow: GenericWorkflow, out_prefix: str, service_class: str
    ) -> Self:
        """Translate; see the base class."""
        workflow = cls(generic_workflow.name, config)
        workflow.service_class = service_class
        workflow.submit_path = out_prefix
        workflow.plan, workflow.scripts = translate(config, generic_workflow)
        workflow.left_out = left_out(generic_workflow)
        attributes = generic_workflow.run_attrs
        workflow.facts = {
            "name": generic_workflow.name,
            "operator": attributes.get("bps_operator", ""),
            "project": attributes.get("bps_project", ""),
            "campaign": attributes.get("bps_campaign", ""),
            "payload": attributes.get("bps_payload", ""),
            "site": attributes.get("bps_runsite", ""),
            "user": user_name(),
            "poll_s": number(_setting(config, "slurmPollInterval"), "slurmPollInterval", unit="seconds") or _POLL_S,
            "most_jobs": int(number(_setting(config, "slurmMaxSubmit"), "slurmMaxSubmit", unit="jobs")) or None,
            "dispatcher": _dispatcher_request(config, workflow.plan),
        }
        return workflow

    def write(self, out_prefix: str) -> None:
        """Write scripts and record into the submit folder.

        Raises
        ------
        resources.errors.SiteFault
            The folder is full, or can't be written to.
        """
        submit_path = Path(out_prefix)
        try:
            store = JobStore(submit_path)
            store.create(self.plan, self.scripts, self.facts)
            for line in self.left_out:
                store.tell(line)
            command = shlex.join([sys.executable, "-m", "launchers.slurm.dispatcher", str(store.submit_path)])
            dispatcher_script(store.submit_path).write_text(f"#!/bin/bash\nexec {command}\n", encoding="utf-8")
        except OSError as error:
            raise folder_fault(error, submit_path) from error


def dispatcher_script(submit_path: Path) -> Path:
    """What the dispatcher's job runs."""
    return submit_path / "dispatcher.sh"


def folder_fault(error: OSError, submit_path: Path) -> SiteFault:
    """Say what is wrong with a submit folder that can't be written to.

    Parameters
    ----------
    error
        What writing into it led to.
    submit_path
        The folder.
    """
    where = str(error.filename or submit_path)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return SiteFault("there is no space left for the submission", where, "make room there, or set submitPath")
    return SiteFault(
        f"the submission cannot be written: {error.strerror}", where, "see the folder's mode, or set submitPath"
    )


def translate(config: BpsConfig, workflow: GenericWorkflow) -> tuple[Plan, list[str]]:
    """Turn a generic workflow into jobs and their scripts.

    Parameters
    ----------
    config
        BPS configuration.
    workflow
        From ctrl_bps.

    Raises
    ------
    resources.errors.Rejected
        It asks for something that can't be had.
    """
    flat = flat_jobs(workflow)
    final = final_job(workflow)
    nodes = [*flat, *([FlatJob(final, workflow)] if final is not None else [])]
    positions = {each.node.name: position for position, each in enumerate(flat)}
    blocks: dict[Any, int] = {}
    requests: list[Request] = []
    sizes: Counter[int] = Counter()
    profiles = _Profiles(config)
    jobs = []
    for each in nodes:
        request = _request(each.node, config, profiles)
        is_final = each.node is final
        # One that takes longer doesn't deserve an array of its own.
        key = (dataclasses.replace(request, walltime_min=None), is_final)
        block = blocks.setdefault(key, len(requests))
        if block == len(requests):
            requests.append(request)
        elif (request.walltime_min or 0) > (requests[block].walltime_min or 0):
            requests[block] = request
        jobs.append(
            Job(
                each.node.name,
                each.node.label,
                block,
                sizes[block],
                tuple(positions[name] for name in each.parents),
                tuple(positions[name] for name in each.waits_for),
                has_command=isinstance(each.node, GenericWorkflowJob),
                is_final=is_final,
            )
        )
        sizes[block] += 1
    return Plan(jobs, requests), [_script(each.node, each.workflow) for each in nodes]


def left_out(workflow: GenericWorkflow) -> list[str]:
    """Say which of the settings that jobs have mean nothing on Slurm.

    Parameters
    ----------
    workflow
        From ctrl_bps.
    """
    labels: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for node in (*(flat.node for flat in flat_jobs(workflow)), final_job(workflow)):
        for attribute, setting in WITHOUT_EQUIVALENT.items():
            if getattr(node, attribute, None) not in (None, "", {}):
                labels[setting][node.label] = None
    return [f"{', '.join(some)}: {setting} means nothing on Slurm" for setting, some in labels.items()]


def _request(node: GenericWorkflowNode, config: BpsConfig, profiles: _Profiles) -> Request:
    if not isinstance(node, GenericWorkflowJob):
        return Request(node.label)

    def asked(value: Any, setting: str, unit: str) -> float:
        return number(value, setting, unit=unit, where=node.label)

    unless = node.retry_unless_exit
    limits = [
        asked(node.request_memory_max, "requestMemoryMax", "MB"),
        asked(profiles.memory_limit, "memoryLimit", "MB"),
    ]
    options = {
        "partition": node.queue,
        "account": node.accounting_group,
        "mail-user": node.mail_to,
        "mail-type": node.when_to_mail,
    }
    return Request(
        node.label,
        cpus=int(asked(node.request_cpus, "requestCpus", "CPUs")) or 1,
        memory_mb=int(asked(node.request_memory, "requestMemory", "MB")),
        disk_mb=int(asked(node.request_disk, "requestDisk", "MB")),
        memory_limit_mb=min((int(limit) for limit in limits if limit), default=None),
        memory_multiplier=asked(node.memory_multiplier, "memoryMultiplier", "times") or None,
        walltime_min=math.ceil(asked(node.request_walltime, "requestWalltime", "minutes")) or None,
        retries=int(asked(node.number_of_retries, "numberOfRetries", "tries")),
        no_retry_codes=(unless,) if isinstance(unless, int) else tuple(unless or ()),
        abort_code=node.abort_on_value,
        preemptible=node.preemptible is not False,
        urgency=_urgency(node),
        limits=tuple(name.strip() for name in (node.concurrency_limit or "").split(",") if name.strip()),
        options=_as_options({**options, **profiles.of(node)}),
    )


def _urgency(job: GenericWorkflowJob) -> int:
    try:
        return int(job.priority or 0)
    except ValueError as error:
        raise Rejected(
            f"the priority {job.priority!r} is no number", job.label, "give one, higher for what comes first"
        ) from error


def _as_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for key, value in sorted(values.items()):
        if value is None or value is False or value == "":
            continue
        found.append(f"--{key}" if value is True else f"--{key}={value}")
    return tuple(found)


class _Profiles:
    """Further options of ``sbatch`` by label: ``profile: {slurm: {qos: …}}`` of the site, and of the label over it."""

    def __init__(self, config: BpsConfig) -> None:
        self._config = config
        site = _setting(config, "computeSite")
        self.site = self.read(f".site.{site}") if site else {}
        self._labels: dict[str, dict[str, Any]] = {}
        self.memory_limit = _setting(config, "memoryLimit")

    def of(self, job: GenericWorkflowJob) -> dict[str, Any]:
        if job.label not in self._labels:
            sections = (f".pipetask.{job.label}", f".cluster.{job.label}", f".{job.label}")
            own: dict[str, Any] = {}
            for section in sections:
                own |= self.read(section)
            self._labels[job.label] = {**self.site, **own}
        return {**self._labels[job.label], **job.profile.get("slurm", {})}

    def read(self, section: str) -> dict[str, Any]:
        key = f"{section}.profile.slurm"
        if key not in self._config:
            return {}
        values = dict(self._config[key].items())
        if taken := sorted(OURS.intersection(values)):
            raise Rejected(
                f"a profile can't set {', '.join(taken)}", key.lstrip("."), "use BPS's own setting (requestMemory, …)"
            )
        return values


def _setting(config: BpsConfig, key: str) -> Any:
    _, site = config.search("computeSite", opt={"default": None})
    if key == "computeSite":
        return site
    options: dict[str, Any] = {"default": None, "curvals": {"curr_site": site} if site else {}}
    _, value = config.search(key, opt=options)
    return None if value in {None, ""} else value


def _dispatcher_request(config: BpsConfig, plan: Plan) -> dict[str, Any]:
    """Write down what the dispatcher's job asks for: where and as the site's jobs may run, it may run as well."""
    section = dict(config[DISPATCHER].items()) if DISPATCHER in config else {}
    profiles = _Profiles(config)
    first = plan.blocks[0].options if plan.blocks else ()
    jobs = dict(option.removeprefix("--").partition("=")[::2] for option in first)
    own = {"partition": section.pop("queue", None), "account": section.pop("accountingGroup", None)}
    options = {
        **{key: jobs.get(key) for key in own},
        **profiles.site,
        **{key: value for key, value in own.items() if value},
        **profiles.read(f".{DISPATCHER}"),
    }
    section.pop("profile", None)
    memory_mb = number(section.pop("requestMemory", None), "requestMemory", unit="MB", where=DISPATCHER)
    walltime_min = number(section.pop("requestWalltime", None), "requestWalltime", unit="minutes", where=DISPATCHER)
    if section:
        raise Rejected(
            f"unknown settings {', '.join(sorted(section))}",
            DISPATCHER,
            "requestMemory, requestWalltime, queue, accountingGroup, profile are known",
        )
    if 0 < walltime_min * 60 <= NOTICE_S:
        raise Rejected(
            f"{walltime_min:g} minutes are too few: a dispatcher leaves {NOTICE_S // 60} minutes before its time is up",
            DISPATCHER,
            "raise requestWalltime",
        )
    return {
        "label": DISPATCHER,
        "memory_mb": int(memory_mb) or _DISPATCHER_MEMORY_MB,
        "walltime_min": math.ceil(walltime_min) or None,
        "options": list(_as_options(options)),
    }


def _script(node: GenericWorkflowNode, workflow: GenericWorkflow) -> str:
    if not isinstance(node, GenericWorkflowJob):
        return "exit 0\n"
    lines = [*programs_first(), *script_lines(node, workflow, attempt_variable=ATTEMPT_VARIABLE)]
    return "\n".join(lines) + "\n"
