"""The service that ``bps`` talks to for Slurm.

Belongs here: `SlurmService`, the whole of ctrl_bps's interface (prepare, submit, restart, report, get_status, cancel,
list_submitted_jobs, run_submission_checks, ping). A workflow's id is the path of its submit folder; the number of any
of its jobs in Slurm will do as well.
Doesn't: making a workflow go on (`launchers.slurm.dispatcher`), the reports' form (`launchers.slurm.report`), or
remembering which workflows there are (`launchers.slurm.registry`).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsst.ctrl.bps import BaseWmsService, BpsConfig, GenericWorkflow, WmsRunReport, WmsStates

from launchers.job_ends import JobEnd
from launchers.oneline import in_one_line
from launchers.slurm.checks import check_requests, largest_memory, unknown_limits
from launchers.slurm.commands import Slurm, user_name
from launchers.slurm.conductor import Conductor
from launchers.slurm.dispatcher import COMMENT, dispatcher_options, dispatchers, waiting_dispatchers
from launchers.slurm.plan import Plan
from launchers.slurm.queue import Queue
from launchers.slurm.registry import note, noted, passing_over
from launchers.slurm.report import Standing, held_message, report_of, standing
from launchers.slurm.store import JobStore, read_request
from launchers.slurm.told import job_ends
from launchers.slurm.workflow import SlurmWorkflow, dispatcher_script, folder_fault
from resources.errors import OperatorError, Rejected, Retriable

_TRIES = 4
_BETWEEN_TRIES_S = 3.0
_LOCK_S = 30.0


class SlurmService(BaseWmsService):
    """Runs BPS workflows on Slurm."""

    @property
    def defaults(self) -> dict[str, Any]:
        """BPS settings that suit Slurm."""
        return {"computeSite": "slurm"}

    @in_one_line
    def prepare(
        self, config: BpsConfig, generic_workflow: GenericWorkflow, out_prefix: str | None = None
    ) -> SlurmWorkflow:
        """Write the workflow into its submit folder."""
        folder = str(Path(out_prefix or ".").absolute())
        service_class = f"{type(self).__module__}.{type(self).__name__}"
        workflow = SlurmWorkflow.from_generic_workflow(config, generic_workflow, folder, service_class)
        workflow.write(folder)
        return workflow

    @in_one_line
    def submit(self, workflow: SlurmWorkflow, **kwargs: Any) -> SlurmWorkflow:
        """Submit the workflow's arrays, held, and then its dispatcher, which makes it count; what runs at once is let.

        Raises
        ------
        resources.errors.Rejected
            Slurm can't do what is asked for.
        resources.errors.Retriable
            Slurm doesn't answer. The call may be repeated: what was submitted is found.
        resources.errors.SiteFault
            The submit folder can't be written to.
        """
        store = JobStore(Path(workflow.submit_path))
        if not _counts(store):
            with _writing(store), _nothing_left_behind(store):
                _patiently(lambda: _submit(store))
        workflow.run_id = str(store.submit_path)
        return workflow

    @in_one_line
    def resume(self, wms_workflow_id: str) -> bool:
        """Submit a dispatcher where there is none that works; False where there is one, or nothing left to do."""
        store = _store(wms_workflow_id)
        if store is None or _is_over(store):
            return False
        slurm = Slurm()
        with _writing(store):
            if str(store.submit_path) in dispatchers(_queue(slurm, store)):
                return False
            store.write_environment()
            _patiently(lambda: _have_dispatcher(slurm, store, _queue(slurm, store)))
        return True

    @in_one_line
    def restart(self, wms_workflow_id: str) -> tuple[str | None, str | None, str]:
        """Do again what did not succeed, and the final job; jobs that still run, run on."""
        store = _store(wms_workflow_id)
        if store is None:
            return None, None, f"no workflow was submitted from {wms_workflow_id}"
        slurm = Slurm()
        folder = str(store.submit_path)
        if not _is_over(store) and folder in dispatchers(_queue(slurm, store)):
            return None, None, "the workflow still runs; cancel it first"
        with _writing(store):
            plan, facts = store.read()
            last = {n: job.element for n, job in enumerate(plan.jobs) if job.is_final and job.is_in_slurm}
            changed = plan.restart()
            if plan.is_over and facts.get("ended_at"):
                return None, None, "the workflow has succeeded already"
            store.forget_cancelling()
            store.write_environment()
            slurm.cancel_elements(element for n, element in last.items() if element and not plan.jobs[n].is_in_slurm)
            store.write(plan, changed, ended_at=None, submitting_at=time.time())
            _patiently(lambda: _have_dispatcher(slurm, store, _queue(slurm, store)))
        note(store.submit_path)
        return folder, facts["name"], ""

    @in_one_line
    def list_submitted_jobs(
        self,
        wms_id: str | None = None,
        user: str | None = None,
        require_bps: bool = True,
        pass_thru: str | None = None,
        is_global: bool = False,
    ) -> list[str]:
        """List the submit folders of the workflows that are not over, or the one that was named."""
        if wms_id is not None:
            store = _store(wms_id)
            return [] if store is None else [str(store.submit_path)]
        found = []
        for store in noted():
            with passing_over():
                facts = store.read_facts()
                if _is_live(facts) and _belongs_to(facts, user):
                    found.append(str(store.submit_path))
        return found

    @in_one_line
    def report(
        self,
        wms_workflow_id: str | None = None,
        user: str | None = None,
        hist: float = 0,
        pass_thru: str | None = None,
        is_global: bool = False,
        return_exit_codes: bool = False,
    ) -> tuple[list[WmsRunReport], str]:
        """Report on one workflow, or on all that are not over (and those submitted in the last ``hist`` days).

        Raises
        ------
        resources.errors.Retriable
            Slurm doesn't answer, and without it nothing is known for certain.
        """
        if wms_workflow_id is not None:
            store = _store(wms_workflow_id)
            if store is None:
                return [], f"no workflow was submitted from {wms_workflow_id}"
            return [report_of(_standing(store, _Queues()))], ""
        queues = _Queues()
        reports = []
        for store in noted():
            with passing_over():
                facts = store.read_facts()
                recent = time.time() - (facts.get("submitting_at") or 0.0) < (hist or 0) * 86400.0
                if (recent or _is_live(facts)) and _belongs_to(facts, user):
                    reports.append(report_of(_standing(store, queues)))
        return reports, ""

    @in_one_line
    def get_status(self, wms_workflow_id: str, hist: float = 1, is_global: bool = False) -> tuple[WmsStates, str]:
        """Tell a workflow's state."""
        store = _store(wms_workflow_id)
        if store is None:
            return WmsStates.UNKNOWN, f"no workflow was submitted from {wms_workflow_id}"
        seen = _standing(store, _Queues())
        return seen.state, held_message(seen) if seen.state is WmsStates.HELD else str(seen.facts.get("trouble", ""))

    @in_one_line
    def cancel(self, wms_id: str, pass_thru: str | None = None) -> tuple[bool, str]:
        """End a workflow and all of its jobs, whether its dispatcher lives or not."""
        store = _store(wms_id)
        if store is None:
            return False, f"no workflow was submitted from {wms_id}"
        if _is_over(store):
            return False, "the workflow is over"
        slurm = Slurm()
        try:
            store.ask_to_cancel()
            queue = _queue(slurm, store)
            # Its jobs end now, even if whoever conducts it takes a while to notice.
            _cancel_leftovers(slurm, queue, store)
            with store.locked(_LOCK_S) as mine:
                if mine and not _is_over(store):
                    Conductor(store, slurm).cancel()
            slurm.cancel([str(queued.job) for queued in waiting_dispatchers(queue, str(store.submit_path))])
        except OSError as error:
            return False, str(folder_fault(error, store.submit_path))
        except OperatorError as error:
            return False, str(error)
        return (True, "") if _is_over(store) else (False, "its jobs are cancelled, but its dispatcher hasn't said so")

    @in_one_line
    def job_ends(self, wms_workflow_id: str, quanta: Collection[uuid.UUID]) -> dict[uuid.UUID, JobEnd]:
        """Tell how the jobs ended that some quanta were in, as far as they did not succeed."""
        store = _store(wms_workflow_id)
        return {} if store is None else job_ends(store, quanta)

    @in_one_line
    def run_submission_checks(self) -> None:
        """Look whether Slurm takes jobs.

        Raises
        ------
        resources.errors.OperatorError
            It doesn't.
        """
        _patiently(Slurm().partitions)

    def ping(self, pass_thru: str | None = None) -> tuple[int, str]:
        """Ask whether Slurm answers."""
        try:
            partitions = Slurm().partitions()
        except OperatorError as error:
            return 1, str(error)
        return (0, "") if any(each.is_up for each in partitions.values()) else (1, "no partition of Slurm is up")


class _Queues:
    """Users' queues, each asked for once."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self._slurm = Slurm()

    def of(self, user: str) -> Queue:
        if user not in self._queues:
            self._queues[user] = self._slurm.queue(user)
        return self._queues[user]


def _standing(store: JobStore, queues: _Queues) -> Standing:
    plan, facts = store.read()
    if not facts.get("ended_at") and store.takes_no_more:
        # Whoever conducts it has nowhere to say so.
        facts["trouble"] = "its submit folder is full or read-only, and nothing goes on before that is mended"
    # What Slurm says can't change one that is over, or was never begun.
    queue = queues.of(facts["user"]) if _is_live(facts) else None
    seen = standing(store.submit_path, plan, facts, queue, is_cancelled=store.is_cancelled)
    if seen.state is not WmsStates.HELD:
        return seen
    return standing(store.submit_path, plan, facts, queue, marks=store.new_marks())


@contextmanager
def _writing(store: JobStore) -> Iterator[None]:
    """Be the only one who writes the record; a folder that can't be written to is said so.

    What is submitted runs as its submitter, and each user's dispatchers know his own jobs alone.
    """
    owner = store.read_facts()["user"]
    if owner != user_name():
        raise Rejected(
            f"the workflow is of {owner}, and this is {user_name()}", str(store.submit_path), "ask its owner"
        )
    try:
        with store.locked(_LOCK_S) as mine:
            if not mine:
                raise Retriable("somebody else does something with it", str(store.submit_path), "try again in a minute")
            yield
    except OSError as error:
        raise folder_fault(error, store.submit_path) from error


def _patiently[T](ask: Callable[[], T]) -> T:
    for left in range(_TRIES - 1, -1, -1):
        try:
            return ask()
        except Retriable:
            if not left:
                raise
            time.sleep(_BETWEEN_TRIES_S)
    raise AssertionError("unreachable")


def _queue(slurm: Slurm, store: JobStore) -> Queue:
    """Ask for the jobs of a workflow's owner."""
    return slurm.queue(store.read_facts()["user"])


def _licences(slurm: Slurm, store: JobStore, plan: Plan) -> list[str]:
    """Give the licences that there are, and say which of the plan's limits have none."""
    if not any(block.limits for block in plan.blocks):
        return []
    known = slurm.licences()
    for line in unknown_limits(plan.blocks, known):
        # As in HTCondor, a limit that a site hasn't set is none; BPS names one for each final job unasked.
        store.tell(line)
    return sorted(known)


def _submit(store: JobStore) -> None:
    """Submit a workflow: one try at it, which finds the dispatcher that one before it may have submitted unknown."""
    slurm = Slurm()
    queue = _queue(slurm, store)
    found = dispatchers(queue).get(str(store.submit_path))
    if found is not None:
        store.note(dispatcher_job=found.job)
        return
    plan, partitions = _take_back(slurm, store, queue), slurm.partitions()
    check_requests([*plan.blocks, read_request(store.read_facts()["dispatcher"])], partitions)
    most = [largest_memory(block, partitions) for block in plan.blocks]
    licences = _licences(slurm, store, plan)
    store.note(submitting_at=time.time(), node_memory_mb=most, licences=licences)
    store.write_environment()
    note(store.submit_path)
    conductor = Conductor(store, slurm)
    conductor.submissions.park(queue)
    _have_dispatcher(slurm, store, queue)
    conductor.release_ready()


@contextmanager
def _nothing_left_behind(store: JobStore) -> Iterator[None]:
    """Take back what was submitted of a workflow whose submission fails, unless its dispatcher is in."""
    try:
        yield
    except BaseException:
        # Where Slurm or the folder can't be had, a repetition does it, or ``bps cancel``.
        with contextlib.suppress(OperatorError, OSError):
            slurm = Slurm()
            queue = _queue(slurm, store)
            if str(store.submit_path) not in dispatchers(queue):
                _take_back(slurm, store, queue)
        raise


def _take_back(slurm: Slurm, store: JobStore, queue: Queue) -> Plan:
    """Cancel the arrays of a workflow that has no dispatcher yet, and record that there are none; give its plan."""
    _cancel_leftovers(slurm, queue, store)
    plan, facts = store.read()
    if facts.get("submitting_at"):
        parked = [position for position, job in enumerate(plan.jobs) if job.is_parked]
        store.write(plan, plan.unparked(parked), submitting_at=None)
    store.forget_environment()
    return plan


def _have_dispatcher(slurm: Slurm, store: JobStore, queue: Queue) -> None:
    """Have a dispatcher of a workflow wait in the queue: one that runs may be about to leave, and two do no harm."""
    waiting = waiting_dispatchers(queue, str(store.submit_path))
    able = [queued.job for queued in waiting if not queued.could_not_start]
    if not able:
        slurm.cancel([str(queued.job) for queued in waiting])
        options = dispatcher_options(store.submit_path, read_request(store.read_facts()["dispatcher"]))
        able = [slurm.submit(options, [str(dispatcher_script(store.submit_path))])]
    store.note(dispatcher_job=able[0])


def _cancel_leftovers(slurm: Slurm, queue: Queue, store: JobStore) -> None:
    """Cancel what the queue has of a folder, but not the dispatcher."""
    ours = [queued for queued in queue.of_folder(str(store.submit_path)) if queued.comment != COMMENT]
    slurm.cancel(sorted({str(queued.element.array) for queued in ours if not queued.is_over}))


def _store(wms_id: str) -> JobStore | None:
    folder: str | None = wms_id
    if wms_id.partition("_")[0].isdigit() and not Path(wms_id).exists():
        folder = Slurm().folder_of(wms_id)
    store = JobStore(Path(folder)) if folder else None
    return store if store is not None and store.exists else None


def _is_over(store: JobStore) -> bool:
    return bool(store.read_facts().get("ended_at"))


def _counts(store: JobStore) -> bool:
    """Whether a workflow's submission has succeeded, or been cancelled: there is nothing to submit."""
    facts = store.read_facts()
    return "dispatcher_job" in facts or bool(facts.get("ended_at"))


def _is_live(facts: Mapping[str, Any]) -> bool:
    """Whether Slurm may have something of a workflow: its submission was begun, not taken back, and it isn't over."""
    return bool(facts.get("submitting_at")) and not facts.get("ended_at")


def _belongs_to(facts: Mapping[str, Any], user: str | None) -> bool:
    return user is None or user in {facts["operator"], facts["user"]}
