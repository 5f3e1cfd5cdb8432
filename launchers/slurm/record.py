"""One workflow as it stands: its plan, what is known of it, and which element of Slurm's arrays each job is.

Belongs here: `Record`, which writes every change down as it is made. Doesn't: which changes there are
(`launchers.slurm.conductor`, `launchers.slurm.submissions`), or how they are kept (`launchers.slurm.store`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launchers.slurm.jobs import Element
from launchers.slurm.store import JobStore


class Record:
    """What is written down of one workflow; its holder has the store's lock.

    Parameters
    ----------
    store
        Where.

    Attributes
    ----------
    plan
        Its jobs.
    facts
        What else is known of it.
    positions
        The job of each element that was ever submitted.
    """

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.plan, self.facts = store.read()
        self.positions = {job.element: n for n, job in enumerate(self.plan.jobs) if job.element is not None}
        self._trouble = str(self.facts.get("trouble", ""))

    @property
    def folder(self) -> str:
        """The submit folder, as Slurm's jobs have it."""
        return str(self.store.submit_path)

    def place(self, elements: Mapping[int, Element], *, parked: bool) -> list[int]:
        """Take note of which elements jobs are, by the jobs' positions; gives what has to be written."""
        self.positions |= {element: position for position, element in elements.items()}
        return self.plan.placed(elements, parked=parked)

    def unpark(self, positions: Sequence[int]) -> list[int]:
        """Take note that parked jobs are no longer in Slurm; gives what has to be written."""
        for position in positions:
            if (element := self.plan.jobs[position].element) and self.positions.get(element) == position:
                del self.positions[element]
        return self.plan.unparked(positions)

    def write(self, positions: Sequence[int]) -> None:
        """Write down jobs as they are now."""
        self.store.write(self.plan, positions)

    def note(self, **facts: Any) -> None:
        """Write down something about the whole workflow."""
        self.facts |= facts
        self.store.note(**facts)

    def say(self, trouble: str) -> None:
        """Tell of what keeps the workflow from going on, once; or that it goes on, where nothing is said."""
        if trouble != self._trouble:
            self._trouble = trouble
            self.note(trouble=trouble)
            self.store.tell(trouble or "all is well again")
