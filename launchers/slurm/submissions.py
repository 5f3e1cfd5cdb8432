"""A workflow's jobs, handed to Slurm: as few arrays as can be, each of which says what it is for.

An array carries in its comment the block, the part of it and the attempt that it is for. So whoever goes on with a
workflow finds what was submitted by one who died before he could write so.

Belongs here: `Submissions`. Doesn't: how arrays are cut and named (`launchers.slurm.arrays`), when a job that Slurm
refuses is offered again (`launchers.slurm.refusals`), or what becomes of jobs that Slurm has
(`launchers.slurm.conductor`).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from launchers.slurm.arrays import Part, array_options, part_of
from launchers.slurm.commands import Slurm
from launchers.slurm.jobs import Element, JobState
from launchers.slurm.queue import Queue, Queued
from launchers.slurm.record import Record
from launchers.slurm.refusals import Refusals, is_full
from resources.errors import Rejected, Retriable


class Submissions:
    """Hands one workflow's jobs to Slurm.

    Parameters
    ----------
    record
        The workflow.
    slurm
        Where its jobs go.
    """

    def __init__(self, record: Record, slurm: Slurm) -> None:
        self._record = record
        self._plan = record.plan
        self._slurm = slurm
        self._refusals = Refusals(float(record.facts["poll_s"]))
        self._is_unsure = True
        self._in_queue = 0
        self._most_at_once = sys.maxsize
        self._others_go_on = False

    @property
    def trouble(self) -> str:
        """What Slurm said of jobs that it doesn't take."""
        return self._refusals.trouble

    def park(self, queue: Queue) -> None:
        """Submit the workflow's arrays, all held; those that Slurm has no room for are submitted later.

        Parameters
        ----------
        queue
            As it is now, without the dispatcher, which needs room as well.
        """
        room = self._room(len(queue.elements) + 1)
        try:
            for part, positions in self._parts(range(len(self._plan.jobs))).items():
                if len(positions) <= room:
                    room -= len(positions)
                    for memory, members in self._by_memory(positions).items():
                        self._submit(part, memory, members, parked=True)
        except Rejected as error:
            if not is_full(error):
                raise
            # Nothing that comes after it either: what waits for it would keep its room.
            self._make_room()

    def heard(self, queue: Queue) -> list[int]:
        """Take note of how full Slurm is, and of what was submitted without being written down.

        Parameters
        ----------
        queue
            What Slurm says.

        Returns
        -------
        changed
            Jobs that have to be written down.
        """
        self._in_queue = len(queue.elements)
        self._others_go_on = any(
            Part.parse(queued.comment) and queued.alive in {JobState.PENDING, JobState.RUNNING}
            for queued in queue.elements.values()
        )
        changed = self._adopt(queue.of_folder(self._record.folder)) if self._is_unsure else []
        self._is_unsure = False
        return changed

    def is_of(self, position: int, queued: Queued) -> bool:
        """Whether a job in the queue is ours: a controller that dies in a bad moment gives numbers out twice."""
        job = self._plan.jobs[position]
        found = Part.parse(queued.comment), queued.element.task
        return queued.folder == self._record.folder and found == part_of(job, self._array_size, job.attempt)

    def offer(self) -> None:
        """Hand over the jobs that may run and aren't there yet, as far as there is room.

        Raises
        ------
        resources.errors.Retriable
            Slurm didn't answer; the next queue tells whether it has heard.
        """
        ready = [n for n in self._plan.in_state(JobState.READY) if self._plan.jobs[n].element is None]
        if not ready or self._is_unsure:
            # Before Slurm was asked, it isn't known whether that has been done already.
            return
        offered = [position for position in ready if self._refusals.may_offer(position)]
        room = min(self._room(self._in_queue), self._most_at_once)
        for part, positions in self._parts(offered[:room]).items():
            for memory, members in self._by_memory(positions).items():
                try:
                    self._submit(part, memory, members, parked=False)
                except Rejected as error:
                    if is_full(error):
                        # There may be room for fewer, and there is none for others.
                        self._most_at_once = max(1, len(members) // 2)
                        left = [n for n in offered if self._plan.jobs[n].state is JobState.READY]
                        self._refuse(left, error, others_go_on=self._others_go_on or len(members) > 1)
                        return
                    self._refuse(members, error, others_go_on=self._others_go_on)
                except Retriable:
                    self._is_unsure = True  # it may have been heard all the same
                    raise
                else:
                    self._refusals.forget(members)
                    self._in_queue += len(members)
                    self._most_at_once *= 2

    def _make_room(self) -> None:
        """Take the last parked job back."""
        parked = {job.element: n for n, job in enumerate(self._plan.jobs) if job.element and job.is_parked}
        if parked:
            last = max(parked, key=lambda element: (element.array, element.task))
            self._slurm.cancel_elements([last])
            self._record.write(self._record.unpark([parked[last]]))

    def _refuse(self, positions: Iterable[int], error: Rejected, *, others_go_on: bool) -> None:
        """Take note that Slurm refuses jobs, and let those fail that it has refused too often."""
        changed: list[int] = []
        for position in self._refusals.note(positions, str(error), others_go_on=others_go_on):
            job = self._plan.jobs[position]
            self._record.store.tell(str(error), self._record.store.log(job, job.attempt))
            self._record.store.tell(f"{job.name}: attempt {job.attempt + 1} given up: {error}")
            changed += self._plan.refused(position)
        self._record.write(changed)

    def _parts(self, positions: Iterable[int]) -> Mapping[Part, list[int]]:
        """Sort jobs into the arrays that they are submitted in next."""
        parts: defaultdict[Part, list[int]] = defaultdict(list)
        for position in positions:
            job = self._plan.jobs[position]
            if job.has_command and job.element is None:
                part, _ = part_of(job, self._array_size, job.attempt + 1)
                parts[part].append(position)
        return parts

    @property
    def _array_size(self) -> int:
        if "array_size" not in self._record.facts:
            # Parts must stay what they are, whatever becomes of Slurm's configuration.
            self._record.note(array_size=self._slurm.array_size)
        return int(self._record.facts["array_size"])

    def _room(self, in_queue: int) -> int:
        most = self._record.facts["most_jobs"] or int(0.9 * self._slurm.job_limit)
        return max(0, int(most) - in_queue)

    def _by_memory(self, positions: Sequence[int]) -> Mapping[int, list[int]]:
        by_memory: defaultdict[int, list[int]] = defaultdict(list)
        for position in positions:
            by_memory[self._plan.memory_of(position)].append(position)
        return by_memory

    def _submit(self, part: Part, memory: int, positions: Sequence[int], *, parked: bool) -> None:
        """Submit jobs of a part that ask for the same memory, as one array."""
        request = self._plan.blocks[part.block]
        calm = max(block.urgency for block in self._plan.blocks)
        tasks = {position: part_of(self._plan.jobs[position], self._array_size, 0)[1] for position in positions}
        options = [
            f"--job-name={self._record.facts['name']}.{request.label}",
            f"--chdir={self._record.folder}",
            *array_options(request, part, tasks.values(), memory, calm=calm),
            *(["--hold"] if parked else []),
        ]
        offset = part.number * self._array_size
        element = str(self._record.store.element_script)
        script = [element, self._record.folder, str(part.block), str(offset), str(part.attempt)]
        array = self._slurm.submit(options, script)
        elements = {position: Element(array, task) for position, task in tasks.items()}
        self._record.write(self._record.place(elements, parked=parked))

    def _adopt(self, ours: Sequence[Queued]) -> list[int]:
        """Find what was submitted by somebody who died before he could write so."""
        # What was cancelled may be what a submission has taken back.
        kept = [queued for queued in ours if not queued.state.startswith("CANCELLED")]
        known = {(Part.parse(queued.comment), queued.element.task): queued for queued in kept}
        changed: list[int] = []
        for position, job in enumerate(self._plan.jobs):
            if job.element is not None or job.state.is_over or not job.has_command:
                continue
            queued = known.get(part_of(job, self._array_size, job.attempt + 1))
            if queued is None:
                continue
            is_parked = queued.alive is JobState.HELD
            if is_parked or job.state is JobState.READY:
                changed += self._record.place({position: queued.element}, parked=is_parked)
        return changed
