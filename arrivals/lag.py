"""How far the ledger is behind Kafka, topic by topic; nothing is read but the ends of the partitions.

Belongs here: comparing Kafka's ends with the ledger's offsets. Doesn't: reading messages (`arrivals.drain`), or what
lag is too much (`arrivals.health`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from confluent_kafka import KafkaException, TopicPartition

from arrivals.ledger import Ledger
from arrivals.positions import topic_pattern, topics_of
from resources.errors import Rejected
from resources.kafka import LastError, bootstrap_address, make_consumer, visible_topics
from resources.site import ArrivalSettings, KafkaSettings

PATIENCE_S = 5.0
"""How long Kafka may take for each answer: an operator is waiting for it."""


def kafka_lag(
    kafka: KafkaSettings, settings: ArrivalSettings, ledger: Ledger, *, timeout_s: float = PATIENCE_S
) -> Mapping[str, int]:
    """Count the messages that are in Kafka and not yet in the ledger, by topic.

    Parameters
    ----------
    kafka, settings, ledger
        The site's.
    timeout_s
        For each question to Kafka.

    Raises
    ------
    resources.errors.Retriable
        The broker doesn't answer.
    resources.errors.SiteFault
        It refuses us, or the profile is wrong.
    resources.errors.Rejected
        No topic matches the profile's pattern.
    """
    wanted = topic_pattern(settings.topics)
    errors = LastError()
    consumer = make_consumer(kafka, settings.group, errors)
    lags: dict[str, int] = {}
    try:
        metadata = visible_topics(consumer, timeout_s)
        cluster = metadata.cluster_id or "unnamed"
        known = {(place.topic, place.number): offset for place, offset in ledger.offsets(cluster).items()}
        for topic in topics_of(metadata, wanted):
            lags[topic] = 0
            for number in metadata.topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=timeout_s)
                read_up_to = known.get((topic, number), low)
                # Beyond the end: the topic was made anew, and all that it holds is new.
                lags[topic] += high - (max(read_up_to, low) if read_up_to <= high else low)
    except KafkaException as error:
        raise errors.explain(error, bootstrap_address(kafka)) from error
    finally:
        consumer.close()
    if not lags:
        raise Rejected(f"no topic matches {settings.topics}", bootstrap_address(kafka), "see arrivals.topics")
    return MappingProxyType(lags)
