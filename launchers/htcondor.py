"""HTCondor, with what a submission that outlives its submitter needs: an answer long after its end, and at bad times.

Belongs here: `HTCondorService`, which is ctrl_bps_htcondor's with three things mended. Doesn't: anything else of
HTCondor.

A DAG's id is its submit folder: a restart gives it another number, and its schedd soon forgets either. While DAGMan is
in the queue, the queue says how far it is, in one cheap question. Once it has left, its files say what became of it,
and nobody searches the schedd's history.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import classad2
from htcondor2 import HTCondorException
from lsst.ctrl.bps import BpsConfig, GenericWorkflow, WmsRunReport, WmsStates
from lsst.ctrl.bps.htcondor import HTCondorService as Plugin

from launchers.sites import refuse_what_is_cut
from resources.errors import Retriable

_OVER = frozenset({WmsStates.SUCCEEDED, WmsStates.FAILED, WmsStates.DELETED})


class HTCondorService(Plugin):
    """ctrl_bps_htcondor's service, that knows a DAG by its folder, also after its end, and bears a schedd's absence."""

    def prepare(self, config: BpsConfig, generic_workflow: GenericWorkflow, out_prefix: str | None = None) -> Any:
        """Write the DAG.

        Raises
        ------
        resources.errors.Rejected
            See `launchers.sites.refuse_what_is_cut`.
        """
        if not config["bpsMakeCommand"]:  # else variables go into the submit files' own list of them
            refuse_what_is_cut(generic_workflow)
        return super().prepare(config, generic_workflow, out_prefix)

    def submit(self, workflow: Any, **kwargs: Any) -> None:
        """Submit the DAG, whose id is its folder."""
        with _answering():
            super().submit(workflow, **kwargs)
        workflow.run_id = workflow.submit_path

    def restart(self, wms_workflow_id: str) -> tuple[str | None, str | None, str]:
        """Let DAGMan do again what did not succeed; a folder stays the id."""
        with _answering():
            run_id, name, message = super().restart(wms_workflow_id)
        is_same = run_id is not None and _is_folder(wms_workflow_id)
        return wms_workflow_id if is_same else run_id, name, message

    def list_submitted_jobs(
        self,
        wms_id: str | None = None,
        user: str | None = None,
        require_bps: bool = True,
        pass_thru: str | None = None,
        is_global: bool = False,
    ) -> list[str]:
        """Give the ids of what is in the queue; of a folder, the number under which its DAGMan is there."""
        with _answering():
            if _is_folder(wms_id):
                return [str(each.wms_id) for each in self._queued(wms_id)]
            return super().list_submitted_jobs(wms_id, user, require_bps, pass_thru, is_global)

    def cancel(self, wms_id: str, pass_thru: str | None = None) -> tuple[bool, str]:
        """Take a DAG out of the queue."""
        with _answering():
            return super().cancel(wms_id, pass_thru)

    def report(
        self,
        wms_workflow_id: str | None = None,
        user: str | None = None,
        hist: float = 0,
        pass_thru: str | None = None,
        is_global: bool = False,
        return_exit_codes: bool = False,
    ) -> tuple[list[WmsRunReport], str]:
        """Say how far DAGs are; of a folder's, however long ago it has ended."""
        with _answering():
            if _is_folder(wms_workflow_id):
                reports, message = self._report_of(wms_workflow_id)
            else:
                reports, message = super().report(wms_workflow_id, user, hist, pass_thru, is_global, return_exit_codes)
        for each in reports:
            each.wms_id = each.path
        return reports, message

    def _report_of(self, folder: str) -> tuple[list[WmsRunReport], str]:
        queued = self._queued(folder)
        for each in queued:
            if each.state in _OVER:  # DAGMan is being removed, and takes its jobs along
                each.state = WmsStates.RUNNING
        if queued:
            return queued, ""
        state, _ = super().get_status(folder)
        if state not in _OVER:
            return [], f"DAGMan has left the queue, and its log in {folder} doesn't say how"
        reports, message = super().report(folder)
        # A DAGMan that ended at once has written nothing but its log.
        return reports or [WmsRunReport(path=folder, state=state)], message

    def _queued(self, folder: str) -> list[WmsRunReport]:
        own = f'regexp("dagman$", Cmd) && Iwd =?= {classad2.quote(str(Path(folder).resolve()))}'
        return super().report(pass_thru=own, hist=None)[0]


def _is_folder(wms_id: str | None) -> TypeGuard[str]:
    return wms_id is not None and Path(wms_id).is_dir()


@contextmanager
def _answering() -> Iterator[None]:
    """Call it worth another try when HTCondor's daemons don't answer, as they don't while they are restarted."""
    try:
        yield
    except HTCondorException as error:
        raise Retriable(f"HTCondor doesn't answer: {error}", "condor_schedd", "wait for it, or see its log") from error
