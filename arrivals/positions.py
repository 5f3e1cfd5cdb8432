"""Where to read on in each partition: the ledger's offsets against what Kafka has, and what doesn't fit between them.

Belongs here: finding topics and the ends of their partitions, noticing what expired or was made anew. Doesn't: reading
messages (`arrivals.drain`), or the clients that ask (`arrivals.connection`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, OffsetSpec

from arrivals.connection import Connection, Place
from arrivals.ledger import Ledger
from arrivals.records import Partition
from resources.errors import SiteFault
from resources.kafka import visible_topics

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
    is_news
        Whether the ledger has to be told of it even if nothing is read.
    leader_epoch
        The epoch of the message before the position; none if it isn't known, as before the first one is read.
    done
        Whether all up to there has been read.
    """

    partition: Partition
    position: int
    end: int
    is_news: bool = False
    leader_epoch: int | None = None
    done: bool = False

    @property
    def lag(self) -> int:
        """How many messages are left."""
        return max(self.end - self.position, 0)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is to read.

    Parameters
    ----------
    spans
        Of every partition of the wanted topics, in order.
    expired_before
        The first offset that is left of a partition, where messages before it are gone unread.
    notices
        What an operator should know of it, a line each.
    """

    spans: Mapping[Place, Span]
    expired_before: Mapping[Partition, int]
    notices: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be read or recorded."""
        return not any(span.lag or span.is_news for span in self.spans.values())


@dataclass(frozen=True, slots=True)
class Start:
    """Where one partition is read from.

    Parameters
    ----------
    partition
        Which, with the incarnation that its messages belong to.
    offset
        The first to read.
    is_new
        Whether the ledger doesn't know this incarnation yet.
    expired
        How many messages are gone unread.
    notice
        What an operator should know of it, or nothing.
    """

    partition: Partition
    offset: int
    is_new: bool = False
    expired: int = 0
    notice: str = ""


def start_of(
    partition: Partition, known: tuple[Partition, int] | None, low: int, high: int, *, refused: bool = False
) -> Start:
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
    refused
        Whether Kafka wouldn't go on where it was left: either that offset isn't there, or what comes before it isn't
        what was read.
    """
    if known is None:
        return Start(partition, low, is_new=True)
    before, offset = known
    name = f"{partition.topic}[{partition.number}]"
    again = replace(partition, topic_id=partition.topic_id or before.topic_id, leader_epoch=None)
    continued, anew = (replace(again, incarnation=before.incarnation + more) for more in (0, 1))
    if partition.topic_id and before.topic_id and partition.topic_id != before.topic_id:
        notice = f"{name}: the topic was made anew under the same name; it is read from its start"
        return Start(anew, low, is_new=True, notice=notice)
    if offset > high:
        notice = (
            f"{name}: ends at {high:,}, but was read up to {offset:,}: Kafka has lost messages that are in the ledger; "
            "it is read from its start, and what comes again is recognised"
        )
        return Start(anew, low, is_new=True, notice=notice)
    if offset < low:
        notice = f"{name}: Kafka deleted {low - offset:,} messages before they were read; have them announced again"
        return Start(continued, low, expired=low - offset, notice=notice)
    if refused:
        notice = (
            f"{name}: was read up to {offset:,}, and has other messages before that: Kafka has lost messages that are "
            "in the ledger; it is read from its start, and what comes again is recognised"
        )
        return Start(anew, low, is_new=True, notice=notice)
    return Start(replace(continued, leader_epoch=before.leader_epoch), offset)


def look(connection: Connection, wanted: re.Pattern[str], ledger: Ledger, timeout_s: float) -> Outlook:
    """See what there is to read, from the ledger's offsets to the ends as they are now.

    Parameters
    ----------
    connection
        To Kafka.
    wanted
        Found in the names of topics that are read.
    ledger
        Knows how far they were read.
    timeout_s
        For each question to Kafka.

    Raises
    ------
    confluent_kafka.KafkaException
        A question was refused or not answered.
    """
    metadata = visible_topics(connection.consumer, timeout_s)
    cluster = metadata.cluster_id or "unnamed"
    topics = topics_of(metadata, wanted)
    seen = f"of the {len(metadata.topics):,} that we may see" if metadata.topics else "for we see none at all"
    notices = [] if topics else [f"no topic matches {wanted.pattern}, {seen}; compare arrivals.topics: docs/kafka.md"]
    ids = topic_ids(connection.admin, metadata, topics, timeout_s)
    places = [TopicPartition(topic, number) for topic in topics for number in metadata.topics[topic].partitions]
    known = {(each.topic, each.number): (each, offset) for each, offset in ledger.offsets(cluster).items()}
    starts = {
        place: (start_of(Partition(cluster, *place, topic_id=ids.get(place[0], "")), known.get(place), low, high), high)
        for place, (low, high) in sorted(ends_of(connection.admin, places, timeout_s).items())
    }
    return _outlook(starts, notices)


def look_again(connection: Connection, refused: Iterable[Span], timeout_s: float) -> Outlook:
    """See what there is instead where Kafka wouldn't go on.

    Parameters
    ----------
    connection
        To Kafka.
    refused
        The spans of these partitions, as far as they were read.
    timeout_s
        For each question to Kafka.

    Raises
    ------
    confluent_kafka.KafkaException
        A question was refused or not answered.
    """
    left = {(span.partition.topic, span.partition.number): span for span in refused}
    ends = ends_of(connection.admin, [TopicPartition(*place) for place in left], timeout_s)
    starts = {}
    for place, (low, high) in ends.items():
        partition = left[place].partition
        starts[place] = (start_of(partition, (partition, left[place].position), low, high, refused=True), high)
    return _outlook(starts)


def _outlook(starts: Mapping[Place, tuple[Start, int]], notices: Iterable[str] = ()) -> Outlook:
    """What there is to read from these starts to these ends."""
    spans = {
        place: Span(start.partition, start.offset, end, start.is_new or start.expired > 0, done=start.offset >= end)
        for place, (start, end) in starts.items()
    }
    expired_before = {start.partition: start.offset for start, _ in starts.values() if start.expired}
    told = (start.notice for start, _ in starts.values() if start.notice)
    return Outlook(spans, expired_before, (*notices, *told))


def topic_pattern(topics: str) -> re.Pattern[str]:
    """Read the profile's pattern of topics.

    Raises
    ------
    resources.errors.SiteFault
        It is no regular expression.
    """
    try:
        return re.compile(topics)
    except re.error as error:
        raise SiteFault(f"{topics!r} is no regular expression: {error}", "arrivals.topics", "mend it") from error


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
    """The first offset, and the one after the last that can be read, of each partition: two requests a broker.

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
        first, last = (
            admin.list_offsets(
                dict.fromkeys(left, end), isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s
            )
            for end in (OffsetSpec.earliest(), OffsetSpec.latest())
        )
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
