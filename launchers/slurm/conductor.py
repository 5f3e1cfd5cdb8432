"""One workflow, made to go on: what its jobs left behind and what Slurm says become changes, and changes commands.

Everything is written down after it was done in Slurm, and everything that is done in Slurm can be found there again. So
a conductor may die at any moment.

Belongs here: `Conductor`. Doesn't: when to look (`launchers.slurm.dispatcher`), what may follow from what
(`launchers.slurm.plan`), or how jobs are handed to Slurm (`launchers.slurm.submissions`).
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from launchers.slurm.arrays import Part
from launchers.slurm.commands import Slurm
from launchers.slurm.ends import End, Ending, Mark, Usage, end_of
from launchers.slurm.jobs import Element, JobState
from launchers.slurm.queue import Queue, Queued
from launchers.slurm.record import Record
from launchers.slurm.store import JobStore
from launchers.slurm.submissions import Submissions
from resources.errors import OperatorError, Retriable

_MISSING_S = 10.0
"""A job that nobody knows of any more may still have to say so: its file comes over a network."""

_FORGETS_S = 30.0
"""How long after a release a controller that dies may forget it: it saves its state some seconds after each change.

Whoever holds a job just released has to do it again.
"""

_MOST_STARTS = 5
"""How often a job that its node could not start is let go again; after that it waits for a person."""

_NOT_STARTED = {
    90: "its script cannot be read on the node: is the submit folder on a file system that nodes share?",
    91: "its log cannot be written on the node: is the log folder full, or of another user?",
}


class Conductor:
    """Makes one workflow go on; its holder has the store's lock.

    Parameters
    ----------
    store
        Where its record is kept.
    slurm
        Where its jobs are.

    Attributes
    ----------
    plan
        Its jobs.
    submissions
        What hands them to Slurm.
    """

    def __init__(self, store: JobStore, slurm: Slurm | None = None) -> None:
        self._slurm = slurm or Slurm(store.read_environment())
        self._record = Record(store)
        self.plan = self._record.plan
        self.submissions = Submissions(self._record, self._slurm)
        self._marks: dict[Element, Mark] = {}
        self._missing_since: dict[int, float] = {}
        now = time.monotonic()
        pending = (self.plan.jobs[position].element for position in self.plan.in_state(JobState.PENDING))
        self._released_at = {element: now for element in pending if element is not None}
        self._stuck: dict[Element, str] = {}
        self._calm_until = 0.0
        self._record.write(self.plan.settle())

    @property
    def wants_queue(self) -> bool:
        """Whether something has happened that only Slurm can explain."""
        return bool(self._marks)

    @property
    def is_over(self) -> bool:
        """Whether the end has been written down."""
        return bool(self._record.facts.get("ended_at"))

    @property
    def poll_s(self) -> float:
        """Time between two questions to Slurm when nothing happens."""
        return float(self._record.facts["poll_s"])

    def release_ready(self) -> None:
        """Let the jobs that wait for nobody run, before the dispatcher does."""
        with contextlib.suppress(OperatorError):
            self._release()

    def look(self) -> None:
        """Take note of the jobs that have ended well, and of those that have to be asked for."""
        if self._record.store.has_new_marks():
            self._record.write(self._take_marks())

    def _take_marks(self) -> list[int]:
        changed: list[int] = []
        for element, mark in self._record.store.new_marks().items():
            position = self._record.positions.get(element)
            if position is not None and element in self.plan.jobs[position].silent:
                changed += self.plan.told(position, element, mark)
            if position is None or self.plan.jobs[position].element != element:
                continue
            changed += self._as_released(position)
            if not self.plan.jobs[position].state.is_with_slurm:
                continue
            if mark.exit_code == 0:
                changed += self.plan.ended(position, End(Ending.SUCCEEDED, 0, mark))
            else:
                self._marks[element] = mark
        return changed

    def reconcile(self, queue: Queue) -> None:
        """Take note of what Slurm says.

        Parameters
        ----------
        queue
            What it says.
        """
        ours = queue.of_folder(self._record.folder)
        changed = self.submissions.heard(queue)
        heard: dict[int, Queued | None] = {}
        for position, job in enumerate(self.plan.jobs):
            if job.element is not None and job.is_in_slurm and not job.state.is_over:
                queued = queue.elements.get(job.element)
                heard[position] = queued if queued and self.submissions.is_of(position, queued) else None
        if any(queued is None or queued.is_over for queued in heard.values()):
            # What they left behind says more than Slurm; a folder's time comes late over a network.
            changed += self._take_marks()
        missing = []
        for position, queued in heard.items():
            if self.plan.jobs[position].state.is_over:
                continue
            if queued is None:
                missing.append(position)
                continue
            self._missing_since.pop(position, None)
            changed += self._heard(position, queued)
        changed += self._explain(missing)
        self._record.write(changed)
        self._cancel_stragglers(ours)

    def act(self) -> None:
        """Let Slurm do what can be done now; where it doesn't, say so and try again after a while."""
        if self.is_over or time.monotonic() < self._calm_until:
            return
        try:
            if self._record.store.is_cancelled:
                self.cancel()
                return
            self._release()
            self.submissions.offer()
            self._record.say(self.submissions.trouble)
            if self.plan.is_over:
                self._finish()
        except OperatorError as error:
            self._record.say(str(error))
            self._calm_until = time.monotonic() + self.poll_s

    def cancel(self) -> None:
        """Give up the workflow, in Slurm first; what has ended, has ended."""
        self.look()
        alive = [job for job in self.plan.jobs if job.is_in_slurm]
        self._slurm.cancel([str(array) for array in sorted({job.element.array for job in alive if job.element})])
        self._record.write(self.plan.cancel())
        self._finish()

    def _heard(self, position: int, queued: Queued) -> list[int]:
        job = self.plan.jobs[position]
        alive = queued.alive
        if job.is_parked:
            gone = queued.is_over and queued.state.startswith("CANCELLED")
            return self.plan.taken_away(position) if gone else []
        if alive is not None:
            if why := self._why_stuck(queued):
                self._stuck[queued.element] = why
                return []
            if alive is JobState.PENDING:
                self._marks.pop(queued.element, None)  # of a life before this one
            return self.plan.seen(position, alive)
        if not queued.is_over:
            return []
        end = end_of(queued.state, queued.status, self._marks.pop(queued.element, None))
        if end is None:
            return []
        changed = self._end(position, end)
        # What was killed could not say where it was.
        return changed if end.mark is not None else changed + self.plan.used(position, Usage(node=queued.node))

    def _why_stuck(self, queued: Queued) -> str:
        """Say why Slurm holds a job that should be let go again."""
        released_at = self._released_at.get(queued.element)
        if released_at is not None and queued.is_parked:
            return "Slurm had forgotten that these may run"
        if released_at is not None and time.monotonic() - released_at >= _FORGETS_S:
            del self._released_at[queued.element]
        if queued.could_not_start and queued.restarts <= _MOST_STARTS:
            return "Slurm's node could not start these"
        return ""

    def _explain(self, missing: Sequence[int]) -> list[int]:
        """Find out about jobs that the queue has forgotten."""
        for position in [position for position in self._missing_since if position not in set(missing)]:
            del self._missing_since[position]
        if not missing:
            return []
        now = time.time()
        elements = {position: element for position in missing if (element := self.plan.jobs[position].element)}
        try:
            accounts = self._slurm.accounts(_names(elements.values()))
        except Retriable:
            return []
        changed: list[int] = []
        for position, element in elements.items():
            since = self._missing_since.setdefault(position, now)
            known = accounts.get(element)
            mark = self._marks.get(element)
            end = end_of(known.state, known.status, mark) if known else None
            changed += self._as_released(position) if end and end.ending is not Ending.CANCELLED else []
            if self.plan.jobs[position].is_parked:
                if end and end.ending is Ending.CANCELLED:
                    changed += self.plan.taken_away(position)
                elif now - since >= _MISSING_S:
                    changed += self._record.unpark([position])
                continue
            if end is None and now - since >= _MISSING_S:
                # Accounting may hold a job for running for ever whose controller has lost it.
                end = end_of(None, 0, mark)
            if end is not None:
                self._marks.pop(element, None)
                self._missing_since.pop(position, None)
                changed += self._end(position, end)
        return changed

    def _as_released(self, position: int) -> list[int]:
        """Note of a job that has run that it was released, where who released it died before he could write so."""
        job = self.plan.jobs[position]
        return self.plan.released([position]) if job.is_parked and job.state is JobState.READY else []

    def _end(self, position: int, end: End) -> list[int]:
        job = self.plan.jobs[position]
        was_aborted = self.plan.is_aborted
        changed = self.plan.ended(position, end)
        after = self.plan.jobs[position]
        if end.ending is not Ending.SUCCEEDED:
            if not end.ending.is_the_jobs_own:
                self._record.store.tell(
                    f"Slurm: this attempt is {end.ending.value}", self._record.store.log(job, job.attempt)
                )
            why = _NOT_STARTED.get(end.exit_code, f"exit code {end.exit_code}")
            line = f"{job.name}: attempt {job.attempt} {end.ending.value} ({why})"
            if after.state is JobState.READY:
                memory = self.plan.memory_of(position)
                line += f"; tried again{f' with {memory} MB' if end.ending is Ending.OUT_OF_MEMORY else ''}"
            elif self.plan.is_aborted and not was_aborted:
                line += "; it aborts the workflow, of which the final job alone is still to come"
            self._record.store.tell(line)
        return changed

    def _release(self) -> None:
        if self._stuck:
            self._slurm.release(self._stuck)
            for why in dict.fromkeys(self._stuck.values()):
                names = sorted(str(element) for element, reason in self._stuck.items() if reason == why)
                self._record.store.tell(f"{why}, so they are let go again: {', '.join(names)}")
            self._released_at |= dict.fromkeys(self._stuck, time.monotonic())
            self._stuck = {}
        parked = [n for n in self.plan.in_state(JobState.READY) if self.plan.jobs[n].is_parked]
        if parked:
            elements = [element for n in parked if (element := self.plan.jobs[n].element)]
            self._slurm.release(elements, self._whole_arrays(elements))
            self._released_at |= dict.fromkeys(elements, time.monotonic())
            self._record.write(self.plan.released(parked))

    def _whole_arrays(self, elements: Iterable[Element]) -> list[int]:
        """Give the arrays of which nothing is held but these elements: neither parked, nor by a person."""
        held = (job for job in self.plan.jobs if job.is_parked or job.state is JobState.HELD)
        count = Counter(job.element.array for job in held if job.element)
        return [array for array, some in Counter(each.array for each in elements).items() if some == count[array]]

    def _cancel_stragglers(self, ours: Sequence[Queued]) -> None:
        """Cancel what nobody waits for any more: parked descendants of what failed, all but the end of what aborted."""
        unwanted = []
        for queued in ours:
            position = self._record.positions.get(queued.element)
            if position is None or Part.parse(queued.comment) is None or queued.is_over:
                continue
            job = self.plan.jobs[position]
            # One that runs and is over is about to end; one that waits and is over was put back by Slurm.
            is_waiting = queued.alive in {JobState.PENDING, JobState.HELD}
            is_given_up = self.plan.is_aborted and not job.is_final and queued.alive is not None
            if job.element != queued.element or is_given_up or (job.state.is_over and is_waiting):
                unwanted.append(queued.element)
        try:
            self._slurm.cancel_elements(unwanted)
        except OperatorError as error:
            self._record.say(str(error))

    def _finish(self) -> None:
        """Write down that the workflow is over, with what accounting knows of jobs that could say nothing."""
        self._slurm.cancel_elements(job.element for job in self.plan.jobs if job.element and job.is_parked)
        unknown = {element: position for position, job in enumerate(self.plan.jobs) for element in job.vague}
        try:
            accounts = self._slurm.accounts(_names(unknown))
        except OperatorError:
            accounts = {}
        changed: list[int] = []
        for element, account in accounts.items():
            if element in unknown:
                changed += self.plan.accounted(unknown[element], element, account.usage)
        self._record.write(changed)
        self._record.note(ended_at=time.time(), trouble="")
        self._record.store.forget_environment()


def _names(elements: Iterable[Element]) -> list[str]:
    """Name elements for accounting: one by one, or by whole arrays where they are many."""
    listed = sorted(map(str, elements))
    return listed if len(listed) <= 1000 else sorted({name.partition("_")[0] for name in listed})
