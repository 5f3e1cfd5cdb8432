"""A soak's messages, one at a time: a million of them at once would be two gigabytes.

Belongs here: from a number of the population's order to the bytes that Kafka carries, and to its partition. Doesn't:
writing to Kafka (`benchmarks.soak.publisher`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.soak.broken import WAYS, Draft, in_legacy_form, message_of
from benchmarks.soak.files import SoakFiles
from simulator.messages import TRANSFER_DONE, Announcement, FileKind

LEGACY_ONE_IN = 50
"""One product in so many is announced in the form of old messages, which is as good as any other."""

_EVENT = "transfer-failed"


class Messages:
    """The messages of a soak, in the order in which they are published.

    Parameters
    ----------
    files
        What they are about; it is written.
    announcement
        Prefixes and RSEs.
    partitions
        Of the topic, over which they are spread at random.
    """

    def __init__(self, files: SoakFiles, announcement: Announcement, partitions: int) -> None:
        self.files = files
        self.population = files.population
        self._announcement = announcement
        rng = np.random.default_rng([self.population.seed, 4])
        self.partition_of: Sequence[int] = rng.integers(partitions, size=len(self.population.order)).tolist()

    def __len__(self) -> int:
        return len(self.population.order)

    def value(self, position: int) -> bytes:
        """The message at a position of the order; making a broken one puts its file in place."""
        number = int(self.population.order[position])
        slot = self.population.slot(number)
        if slot.way is not None:
            draft = Draft(self.files, self._announcement, slot.exposure, slot.role)
            return WAYS[slot.way].make(draft)
        file = self.files.file(slot.exposure, slot.role)
        value = message_of(file, self._announcement)
        if slot.is_event:
            return value.replace(TRANSFER_DONE.encode(), _EVENT.encode(), 1)
        if file.kind is FileKind.PRODUCT and number % LEGACY_ONE_IN == 0:
            return in_legacy_form(value)
        return value

    def by_partition(self) -> dict[int, list[int]]:
        """Positions in the order, by partition and there by offset, which counts from 0 in a topic of its own."""
        found: dict[int, list[int]] = {}
        for position, partition in enumerate(self.partition_of):
            found.setdefault(partition, []).append(position)
        return found
