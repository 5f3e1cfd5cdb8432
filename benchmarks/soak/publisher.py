"""Writing a soak's messages to Kafka, each once and in its partition, through whatever happens to the broker.

Belongs here: the producer, and watching that every message comes to lie where the oracle will look for it. Doesn't:
what messages say (`benchmarks.soak.messages`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from benchmarks.soak.messages import Messages
from benchmarks.soak.victims import Stuck

_PATIENCE_S = 1800.0
_MESSAGE_BYTES = 12 * 2**20
_POLL_S = 0.05


class Publisher:
    """Publishes messages portion by portion.

    Parameters
    ----------
    client
        librdkafka's settings of a client that may write.
    topic
        Where to; it is empty.
    messages
        All of them.
    patience_s
        How long the broker may take to confirm any of them.
    """

    def __init__(
        self, client: Mapping[str, str | int], topic: str, messages: Messages, patience_s: float = _PATIENCE_S
    ) -> None:
        self._client = client
        self._topic = topic
        self._messages = messages
        self._patience_s = patience_s
        self._refusal = ""
        self._producer = Producer(
            {
                **client,
                "enable.idempotence": True,
                "message.max.bytes": _MESSAGE_BYTES,
                "message.timeout.ms": int(1000 * patience_s),
                "compression.type": "lz4",
                "linger.ms": 20,
                "reconnect.backoff.max.ms": 1_000,
            }
        )
        self._next_offsets = Counter[int]()
        self.produced = 0
        self.confirmed = 0
        self._misplaced = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def placed(self) -> int:
        """How many messages the broker has confirmed at the offset where the oracle will look for them."""
        return self.confirmed - self._misplaced

    def publish(self, count: int, strike_after: int, struck: threading.Event) -> None:
        """Write the next messages; returns when the broker has all of them.

        Parameters
        ----------
        count
            How many.
        strike_after
            So many of them are confirmed when ``struck`` is set; the others follow without a pause.
        struck
            Told that the moment has come.

        Raises
        ------
        benchmarks.soak.victims.Stuck
            The broker refused a message, or didn't confirm all within all patience.
        """
        begun = self.produced
        try:
            for position in range(begun, min(begun + count, len(self._messages))):
                self._produce(position)
                if self.produced - begun == strike_after:
                    self._wait_until_confirmed()
                    struck.set()
        finally:
            struck.set()
        self._wait_until_confirmed()

    def lies_there(self, partitions: int) -> int:
        """How many messages the topic holds, by Kafka's own account."""
        admin = AdminClient(dict(self._client))
        asked = {TopicPartition(self._topic, number): OffsetSpec.latest() for number in range(partitions)}
        return sum(found.result().offset for found in admin.list_offsets(asked).values())

    def _produce(self, position: int) -> None:
        partition = self._messages.partition_of[position]
        expected = self._next_offsets[partition]
        self._next_offsets[partition] += 1
        value = self._messages.value(position)
        self.produced += 1
        while True:
            try:
                self._producer.produce(
                    self._topic, value=value, partition=partition, on_delivery=self._confirm(expected)
                )
            except BufferError:
                self._producer.poll(_POLL_S)
            else:
                self._producer.poll(0)
                return

    def _confirm(self, expected: int) -> Callable[[KafkaError | None, Message], None]:
        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._refusal = error.str()
                return
            self.confirmed += 1
            self._misplaced += message.offset() != expected

        return on_delivery

    def _wait_until_confirmed(self) -> None:
        deadline = time.monotonic() + self._patience_s
        while self.confirmed < self.produced:
            if self._refusal or time.monotonic() > deadline:
                why = self._refusal or f"not within {self._patience_s:g} s"
                raise Stuck(f"the broker has confirmed {self.confirmed:,} of {self.produced:,} messages: {why}")
            self._producer.poll(_POLL_S)
