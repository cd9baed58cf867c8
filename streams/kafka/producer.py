"""A transactional producer that can be thrown away: after any doubt, a new one with the same id fences the
old.

librdkafka has no KIP-890 client: an EndTxn that it resends after a lost connection carries the same producer
epoch as the next transaction. So a producer whose connection was disturbed begins nothing more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from itertools import islice, repeat
from operator import length_hint
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from schemas.errors import RetriableError, SluiceError, WallError
from streams.kafka import bulk
from streams.kafka.clients import Connection, logger
from streams.kafka.records import Output, Packed
from streams.kafka.session import Tuning
from streams.kafka.watchdog import Watchdog

log = structlog.get_logger("sluice.producer")
FULL_SECONDS = 10.0
THROTTLED_SECONDS, TOLD_SECONDS = 0.2, 10.0
OFFSETS_GRACE_SECONDS = 5.0  # beyond the call's own time-out
# A transaction that begins while the broker still writes the last one's markers, about 1 ms, is told to come back, and
# librdkafka does after 20 ms.
MARKERS_SECONDS = 0.002
REFUSED = {
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}


class DisturbedError(Exception):
    """The transaction cannot be trusted any more; the next step is a recycle."""


class _Ears(logging.Handler):
    """Hears disconnects and request timeouts in librdkafka's log; everything else stays quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = False

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "isconnect" in text or "timed out" in text or "FAIL" in text:
            self.heard = True


class Recyclable:
    """Used by one thread. `recycle()` makes the first producer too."""

    def __init__(
        self,
        connection: Connection,
        transactional_id: str,
        stopping: threading.Event,
        watchdog: Watchdog,
        tuning: Tuning,
    ) -> None:
        self._settings = connection.settings(
            transactional_id=transactional_id,
            client_id=transactional_id,
            transaction_timeout_ms=tuning.transaction_timeout_ms,
            linger_ms=0,
            batch_num_messages=100_000,
            batch_size=1_000_000,
            # A dead letter is as long as any raw record that the broker took (1,048,588 bytes), and its headers.
            message_max_bytes=4 << 20,
            queue_buffering_max_messages=2_000_000,
            queue_buffering_max_kbytes=256 << 10,
            delivery_report_only_error=True,
            log_connection_close=True,
        )
        self._seconds = tuning.transaction_timeout_ms / 1000
        self._stopping = stopping
        self._watchdog = watchdog
        self._producer: Any = None
        self._handle: int | None = None
        self._failed = False
        self._ears = _Ears()
        self._committed = 0.0
        self._told = -TOLD_SECONDS
        self.recycled = 0

    def recycle(self) -> None:
        """Destroys the producer and fences it: whatever was open is aborted, whatever was in doubt is
        decided.

        Raises WallError where the broker refuses, RetriableError where it does not answer for a minute at
        first start.
        """
        self.close()
        self._failed, self._ears = False, _Ears()
        callbacks = {"error_cb": self._on_error, "throttle_cb": self._on_throttle}
        producer = Producer({**self._settings, **callbacks}, logger=logger(self._ears))
        began = time.monotonic()
        while True:
            try:
                with self._watchdog.limit("init_transactions", 2 * self._seconds):
                    producer.init_transactions(self._seconds)
                break
            except KafkaException as problem:
                error = problem.args[0]
                if error.code() in REFUSED:
                    raise WallError(
                        f"The broker refused this principal its transactional id: {error.str()}",
                        "Open the contract or task as admin first, or run as the role it names.",
                    ) from None
                if not error.retriable():
                    raise SluiceError(
                        f"No transaction can be begun: {error.str()}", "Start the worker again."
                    ) from None
                if self._stopping.is_set() or (self.recycled == 0 and time.monotonic() - began > 60):
                    raise RetriableError(
                        "The broker does not answer.", "Look at `sluice status`; start the worker again."
                    ) from None
        producer.poll(0)
        self._failed, self._ears.heard = (
            False,
            False,
        )  # what it heard while it connected is not about a transaction
        self._producer, self._handle = producer, bulk.handle(producer)
        self.recycled += 1
        if self.recycled > 1:
            log.warning("producer recycled", times=self.recycled - 1)

    def cluster(self) -> str:
        """The id of the Kafka cluster. Raises RetriableError where the broker does not answer."""
        try:
            with self._watchdog.limit("list_topics", 10):
                # No topic is named: the client would ask for one that it may not see 50 times a second for good.
                return str(self._producer.list_topics(timeout=10).cluster_id)
        except KafkaException as problem:
            raise RetriableError(
                f"The broker does not answer: {problem.args[0].str()}",
                "Look at `sluice status`; start the worker again.",
            ) from None

    def close(self) -> None:
        producer, self._producer, self._handle = self._producer, None, None
        if producer is not None:
            with self._watchdog.limit("destroy", 10):
                producer.purge(blocking=False)
                del producer

    def disturbed(self) -> bool:
        """Whether an error or a lost connection was reported since the producer was made."""
        self._producer.poll(0)
        return self._failed or self._ears.heard

    def begin(self) -> None:
        time.sleep(max(0.0, self._committed + MARKERS_SECONDS - time.monotonic()))
        self._producer.begin_transaction()

    def produce(self, output: Output) -> None:
        """Queues all records of one output. Raises DisturbedError when the queue stays full."""
        topic, partition, values = output.topic, output.partition, output.values
        if isinstance(values, Packed) and isinstance(output.keys, Packed | None) and self._handle is not None:
            done = 0
            while True:
                done = bulk.produce(self._handle, topic, partition, values, output.keys, done)
                if done == len(values):
                    return
                self._drain()
        if output.headers is not None:
            for key, value, headers in zip(output.keys or repeat(None), values, output.headers, strict=False):
                try:
                    self._producer.produce(topic, value, key, partition, headers=list(headers or ()))
                except BufferError:
                    self._drain()
                    self._producer.produce(topic, value, key, partition, headers=list(headers or ()))
            return
        at = 0
        while at < len(values):
            rest = iter(list(values[at:]))
            keys = islice(output.keys, at, None) if output.keys else repeat(None)
            try:  # a loop in Python costs .3 CPU s per million more
                deque(map(self._producer.produce, repeat(topic), rest, keys, repeat(partition)), maxlen=0)
                return
            except BufferError:
                at = len(values) - length_hint(rest) - 1  # the one that found no room
                self._drain()

    def _drain(self) -> None:
        with self._watchdog.limit("flush", FULL_SECONDS):
            if self._producer.flush(FULL_SECONDS):
                raise DisturbedError("the producer's queue stays full")

    def flush(self) -> None:
        """Raises DisturbedError unless every record of the transaction is on the broker."""
        with self._watchdog.limit("flush", self._seconds):
            if remaining := self._producer.flush(self._seconds):
                raise DisturbedError(f"{remaining} records are not on the broker in time")

    def send_offsets(self, offsets: list[TopicPartition], metadata: Any) -> None:
        """Never retried: it can block for ever, and does where the broker dies under it."""
        seconds = self._seconds / 2
        with self._watchdog.limit("send_offsets_to_transaction", seconds, OFFSETS_GRACE_SECONDS):
            self._producer.send_offsets_to_transaction(offsets, metadata, seconds)

    def commit(self) -> None:
        """Retried, with nothing between, until the transaction's timeout."""
        deadline = time.monotonic() + self._seconds
        with self._watchdog.limit("commit_transaction", self._seconds):
            while True:
                try:
                    self._producer.commit_transaction(max(0.1, deadline - time.monotonic()))
                    self._committed = time.monotonic()
                    return
                except KafkaException as problem:
                    error = problem.args[0]
                    if error.txn_requires_abort() or not error.retriable() or time.monotonic() >= deadline:
                        raise

    def give_up(self, problem: Exception) -> None:
        """Ends the transaction: abort where librdkafka says so, else a new producer."""
        error = problem.args[0] if isinstance(problem, KafkaException) else None
        if error is not None and error.code() in REFUSED:
            raise WallError(
                f"The broker refused: {error.str()}",
                "Open the contract or task with the admin's principal first.",
            ) from None
        if error is not None and error.txn_requires_abort() and not self.disturbed():
            try:
                with self._watchdog.limit("abort_transaction", self._seconds):
                    self._producer.abort_transaction(self._seconds)
                return
            except KafkaException:
                pass
        self.recycle()

    def _on_throttle(self, event: Any) -> None:
        """The broker made this client wait: said once in a while, beyond what a burst costs."""
        if event.throttle_time >= THROTTLED_SECONDS and time.monotonic() > self._told + TOLD_SECONDS:
            self._told = time.monotonic()
            log.warning(
                "the broker slows this client down; it goes on as fast as it may",
                seconds=round(float(event.throttle_time), 1),
                remedy="A quota on this principal: raise producer_byte_rate where more is wanted.",
            )

    def _on_error(self, error: KafkaError) -> None:
        log.warning("producer", error=error.name())
        self._failed = True
