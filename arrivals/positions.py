"""Where to read on in each partition: the ledger's offsets against what Kafka has, and what doesn't fit between them.

Belongs here: finding topics and the ends of their partitions, noticing what expired or was made anew. Doesn't: reading
messages (`arrivals.drain`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, OffsetSpec

from arrivals.records import Partition

_LEADERLESS = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
_LOOK_AGAIN_S = 0.2


@dataclass(slots=True)
class Span:
    """What there is to read of one partition.

    Parameters
    ----------
    partition
        Which.
    position, end
        The next offset to read, and the one where it ended when it was looked at.
    done
        Whether all up to there has been read.
    """

    partition: Partition
    position: int
    end: int
    done: bool = False

    @property
    def lag(self) -> int:
        """How many messages are left."""
        return max(self.end - self.position, 0)


@dataclass(frozen=True, slots=True)
class Start:
    """Where one partition is read from.

    Parameters
    ----------
    partition
        Which, with the incarnation that its messages belong to.
    offset
        The first to read.
    expired
        How many messages are gone unread.
    notice
        What an operator should know of it, or nothing.
    """

    partition: Partition
    offset: int
    expired: int = 0
    notice: str = ""


def start_of(partition: Partition, known: tuple[Partition, int] | None, low: int, high: int) -> Start:
    """Decide where to read a partition from.

    What doesn't go on where it was left is another log under the same name: it is read from its beginning, as a new
    incarnation, so that its messages are nobody else's. Should some of them have been read before, the ingest tells by
    their DIDs; none is lost.

    Parameters
    ----------
    partition
        As Kafka shows it, with the topic's id if it tells one.
    known
        The partition as the ledger has it, and the next offset to read; none if it was never read.
    low, high
        The first offset in Kafka, and the one after the last.
    """
    if known is None:
        return Start(partition, low)
    before, offset = known
    name = f"{partition.topic}[{partition.number}]"
    continued = replace(partition, incarnation=before.incarnation, topic_id=partition.topic_id or before.topic_id)
    anew = replace(continued, incarnation=before.incarnation + 1)
    if partition.topic_id and before.topic_id and partition.topic_id != before.topic_id:
        return Start(
            anew, low, notice=f"{name}: the topic was made anew under the same name; it is read from its start"
        )
    if offset > high:
        notice = (
            f"{name}: ends at {high:,}, but was read up to {offset:,}: Kafka has lost messages that are in the ledger; "
            "it is read from its start, and what comes again is recognised"
        )
        return Start(anew, low, notice=notice)
    if offset < low:
        notice = f"{name}: Kafka deleted {low - offset:,} messages before they were read; have them announced again"
        return Start(continued, low, low - offset, notice)
    return Start(continued, offset)


def topics_of(metadata: ClusterMetadata, wanted: re.Pattern[str]) -> list[str]:
    """The topics that are wanted, in order."""
    return sorted(name for name in metadata.topics if wanted.search(name))


def topic_ids(
    admin: AdminClient, metadata: ClusterMetadata, topics: Iterable[str], timeout_s: float
) -> Mapping[str, str]:
    """Kafka's own ids of topics, by which one that was made anew is told from its predecessor.

    Empty where no broker says that it answers such questions, as in the embedded Kafka.

    Raises
    ------
    confluent_kafka.KafkaException
        The question was refused or not answered; nothing is known then, and nothing should be assumed.
    """
    names = list(topics)
    if not names or metadata.controller_id not in metadata.brokers:
        return {}
    answers = admin.describe_topics(TopicCollection(names), request_timeout=timeout_s)
    return {name: str(answer.result().topic_id) for name, answer in answers.items()}


def ends_of(
    admin: AdminClient, partitions: Iterable[TopicPartition], timeout_s: float
) -> Mapping[tuple[str, int], tuple[int, int]]:
    """The first offset, and the one after the last, of each partition, by topic and number: two requests a broker.

    A partition whose leader is just being chosen, as after its topic was made, is asked about again.

    Raises
    ------
    confluent_kafka.KafkaException
        The question was refused or not answered.
    """
    found: dict[tuple[str, int], tuple[int, int]] = {}
    left = list(partitions)
    deadline = time.monotonic() + timeout_s
    while left:
        first = admin.list_offsets({each: OffsetSpec.earliest() for each in left}, request_timeout=timeout_s)
        last = admin.list_offsets({each: OffsetSpec.latest() for each in left}, request_timeout=timeout_s)
        leaderless = []
        for each in left:
            try:
                found[each.topic, each.partition] = (first[each].result().offset, last[each].result().offset)
            except KafkaException as error:
                if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                    raise
                leaderless.append(each)
        left = leaderless
        if left:
            time.sleep(_LOOK_AGAIN_S)
    return found
