"""The shared topic as a `read_committed` reader sees it, live: when was each partition back at full rate?"""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from streams.kafka.clients import Connection, logger
from tests.chaos.audit import number_of


class Watch:
    """`last[p]` is the newest event that partition p has shared."""

    def __init__(self, connection: Connection, topic: str, partitions: int) -> None:
        self.last = dict.fromkeys(range(partitions), -1)
        self.seen = 0
        self._consumer = Consumer(
            connection.settings(
                group_id="chaos-watch",
                isolation_level="read_committed",
                enable_auto_commit=False,
                fetch_wait_max_ms=50,
            ),
            logger=logger(),
        )
        self._consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in range(partitions)])

    def look(self, seconds: float) -> None:
        """Takes what comes within `seconds`."""
        newest: dict[int, bytes] = {}
        for message in self._consumer.consume(5000, seconds):
            if message.error() is None:
                newest[int(message.partition() or 0)] = message.value() or b""
                self.seen += 1
        for partition, value in newest.items():
            self.last[partition] = max(self.last[partition], number_of(value))

    def behind(self, number: int) -> bool:
        """Whether every partition has shared something that was written after this event."""
        return all(last > number for last in self.last.values())

    def close(self) -> None:
        self._consumer.close()
