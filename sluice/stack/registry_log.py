"""The `_schemas` topic: read from its start to its end and on, appended to one change at a time.

One thread reads (`follow`), another may append; the two share no client. The end is found by appending a NOOP
and reading until it comes back. Only one registry may append to a log at a time, as ids come from offsets
(registry_store.py): the entry holds a lock file for its home. Not guaranteed: that an append which timed out
does not land after the next one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from schemas.errors import ConfigurationError, RetriableError, WallError
from sluice.stack.registry_store import NOOP, Record
from streams.kafka.clients import Connection

TOPIC = "_schemas"
BEGINNING = -2  # Kafka's own mark for the first offset
APPEND_SECONDS = 10.0
RETRY_SECONDS = 0.1
STRANDED_SECONDS = 5.0  # see streams/kafka/flow.py
Batch = list[tuple[bytes | None, bytes | None, int]]
# Rights may come a moment after the broker: the one who starts both adds them when it answers.
_NOT_YET = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_HARMLESS = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._PARTITION_EOF)


class Log:
    """One principal's hold on the log. `open` first; then `follow` in a thread of its own and `append` from
    another.
    """

    def __init__(
        self, connection: Connection, quiet: Callable[[KafkaError], None] = lambda error: None
    ) -> None:
        self._connection = connection
        self._common = {**connection.settings(), "error_cb": quiet, "log_level": 0}
        self._producer: Producer | None = None
        self._appended = -1  # the last offset that was
        self._at = BEGINNING  # all before it was read
        self._cut = False
        self._stop = threading.Event()

    def open(self, timeout_seconds: float) -> str:
        """Wait for the broker, make sure that the topic is there and compacted; the cluster's id.

        Raises RetriableError when the time is over, ConfigurationError for a topic that would lose schemas,
        WallError when the rights did not come in that time.
        """
        end = time.monotonic() + timeout_seconds
        admin = AdminClient(dict(self._common))
        while True:
            try:
                self._ensure_topic(admin)
                return str(admin.list_topics(TOPIC, timeout=5).cluster_id)
            except KafkaException as problem:
                error = problem.args[0]
                if self._stop.is_set() or time.monotonic() > end:
                    if error.code() in _NOT_YET:
                        raise WallError(
                            f"{self._connection.principal!r} has no right to {TOPIC}: {error.name()}.",
                            "Give it all operations on that topic; the embedded broker's `sluice up` does.",
                        ) from None
                    raise RetriableError(
                        f"No answer from {self._connection.bootstrap}: {error.name()}.",
                        "Start the broker, and check the password of this principal.",
                    ) from None
            self._stop.wait(RETRY_SECONDS)

    def follow(self, take: Callable[[Batch], None]) -> None:
        """Hand every record of the log to `take`, in order, from the first one on, until `close`.

        Raises RetriableError where the log is not what was read before (its end was lost): start over then.
        """
        while not self._stop.is_set():
            consumer = Consumer(
                {
                    **self._common,
                    "group.id": TOPIC,  # asked for by the client library; never joined, nothing is committed
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "error",
                    "queued.max.messages.kbytes": 4096,
                    "fetch.wait.max.ms": 500,
                }
            )
            try:
                self._read(consumer, take)
            finally:
                consumer.close()

    def _read(self, consumer: Consumer, take: Callable[[Batch], None]) -> None:
        """Until `close`, or until what was appended does not come: a new consumer is needed then."""
        with contextlib.suppress(KafkaException):
            consumer.list_topics(TOPIC, timeout=10)  # a start asked for before the leader is known waits .5 s
        consumer.assign([TopicPartition(TOPIC, 0, self._at)])
        moved = time.monotonic()
        while not self._stop.is_set() and time.monotonic() - moved < STRANDED_SECONDS:
            batch: Batch = []
            first = consumer.poll(0.5)  # `consume` alone would wait the whole time for more
            for message in () if first is None else (first, *consumer.consume(500, timeout=0)):
                error = message.error()
                if error is None:
                    batch.append((message.key(), message.value(), message.offset() or 0))
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self._cut = True
            if self._cut:
                raise RetriableError(f"{TOPIC} is shorter than it was.", "Start the registry again.")
            if batch:
                self._at = batch[-1][2] + 1
                take(batch)
            if batch or self._appended < max(self._at, 0):
                moved = time.monotonic()

    def mark(self) -> int:
        """Append a NOOP; its offset. All that was there before it is below it. Raises KafkaException."""
        return self.append((NOOP,))

    def append(self, records: tuple[Record, ...]) -> int:
        """Append in order, on all replicas; the last offset. Never sent again once it may have landed: idempotence
        would know whether it did, and costs half a second at the start.

        Raises KafkaException when one failed or its outcome is unknown; those before it are in the log.
        """
        producer = self._producer = self._producer or Producer(
            {
                **self._common,
                "acks": "all",
                "retries": 0,
                "delivery.timeout.ms": int(APPEND_SECONDS * 1000),
                "linger.ms": 0,
            }
        )
        offset = -1
        for key, value in records:
            done: list[tuple[KafkaError | None, Message]] = []
            read = self._at

            def told(error: KafkaError | None, message: Message, done: list[Any] = done) -> None:
                done.append((error, message))

            producer.produce(TOPIC, key=key, value=value, partition=0, on_delivery=told)
            producer.flush(APPEND_SECONDS + 1)
            if not done or done[0][0] is not None:
                self._producer = None  # it may still hold the record; a new one starts clean
                raise KafkaException((done and done[0][0]) or KafkaError(KafkaError._TIMED_OUT))
            offset = done[0][1].offset() or 0
            self._cut = self._cut or offset < read
            self._appended = offset
        return offset

    def close(self) -> None:
        """Ends `follow` within a second and `open` at once."""
        self._stop.set()

    def _ensure_topic(self, admin: AdminClient) -> None:
        topic = NewTopic(TOPIC, num_partitions=1, replication_factor=-1, config={"cleanup.policy": "compact"})
        try:
            admin.create_topics([topic], request_timeout=2)[TOPIC].result()
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            resource = ConfigResource(ResourceType.TOPIC, TOPIC)
            found = admin.describe_configs([resource], request_timeout=2)[resource].result()
            if found["cleanup.policy"].value != "compact":
                raise ConfigurationError(
                    f"{TOPIC} has cleanup.policy={found['cleanup.policy'].value}: it would lose schemas.",
                    f"Set it to `compact` (kafka-configs --alter --topic {TOPIC}).",
                ) from None
