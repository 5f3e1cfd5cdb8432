"""The line to Kafka that a drain reads through, kept for the next one: a consumer that fetches ahead meanwhile.

Making it costs several times what most drains do, so it is made anew only where it may have aged: its address or its
certificates' files have changed, or something went wrong.

Belongs here: the clients, and what the consumer will give next. Doesn't: what there is to read (`arrivals.positions`),
or reading it (`arrivals.drain`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Self

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from resources.errors import OperatorError
from resources.kafka import LastError, bootstrap_address, make_admin, make_consumer
from resources.refusals import explain, most_telling
from resources.site import KafkaSettings

COMMIT_PAUSE_S = 300.0
"""So long no offsets of the group are written after it couldn't be done."""

_EVENTS = 100
_START_TIMEOUT_S = 10.0
_POLL_S = 0.01
_STARTING = frozenset({KafkaError._STATE, KafkaError._PREV_IN_PROGRESS})
"""What librdkafka says of a partition that it begins to read, or stops reading to begin anew elsewhere."""

Place = tuple[str, int]
"""Topic and number of a partition, as Kafka's messages name it."""


class Connection:
    """A consumer and an administrator of one cluster.

    Parameters
    ----------
    kafka
        The cluster.
    group
        Consumer group that offsets are committed to, for displays of lag.

    Raises
    ------
    resources.errors.SiteFault
        The profile's address, group or TLS files are wrong.
    """

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._made_of = _ingredients(kafka)
        self._address = bootstrap_address(kafka)
        self._errors = LastError()
        self._next: dict[Place, int] = {}
        self._group_refused: KafkaError | None = None
        self._uncommitted = ""
        self._commits_again_at = 0.0
        self.consumer = make_consumer(kafka, group, self._errors)
        try:
            self.admin = make_admin(kafka, self._errors)
        except BaseException:
            self.consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of Kafka."""
        self.consumer.close()

    def is_as_made(self, kafka: KafkaSettings) -> bool:
        """Whether one that is made now would be no different: same address, same certificates."""
        return self._made_of == _ingredients(kafka)

    def read_from(self, positions: Mapping[Place, int], leader_epochs: Mapping[Place, int]) -> bool:
        """Have the consumer give these partitions from these offsets on.

        Parameters
        ----------
        positions
            The next offset of each partition.
        leader_epochs
            The epoch of the message before it, where that is known: then Kafka refuses to go on after another one.

        Returns
        -------
        anew
            Whether it had to be told; else it goes on where it is, with what it has fetched already.
        """
        if self._next == positions:
            return False
        self.consumer.assign([TopicPartition(*place, offset) for place, offset in positions.items()])
        for place, epoch in leader_epochs.items():
            self._seek(TopicPartition(*place, positions[place], leader_epoch=epoch))
        self._next = dict(positions)
        return True

    def _seek(self, position: TopicPartition) -> None:
        """Have Kafka asked for the epoch, which it isn't at an assignment if librdkafka knows the partition already."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return self.consumer.seek(position)
            except KafkaException as error:
                if error.args[0].code() not in _STARTING or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)

    def reached(self, positions: Mapping[Place, int]) -> None:
        """Take note of how far the consumer has been read."""
        self._next = dict(positions)

    def bear(self, error: KafkaError) -> None:
        """Take note of a trouble of the consumer itself, and go on if it keeps us from nothing but writing offsets.

        Raises
        ------
        confluent_kafka.KafkaException
            It is another one.
        """
        if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise KafkaException(error)
        self._group_refused = error

    def commit(self, offsets: Sequence[TopicPartition]) -> str:
        """Write the group's offsets; returns why that can't be done, or nothing.

        Only displays need them, and a group that can't be had takes seconds: it isn't asked for again for a while.
        """
        if time.monotonic() >= self._commits_again_at:
            self._uncommitted = self._try_to_commit(offsets)
            if self._uncommitted:
                self._commits_again_at = time.monotonic() + COMMIT_PAUSE_S
        return self._uncommitted

    def _try_to_commit(self, offsets: Sequence[TopicPartition]) -> str:
        trouble, self._group_refused = self._group_refused, None
        if trouble is None:
            try:
                self.consumer.commit(offsets=list(offsets), asynchronous=False)
            except KafkaException as error:
                met = (message.error() for message in self.consumer.consume(_EVENTS, timeout=0))
                trouble = reduce(most_telling, filter(None, met), error.args[0])
                self._next = {}  # it may have taken messages that nobody has seen
        return "" if trouble is None else str(explain(trouble, self._address, self._errors.tls))

    def is_well(self) -> None:
        """Take note that Kafka answers: what went wrong before explains nothing that goes wrong from now on."""
        self._errors.forget()

    def explain(self, error: KafkaException) -> OperatorError:
        """An error as an operator should read it; the consumer is no use afterwards."""
        return self._errors.explain(error, self._address)


def _ingredients(kafka: KafkaSettings) -> tuple[object, ...]:
    files = [] if kafka.tls is None else [kafka.tls.ca, kafka.tls.certificate, kafka.tls.key]
    times = [file.stat().st_mtime_ns if file.exists() else None for file in files]
    return (bootstrap_address(kafka), *times)
