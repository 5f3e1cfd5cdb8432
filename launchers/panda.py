"""PanDA, with what a submission that outlives its submitter needs: being found by its name, and URLs left alone.

Belongs here: `PandaService`, which is ctrl_bps_panda's with three things mended. Doesn't: anything else of PanDA.
"""

from __future__ import annotations

import binascii
import re
from pathlib import Path
from typing import Any

from lsst.ctrl.bps import BpsConfig, GenericWorkflow, WmsRunReport
from lsst.ctrl.bps.panda import PanDAService
from lsst.ctrl.bps.panda.utils import get_idds_client, get_idds_result

from launchers.sites import refuse_what_is_cut, without_hidden_file
from resources.errors import Retriable

_HEX = re.compile(r"(?<=cmd_line_decoder )[0-9a-f]+")


class PandaService(PanDAService):
    """ctrl_bps_panda's service, that finds requests by name, leaves other schemes' URLs alone, and bears an absence."""

    def prepare(self, config: BpsConfig, generic_workflow: GenericWorkflow, out_prefix: str | None = None) -> Any:
        """Write the workflow, each command of it with its URLs as the site's workers have to see them.

        Raises
        ------
        resources.errors.Rejected
            See `launchers.sites.refuse_what_is_cut`.
        """
        refuse_what_is_cut(generic_workflow)
        workflow = super().prepare(config, generic_workflow, out_prefix)
        for work in workflow.idds_client_workflow.template.works.values():
            work.executable = _mended(work.executable)
        workflow.write(str(Path(out_prefix or ".")))
        return workflow

    def report(
        self,
        wms_workflow_id: str | None = None,
        user: str | None = None,
        hist: float = 0,
        pass_thru: str | None = None,
        is_global: bool = False,
        return_exit_codes: bool = False,
    ) -> tuple[list[WmsRunReport], str]:
        """Say how far a request is.

        Raises
        ------
        resources.errors.Retriable
            PanDA answers, but iDDS behind it doesn't.
        """
        try:
            found: tuple[list[WmsRunReport], str] = super().report(
                wms_workflow_id, user, hist, pass_thru, is_global, return_exit_codes
            )
        except TypeError as error:  # the plugin takes iDDS's word of what is wrong for its list of tasks
            raise Retriable("iDDS doesn't say how far it is", f"PanDA's request {wms_workflow_id}", "wait") from error
        return found

    def find_by_name(self, name: str) -> list[str]:
        """Give the ids of the requests of this name, which PanDA's report can't list.

        Parameters
        ----------
        name
            The workflow's.

        Raises
        ------
        RuntimeError
            PanDA doesn't say.
        """
        is_answered, result, error = get_idds_result(get_idds_client(self.config).get_request_id_by_name(name=name))
        if not is_answered:
            raise RuntimeError(f"PanDA can't look {name} up: {error}")
        found = (result or {}).get(name)
        return [] if found is None else [str(found)]


def _mended(command: str) -> str:
    """Take hidden ``file://`` out of a runner's command, and out of the payload's, which is in it as hex digits."""

    def decoded(match: re.Match[str]) -> str:
        return binascii.hexlify(without_hidden_file(binascii.unhexlify(match[0]).decode()).encode()).decode()

    return without_hidden_file(_HEX.sub(decoded, command))
