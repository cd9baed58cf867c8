"""The shared topic as a `read_committed` reader sees it, live, and how far the trainer is in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from streams.kafka.clients import Connection, logger
from tests.chaos.audit import number_of

ASK_SECONDS = 0.3


class Watch:
    """`last[p]` is the newest event that partition p has shared."""

    def __init__(self, connection: Connection, topic: str, partitions: int) -> None:
        self.last = dict.fromkeys(range(partitions), -1)
        self.seen = 0
        self.marks = {each: deque[tuple[int, int]](maxlen=4000) for each in self.last}  # offset, event
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
        newest: dict[int, tuple[int, bytes]] = {}
        for message in self._consumer.consume(5000, seconds):
            if message.error() is None:
                newest[int(message.partition() or 0)] = int(message.offset() or 0), message.value() or b""
                self.seen += 1
        for partition, (offset, value) in newest.items():
            self.last[partition] = max(self.last[partition], number_of(value))
            self.marks[partition].append((offset, self.last[partition]))

    def behind(self, number: int) -> bool:
        """Whether every partition has shared something that was written after this event."""
        return all(last > number for last in self.last.values())

    def close(self) -> None:
        self._consumer.close()


class Learned:
    """How far a trainer has committed in the shared topic; asked for, as nothing tells it."""

    def __init__(self, connection: Connection, task: str, topic: str, watch: Watch) -> None:
        self._watch = watch
        self.offsets = 0  # of all partitions together, when they were last asked for
        self._wanted = [TopicPartition(topic, each) for each in watch.last]
        # Not read_committed: an open transaction of a trainer that was killed would let the question wait.
        settings = connection.settings(group_id=f"train.{task}", isolation_level="read_uncommitted")
        self._consumer = Consumer(settings, logger=logger())

    def behind(self, number: int) -> bool:
        """Whether of every partition something is learned that was written after this event."""
        marks = self._watch.marks
        needed = {
            partition: next((offset for offset, last in marks[partition] if last > number), None)
            for partition in marks
        }
        if None in needed.values():
            return False
        return self.at_least({partition: offset or 0 for partition, offset in needed.items()})

    def at_least(self, offsets: Mapping[int, int]) -> bool:
        """Whether these records are learned."""
        try:
            found = self._consumer.committed(self._wanted, ASK_SECONDS)
        except KafkaException:
            return False
        self.offsets = sum(each.offset for each in found)
        return all(each.offset > offsets.get(each.partition, -1) for each in found)

    def close(self) -> None:
        self._consumer.close()
