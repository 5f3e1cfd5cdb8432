"""A Slurm of a few dictionaries, which can be made to forget, to refuse and to be silent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from launchers.slurm.jobs import Element, JobState
from launchers.slurm.queue import Accounted, Partition, Queue, Queued


class FakeSlurm:
    """As much of `launchers.slurm.commands.Slurm` as one workflow needs.

    Parameters
    ----------
    folder
        Where everything is submitted from.
    """

    array_size = 1000
    job_limit = 100_000

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.elements: dict[Element, Queued] = {}
        self.accounted: dict[Element, Accounted] = {}
        self.submissions: list[list[str]] = []
        self.trouble: Exception | None = None

    def submit(self, options: Sequence[str], script: Sequence[str]) -> int:
        if self.trouble:
            raise self.trouble
        self.submissions.append(list(options))
        values = dict(option.lstrip("-").partition("=")[::2] for option in options)
        array = 10 * len(self.submissions)
        named = {"comment": values["comment"], "name": values["job-name"], "folder": values["chdir"]}
        if "array" not in values:
            self.put(Element(array, 0), "PENDING", **named)
            return array
        for span in values["array"].split(","):
            first, _, last = span.partition("-")
            for task in range(int(first), int(last or first) + 1):
                reason = "JobHeldUser" if "--hold" in options else "Resources"
                element = Element(array, task)
                self.put(element, "PENDING", reason=reason, **named)
        return array

    def put(self, element: Element, state: str, **values) -> None:
        known = self.elements.get(element)
        comment = values.pop("comment", known.comment if known else "")
        name = values.pop("name", known.name if known else "w")
        folder = values.pop("folder", known.folder if known else self.folder)
        self.elements[element] = Queued(
            element.array, element, state, comment=comment, folder=folder, name=name, **values
        )

    def queue(self, user: str = "") -> Queue:
        return Queue(dict(self.elements))

    def release(self, elements: Iterable[Element], whole: Iterable[int] = ()) -> None:
        held = [element for element, queued in self.elements.items() if queued.alive is JobState.HELD]
        for element in {*elements, *(element for element in held if element.array in whole)}:
            self.put(element, "PENDING", reason="Resources")

    def cancel(self, names: Sequence[str]) -> None:
        for element, queued in list(self.elements.items()):
            if str(element.array) in names and not queued.is_over:
                self.put(element, "CANCELLED by 0")

    def cancel_elements(self, elements: Iterable[Element]) -> None:
        for element in elements:
            self.put(element, "CANCELLED by 0")

    def accounts(self, names: Iterable[str]) -> Mapping[Element, Accounted]:
        return self.accounted

    def partitions(self) -> Mapping[str, Partition]:
        return {"main": Partition("main", 4000, 4, is_default=True)}
