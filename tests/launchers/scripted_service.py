"""A batch system that says what it is told to say."""

from typing import ClassVar

from lsst.ctrl.bps import BaseWmsService, WmsRunReport, WmsSpecificInfo, WmsStates


class ScriptedService(BaseWmsService):
    """Tells its workflow's states one after another."""

    script: ClassVar[list[WmsStates | None]] = []
    resumed: ClassVar[list[str]] = []
    cancelled: ClassVar[list[str]] = []
    refusals: ClassVar[list[Exception]] = []
    quanta: ClassVar[list[int]] = []
    trouble: ClassVar[list[str]] = []
    restarted: ClassVar[list[str]] = []
    refusal: ClassVar[str] = ""

    def report(self, wms_workflow_id=None, **_):
        state = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if state is None:
            return [], "the scheduler is down"
        info = WmsSpecificInfo()
        info.add_message(
            "{quanta_succeeded} {quanta_failed}",
            quanta_succeeded=self.quanta.pop(0) if self.quanta else 7,
            quanta_failed=1,
        )
        if self.trouble and (trouble := self.trouble.pop(0)):
            info.add_message("{trouble}", trouble=trouble)
        counts = dict.fromkeys(WmsStates, 0) | {WmsStates.RUNNING: 2, WmsStates.SUCCEEDED: 1}
        return [WmsRunReport(wms_id="1", run="n", state=state, job_state_counts=counts, specific_info=info)], ""

    def resume(self, wms_id):
        if self.refusals:
            raise self.refusals.pop(0)
        self.resumed.append(wms_id)
        return True

    def list_submitted_jobs(self, wms_id=None, **_):
        return [wms_id]

    def cancel(self, wms_id, pass_thru=None):
        self.cancelled.append(wms_id)
        return (False, self.refusal) if self.refusal else (True, "gone")

    def restart(self, wms_workflow_id):
        self.restarted.append(wms_workflow_id)
        return str(int(wms_workflow_id) + 1), "n", ""

    @classmethod
    def forget(cls):
        """Begin anew."""
        for kept in ("script", "resumed", "cancelled", "refusals", "quanta", "trouble", "restarted"):
            setattr(cls, kept, [])
        cls.refusal = ""
