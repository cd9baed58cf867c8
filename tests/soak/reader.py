"""A reader of a shared topic from its beginning, as an app outside the wall is one."""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from streams.kafka.clients import Connection, logger


def reader(connection: Connection, topic: str, partitions: int) -> Consumer:
    """With `read_committed`, in no group's name that matters."""
    found = Consumer(
        connection.settings(
            group_id="soak-reader",
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_wait_max_ms=50,
        ),
        logger=logger(),
    )
    found.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in range(partitions)])
    return found
