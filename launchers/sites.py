"""The site's batch system in BPS's words: what a profile says of software, prologue and URLs, for each WMS plugin.

Belongs here: the pure functions from a profile's ``wms:`` to BPS settings. Doesn't: what a release or a step changes
(`drp_assets.submissions`), or submitting (`launchers.bps`).

Each plugin has its own place for what comes before a job's command. ctrl_bps_htcondor's is ``payloadCommand`` (with
``bpsMakeCommand`` off), ctrl_bps_panda's is ``runnerCommand``, which has to end with the plugin's own decoder of the
command line; those of this project run BPS's ``preCmdline``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resources.errors import Rejected
from resources.site import UrlRule, WmsSettings

if TYPE_CHECKING:
    from lsst.ctrl.bps import GenericWorkflow  # its import takes the middleware's seconds

HTCONDOR = "launchers.htcondor.HTCondorService"
PANDA = "launchers.panda.PandaService"
_PLAIN_HTCONDOR = "lsst.ctrl.bps.htcondor.HTCondorService"
_PLAIN_PANDA = "lsst.ctrl.bps.panda.PanDAService"
_DECODER = "python3 -m lsst.ctrl.bps.panda.edgenode.cmd_line_decoder _cmd_line_"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_HIDDEN_FILE = re.compile(r"file://(?=[a-z][a-z0-9+.-]*://)")
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")
_PLACEHOLDER = re.compile(r"<(?:ENV|WMS):\w+>")
_CUTS = re.compile(r"[\s'\"`\\;&|()<>]")


def site_bps(wms: WmsSettings) -> dict[str, Any]:
    """Give the BPS settings that hold for every submission at a site.

    Parameters
    ----------
    wms
        The profile's; its own ``bps`` wins over what follows from the rest.

    Raises
    ------
    resources.errors.Rejected
        The plugin can't do what the profile asks for.
    """
    settings: dict[str, Any] = {"wmsServiceClass": wms.service, "computeSite": wms.compute_site}
    if wms.include_configs:
        settings["includeConfigs"] = list(wms.include_configs)
    if wms.environment:
        settings["environment"] = {name: _braced(value) for name, value in wms.environment.items()}
    match wms.service:
        case service if service == HTCONDOR:
            settings |= _for_htcondor(wms)
        case service if service == _PLAIN_HTCONDOR:
            raise Rejected("it would never be seen that a submission has ended", service, f"write {HTCONDOR} instead")
        case service if service in {PANDA, _PLAIN_PANDA}:
            settings |= _for_panda(wms)
        case _:
            settings |= _for_ours(wms)
    return merged(settings, wms.bps)


def url_on_workers(url: str, rules: Sequence[UrlRule]) -> str:
    """Give a URL as jobs have to write it: the longest matching prefix replaced, and no hidden ``file://`` before it.

    Parameters
    ----------
    url
        As it is written here.
    rules
        The profile's.
    """
    fitting = [rule for rule in rules if url.startswith(rule.here)]
    if fitting:
        rule = max(fitting, key=lambda each: len(each.here))
        url = rule.on_workers + url.removeprefix(rule.here)
    return without_hidden_file(url)


def without_hidden_file(text: str) -> str:
    """Take ``file://`` away where another scheme follows it, as PanDA's way to the worker adds it.

    Parameters
    ----------
    text
        A URL, or a command with URLs in it.
    """
    return _HIDDEN_FILE.sub("", text)


def refuse_what_is_cut(workflow: GenericWorkflow) -> None:
    """Refuse values of jobs' variables that would end their command: HTCondor's and PanDA's plugins don't quote them.

    Parameters
    ----------
    workflow
        With its jobs' variables from wherever BPS takes them.

    Raises
    ------
    resources.errors.Rejected
        A value is empty, or has in it what a shell or HTCondor ends a word at.
    """
    for job in (*map(workflow.get_job, workflow), workflow.get_final()):
        for name, value in (getattr(job, "environment", None) or {}).items():
            if not value or _CUTS.search(_PLACEHOLDER.sub("", value)):
                raise Rejected(
                    f"{name}={value!r} would end the commands of its jobs",
                    f"environment of {job.label}",
                    f'set it in wms.prologue of the site profile (export {name}="…")',
                )


def merged(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested settings.

    Parameters
    ----------
    defaults
        What holds where nothing else is said.
    settings
        What wins.
    """
    result = dict(defaults)
    for key, value in settings.items():
        both_nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both_nested else value
    return result


def _before_the_command(wms: WmsSettings) -> list[str]:
    """Give what comes before a job's command: the prologue and the software's; a job of which any fails stops there."""
    software = wms.software
    setup = [] if software.stack is None else ["unset PYTHONPATH", f"source {software.stack}/loadLSST.bash"]
    return [f"{command} || exit 1;" for command in (*wms.prologue, *setup, *(software.setup if setup else ()))]


def _braced(text: str) -> str:
    """Write variables as ``${NAME}``: of ``$NAME`` BPS doesn't see the end."""
    return _VARIABLE.sub(r"${\1}", text)


def _for_ours(wms: WmsSettings) -> dict[str, Any]:
    if wms.software.image is not None:
        raise Rejected("can't run jobs in a container", wms.service, "leave wms.software.image out of the site profile")
    commands = [_braced(command) for command in _before_the_command(wms)]
    return {"preCmdline": " ".join(commands)} if commands else {}


def _for_htcondor(wms: WmsSettings) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    commands = [_in_quotes_of_htcondor(command) for command in _before_the_command(wms)]
    if commands:
        settings |= {
            "bpsMakeCommand": False,
            "setupEnv": "".join(f"{command} " for command in commands),
            "customEnvSetup": "",
        }
    if wms.software.image is not None:
        attributes = {"+SingularityImage": f'"{wms.software.image}"'}
        if wms.software.binds:
            attributes["+SingularityBind"] = f'"{",".join(wms.software.binds)}"'
        settings["site"] = {wms.compute_site: {"profile": {"condor": attributes}}}
    if not wms.bps.get("bpsUseShared", True) and "provenanceOnWorkers" not in wms.bps:
        # There is no place for the final job's provenance: the run gathers it.
        settings["extraAggregateOptions"] = ""
    return settings


def _in_quotes_of_htcondor(command: str) -> str:
    """Write a shell command as a submit file has it inside both kinds of quotes, where ``$(…)`` would be a macro."""
    return command.replace("'", "''").replace('"', '""').replace("$(", "$(DOLLAR)(")


def _for_panda(wms: WmsSettings) -> dict[str, Any]:
    where = wms.bps.get("fileDistributionEndPoint", "")
    if not (where.startswith("/") or _SCHEME.match(where)) or not where.endswith("/"):
        raise Rejected(
            "PanDA's jobs fetch their files from wms.bps.fileDistributionEndPoint",
            where or "site profile",
            "give it as an absolute URL that ends with /",
        )
    payload = " ".join([*_before_the_command(wms), _DECODER])
    if wms.software.image is not None:
        binds = "".join(f" --bind {bind}" for bind in wms.software.binds)
        payload = f"apptainer exec{binds} {wms.software.image} /bin/bash -c {shlex.quote(payload)}"
    return {
        "placeholderParams": ["qgraphNodeId", "qgraphId"],
        "runnerCommand": f"{payload}; exit $?;",
        # Names of jobs with all their data IDs are longer than PanDA's database takes.
        "enableJobNameMap": True,
        "fileDistributionEndPoint": without_hidden_file(where),
        "provenanceOnWorkers": "{fileDistributionEndPoint}{uniqProcName}_provenance.qg",
    }
