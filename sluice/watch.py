"""Read topics as they grow, without a group: for progress, and for what is scored afterwards."""

from __future__ import annotations

from collections import defaultdict

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from schemas.errors import RetriableError
from streams.kafka.clients import Connection


class Watch:
    """Committed records of the followed topics, in log order: `records[topic]` is a list of (key, value)."""

    def __init__(self, connection: Connection) -> None:
        self.records: defaultdict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
        self._consumer = Consumer(
            connection.settings(
                group_id="sluice.watch",
                enable_auto_commit=False,
                isolation_level="read_committed",
                topic_metadata_refresh_interval_ms=500,
            )
        )

    def follow(self, *topics: str) -> None:
        """Begin at the start of partition 0 of topics that exist."""
        self._consumer.incremental_assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in topics])

    def poll(self, timeout_seconds: float) -> None:
        """Take what has come. Raises RetriableError where the broker refuses."""
        for message in self._consumer.consume(10_000, timeout_seconds):
            error = message.error()
            if error is None:
                pair = (message.key() or b"", message.value() or b"")
                self.records[message.topic() or ""].append(pair)
            elif error.code() not in (KafkaError._PARTITION_EOF, KafkaError._TRANSPORT):
                raise RetriableError(f"{message.topic()}: {error.str()}", "See `sluice status`.")

    def close(self) -> None:
        self._consumer.close()
