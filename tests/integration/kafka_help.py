"""Topics, producers and independent readers for tests of what goes through Kafka."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.kafka.clients import Connection


def unique(name: str) -> str:
    """A name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def make_topics(admin: Connection, *names: str, partitions: int = 1, compacted: bool = False) -> None:
    """Topics with LogAppendTime."""
    config = {"message.timestamp.type": "LogAppendTime"}
    if compacted:
        config |= {"cleanup.policy": "compact"}
    client = AdminClient(admin.settings())
    found = client.create_topics([NewTopic(name, partitions, 1, config=config) for name in names])
    for future in found.values():
        future.result(30)
    deadline = time.monotonic() + 20
    while not set(names) <= set(client.list_topics(timeout=10).topics):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def send(connection: Connection, topic: str, values: Iterable[bytes | None], partition: int = 0) -> None:
    """Records without a transaction; the key is the row number."""
    producer = Producer(connection.settings(linger_ms=5))
    for row, value in enumerate(values):
        while True:
            try:
                producer.produce(topic, value, str(row).encode(), partition)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def end(connection: Connection, topic: str, partition: int = 0, *, stable: bool = False) -> int:
    """High watermark, or with `stable` the last stable offset."""
    isolation = "read_committed" if stable else "read_uncommitted"
    consumer = Consumer(
        connection.settings(group_id="end", isolation_level=isolation, enable_partition_eof=True)
    )
    try:
        if not stable:
            return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)[1])
        consumer.assign([TopicPartition(topic, partition, 0)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    return int(message.offset() or 0)
        raise AssertionError("no end")
    finally:
        consumer.close()


def read(
    connection: Connection, topic: str, partition: int = 0, *, committed: bool = True, seconds: float = 60
) -> list[Any]:
    """All messages of a partition up to the end as of now, by an independent reader."""
    high = end(connection, topic, partition)
    isolation = "read_committed" if committed else "read_uncommitted"
    consumer = Consumer(
        connection.settings(
            group_id="reader", isolation_level=isolation, enable_partition_eof=True, enable_auto_commit=False
        )
    )
    found: list[Any] = []
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        deadline = time.monotonic() + seconds
        while high > 0:
            assert time.monotonic() < deadline, f"{topic} is not readable up to {high}"
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    if int(message.offset() or 0) >= high:
                        return found
                else:
                    raise AssertionError(error.str())
        return found
    finally:
        consumer.close()


def group_offset(connection: Connection, group: str, topic: str, partition: int = 0) -> int:
    """What a group has committed, pending offsets waited for; -1001 for nothing."""
    consumer = Consumer(connection.settings(group_id=group, isolation_level="read_committed"))
    try:
        return int(consumer.committed([TopicPartition(topic, partition)], timeout=30)[0].offset)
    finally:
        consumer.close()


def values(messages: Sequence[Any]) -> list[bytes]:
    return [message.value() for message in messages]
