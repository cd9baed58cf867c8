"""What the doctor asks of a broker as admin, and the two things it does there.

librdkafka has no call that aborts somebody else's transaction. But whoever opens a producer with the same
transactional id fences the one before, and the coordinator then aborts what that one left open: this needs the
id alone, which Kafka's own record of transactions tells (doctor_log.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from sluice.ops import doctor_log
from sluice.ops.doctor_log import Transaction
from sluice.ops.doctor_rules import Ends, Where
from streams.kafka.clients import Connection, logger
from streams.kafka.reader import FORBIDDEN

TIMEOUT_SECONDS = 10.0
STILL_SECONDS = 3.0  # in which a transaction that goes on moves
FENCE_SECONDS = 30.0
_EVERY, _COMMITTED = IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED
_SPEC: Any = OffsetSpec


class Broker:
    """One principal's questions. Every call may raise KafkaException. Close it after use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._admin = AdminClient({**connection.settings(client_id="doctor"), "log_level": 0})
        self._consumers: dict[str, Consumer] = {}

    def close(self) -> None:
        while self._consumers:
            self._consumers.popitem()[1].close()

    def topics(self) -> tuple[dict[str, int], str]:
        """How many partitions each topic has, and the cluster's id."""
        found = self._admin.list_topics(timeout=TIMEOUT_SECONDS)
        return {name: len(topic.partitions) for name, topic in found.topics.items()}, str(found.cluster_id)

    def group(self, name: str) -> tuple[str, int]:
        """State and number of members."""
        found = self._admin.describe_consumer_groups([name], request_timeout=TIMEOUT_SECONDS)[name].result()
        return found.state.name, len(found.members)

    def committed(self, group: str, partitions: Sequence[Where]) -> tuple[dict[Where, int], set[Where]]:
        """The group's offsets, and those that an open transaction keeps from being told for STILL_SECONDS."""
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*where) for where in partitions])
        deadline = time.monotonic() + STILL_SECONDS
        while True:
            asked = self._admin.list_consumer_group_offsets(
                [wanted], require_stable=True, request_timeout=TIMEOUT_SECONDS
            )
            found = asked[group].result().topic_partitions
            wrong = {(tp.topic, tp.partition): tp.error for tp in found if tp.error is not None}
            for error in wrong.values():
                if error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                    raise KafkaException(error)
            if not wrong or time.monotonic() > deadline:
                known = {(tp.topic, tp.partition): int(tp.offset) for tp in found if tp.offset >= 0}
                return {where: known[where] for where in known.keys() - wrong.keys()}, set(wrong)
            time.sleep(0.1)

    def ends(self, partitions: Iterable[Where]) -> dict[Where, Ends]:
        """The last stable offset is asked before the high watermark, which may move on between."""
        wanted = list(partitions)
        low = self._offsets(wanted, _SPEC.earliest(), _EVERY)
        stable = self._offsets(wanted, _SPEC.latest(), _COMMITTED)
        high = self._offsets(wanted, _SPEC.latest(), _EVERY)
        return {where: Ends(low[where], stable[where], high[where]) for where in wanted}

    def since(self, partitions: Iterable[Where], ms: int) -> dict[Where, int]:
        """The first offset appended at this time or later; -1 for none."""
        return self._offsets(partitions, _SPEC.for_timestamp(ms), _EVERY)

    def _offsets(self, partitions: Iterable[Where], spec: Any, level: IsolationLevel) -> dict[Where, int]:
        asked = {TopicPartition(*where): spec for where in partitions}
        if not asked:
            return {}
        answers = self._admin.list_offsets(asked, isolation_level=level, request_timeout=TIMEOUT_SECONDS)
        return {(tp.topic, tp.partition): int(answer.result().offset) for tp, answer in answers.items()}

    def records(
        self, where: Where, isolation: str, first: int = 0, most: int | None = None
    ) -> tuple[list[Any], bool]:
        """Messages of one partition from `first` to its end as of now, at least `most` if there are; and whether that
        end was reached: it is not while STILL_SECONDS bring nothing."""
        consumer = self._consumers.get(isolation) or self._consumer(isolation)
        ends = self.ends([where])[where]
        at, progress = max(ends.low, first), time.monotonic()
        consumer.assign([TopicPartition(*where, at)])
        found: list[Any] = []
        while at < ends.high and (most is None or len(found) < most):
            for message in consumer.consume(10_000, 0.05):
                error, offset = message.error(), int(message.offset() or 0)
                if error is None:
                    found.append(message)
                    at, progress = offset + 1, time.monotonic()
                elif error.code() == KafkaError._PARTITION_EOF:  # the last stable offset is no end
                    if offset > at:
                        at, progress = offset, time.monotonic()
                elif error.code() in FORBIDDEN:
                    raise KafkaException(error)
            if time.monotonic() - progress > STILL_SECONDS:
                return found, False
        return found, True

    def _consumer(self, isolation: str) -> Consumer:
        settings = self._connection.settings(
            group_id="doctor",
            isolation_level=isolation,
            enable_partition_eof=True,
            enable_auto_commit=False,
            fetch_wait_max_ms=50,
        )
        self._consumers[isolation] = Consumer(settings, logger=logger(logging.NullHandler()))
        return self._consumers[isolation]

    def transactions(self, topics: Mapping[str, int]) -> list[Transaction]:
        """All that hold anything back now. Raises ValueError for a format that is not known."""
        newest: dict[bytes, bytes | None] = {}
        for partition in range(topics.get(doctor_log.TOPIC, 0)):
            for message in self.records((doctor_log.TOPIC, partition), "read_uncommitted")[0]:
                newest[message.key() or b""] = message.value()
        found = []
        for key, value in newest.items():
            name = doctor_log.identity(key)
            each = doctor_log.transaction(name, value) if name is not None and value is not None else None
            found += [] if each is None else [each]
        return found

    def fence(self, identity: str) -> None:
        """Aborts what the producer of this transactional id left open, and keeps it from going on."""
        settings = self._connection.settings(transactional_id=identity, transaction_timeout_ms=10_000)
        producer = Producer(settings, logger=logger(logging.NullHandler()))
        deadline = time.monotonic() + FENCE_SECONDS
        while True:
            try:
                producer.init_transactions(TIMEOUT_SECONDS)
                return
            except KafkaException as problem:
                if not problem.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def set_offset(self, group: str, where: Where, offset: int) -> None:
        """Of a group without members; the broker refuses it for another."""
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*where, offset)])
        answers = self._admin.alter_consumer_group_offsets([wanted], request_timeout=TIMEOUT_SECONDS)
        for tp in answers[group].result().topic_partitions:
            if tp.error is not None:  # the call itself succeeds all the same
                raise KafkaException(tp.error)
