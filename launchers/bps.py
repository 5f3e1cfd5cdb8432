"""Submissions through BPS: one graph becomes one workflow of the site's WMS service, once.

Belongs here: the BPS configuration of a submission, submitting it, the record in its folder by which it is found
again, and where its final job leaves what it writes. Submitting is safe to repeat after a crash at any point: the
intention is written down before, the result after, and an intention without a result is looked up at the service by its
name before anything is submitted.
Doesn't: what a service does with a workflow, watching it (`launchers.watch`), or judging it (`launchers.outcome`).
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml
from lsst.ctrl.bps import BaseWmsService, BpsConfig, WmsRunReport, WmsStates
from lsst.ctrl.bps.drivers import prepare_driver
from lsst.ctrl.bps.submit import submit as submit_to_wms
from lsst.resources import ResourcePath
from lsst.utils import doImportType

import launchers.zip_seek  # noqa: F401
from launchers.folders import is_folder_fault, writing
from launchers.graph import GraphSummary, has_datastore_records
from launchers.processes import exclusive
from launchers.submission import StepRequest
from resources.errors import OperatorError, Rejected, Retriable, SiteFault

DEFAULT_SERVICE = "launchers.local.service.LocalService"
_HANDLE_FILE = "handle.json"
_CONFIG_FILE = "bps.yaml"
_LOOK_BACK_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Handle:
    """A submission as its batch system knows it.

    Parameters
    ----------
    service_class
        Full name of the WMS service's class.
    wms_id
        The workflow's identifier there.
    name
        The workflow's name, which is the submission's.
    submit_path
        The folder with its files.
    """

    service_class: str
    wms_id: str
    name: str
    submit_path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `__str__` wrote."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    def service(self) -> BaseWmsService:
        """Return the service that has the workflow."""
        return doImportType(self.service_class)({})


def find(folder: Path) -> Handle | None:
    """Find the submission that was made from a folder; None when none was, as far as its service knows."""
    try:
        handle = Handle.parse((folder / _HANDLE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if handle.wms_id:
        return handle
    # Whoever wrote the intention did not come back: did the service hear of it?
    report = _look_up(handle)
    if report is None:
        return None
    return record(folder, replace(handle, wms_id=str(report.wms_id)))


def submit(request: StepRequest, graph: GraphSummary) -> Handle:
    """Submit a graph, unless its submission exists already: a second call returns the same handle.

    Raises
    ------
    resources.errors.Rejected
        The graph cannot be executed, or BPS doesn't accept the configuration.
    resources.errors.SiteFault
        The service cannot be used, or the submission's folder can't be written to.
    resources.errors.Retriable
        Somebody else is submitting the same, or the service refused for the moment.
    """
    with writing(request.folder), exclusive(request.folder / "submit.lock", wait_s=60.0) as lock:
        if lock is None:
            raise Retriable("somebody else is submitting it", request.key.name, "try again in a minute")
        found = find(request.folder)
        return found or _submit(request, graph)


def _submit(request: StepRequest, graph: GraphSummary) -> Handle:
    if not has_datastore_records(graph.path):
        raise Rejected(
            "the graph holds no datastore records: every quantum would find no inputs and do nothing",
            str(graph.path),
            "build it with them (pipetask qgraph --qgraph-datastore-records)",
        )
    # What a preparation that went no further has left; BPS wants to make the folder itself.
    shutil.rmtree(request.submit_path, ignore_errors=True)
    config_file = request.folder / _CONFIG_FILE
    configuration = bps_configuration(request, graph)
    config_file.write_text(yaml.safe_dump(configuration, sort_keys=False, width=120), encoding="utf-8")
    service_class = configuration["wmsServiceClass"]
    intention = Handle(service_class, "", request.key.name, str(request.submit_path))
    with (request.folder / "bps.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        try:
            config, workflow = prepare_driver(str(config_file))
        except OperatorError:
            raise
        except (ImportError, TypeError) as error:
            raise SiteFault(
                f"the WMS service cannot be used: {error}", service_class, "see the site profile"
            ) from error
        except (KeyError, ValueError, RuntimeError, OSError) as error:
            if isinstance(error, OSError) and is_folder_fault(error):
                raise
            raise Rejected(f"BPS cannot prepare it: {error}", str(config_file), "see the BPS settings") from error
        record(request.folder, intention)
        try:
            submitted = submit_to_wms(config, workflow)
        except (RuntimeError, OSError) as error:
            if isinstance(error, OSError) and is_folder_fault(error):
                raise
            raise Retriable(f"the batch system did not take it: {error}", service_class, "try again") from error
    return record(request.folder, replace(intention, wms_id=str((submitted or workflow).run_id)))


def bps_configuration(request: StepRequest, graph: GraphSummary) -> dict[str, Any]:
    """Return the BPS file of a submission as nested values; the request's own settings win."""
    run = request.key.run_collection
    defaults = {
        "wmsServiceClass": DEFAULT_SERVICE,
        "uniqProcName": request.key.name,
        "project": request.key.release,
        "campaign": request.key.step,
        "submitPath": str(request.submit_path),
        "qgraphFile": str(graph.path),
        # The graph is built for this run already; without this, BPS starts a process to change nothing.
        "updateQuantumGraph": "true",
        "defaultPreCmdOpts": "--long-log --log-level=INFO",
        "payload": {
            "payloadName": f"{request.key.release}_{request.key.step}",
            "butlerConfig": request.butler,
            "inCollection": ",".join(request.input_collections),
            "output": request.output_chain,
            "outputRun": run,
            "dataQuery": request.data_query,
            "runInit": False,
        },
        # Where the final job writes to. A site whose workers don't see the submission's folder says another place.
        "provenanceOnWorkers": str(request.provenance_path),
        "extraAggregateOptions": "-o {provenanceOnWorkers}",
    }
    return _merged(defaults, request.bps)


def fetch_provenance(request: StepRequest) -> None:
    """Bring the final job's provenance into the submission's folder, where its worker has left it elsewhere.

    Parameters
    ----------
    request
        What was submitted.
    """
    left = _provenance_elsewhere(request)
    if left is not None and left.exists():
        ResourcePath(request.provenance_path).transfer_from(left, transfer="copy")


def forget_provenance(request: StepRequest) -> None:
    """Remove what the final job has written, wherever it is: the submission goes on, and another one will.

    Parameters
    ----------
    request
        What was submitted.
    """
    request.provenance_path.unlink(missing_ok=True)
    left = _provenance_elsewhere(request)
    if left is not None and left.exists():
        left.remove()


def _provenance_elsewhere(request: StepRequest) -> ResourcePath | None:
    where = ResourcePath(BpsConfig(str(request.folder / _CONFIG_FILE))["provenanceOnWorkers"])
    return None if where == ResourcePath(request.provenance_path) else where


def _merged(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(defaults))
    for key, value in settings.items():
        both_nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both_nested else copy.deepcopy(value)
    return merged


def record(folder: Path, handle: Handle) -> Handle:
    """Write down by what a submission is known, as after a restart that has given it another id.

    Parameters
    ----------
    folder
        The submission's.
    handle
        The submission.

    Returns
    -------
    handle
        The same.
    """
    # Who only looks may record as well, at the same moment.
    new = folder / f"{_HANDLE_FILE}.{uuid.uuid4().hex}"
    new.write_text(f"{handle}\n", encoding="utf-8")
    new.replace(folder / _HANDLE_FILE)
    return handle


def _look_up(handle: Handle) -> WmsRunReport | None:
    service = handle.service()
    find_by_name = getattr(service, "find_by_name", None)
    if find_by_name is not None:  # a service that can't list what it has can be asked for a name
        reports = [report for wms_id in find_by_name(handle.name) for report in _ask(service, wms_workflow_id=wms_id)]
        return next(iter(reports), None)
    reports = [*_ask(service, wms_workflow_id=handle.submit_path), *_ask(service, hist=_LOOK_BACK_DAYS)]
    known = (each for each in reports if each.run == handle.name and each.state is not WmsStates.UNREADY)
    return next(known, None)


def _ask(service: BaseWmsService, **question: Any) -> list[WmsRunReport]:
    reports, _ = service.report(**question)
    return reports
