"""How far each source of a contract is published: its newest record in the compacted source topic.

The record is written in the same transaction as the events before it, so it is exactly as true as they are.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from producers.sources import Position
from schemas.errors import ConfigurationError, FatalError, RetriableError, WallError
from streams.kafka.clients import Connection, logger

ANSWER_SECONDS = 10.0
# An open transaction of another source of this contract ends, at the latest, after its timeout of 10 s.
PENDING_SECONDS = 30.0
# Connections heal; and the client looks for the coordinator of a group that nobody uses here.
PASSING = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)
# A topic that was just made, or a broker that just came back: the leader is there in a moment.
SETTLING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
OPEN_IT = "Open the contract as the owner's admin: `sluice publish` does it where the admin's secret is."


@dataclass(frozen=True, slots=True)
class Progress:
    """`clock_ms`: the newest clock record, None before the first. The counts are since the first run."""

    position: Position
    clock_ms: int | None = None
    published: int = 0
    rejected: int = 0

    def encode(self) -> bytes:
        body = self.position.as_json() | {
            "version": 1,
            "clock_ms": self.clock_ms,
            "published": self.published,
            "rejected": self.rejected,
        }
        return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def decode(cls, value: bytes, name: str) -> Progress:
        """Raises FatalError where it is not what `encode` wrote."""
        try:
            body = json.loads(value)
            if body["version"] != 1:
                raise ValueError
            return cls(
                Position.of_json(body), body["clock_ms"], int(body["published"]), int(body["rejected"])
            )
        except (ValueError, KeyError, TypeError):
            raise FatalError(
                f"The stored position of the source {name!r} cannot be read.",
                "Another version of sluice wrote it; publish with --from-start, or with that version.",
            ) from None


class Positions:
    """Reads the source topic, and what else is to be known of the cluster before publishing."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._refused = False

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises where broker, topic or rights are missing."""
        consumer = self._consumer("read_uncommitted")
        try:
            deadline = time.monotonic() + ANSWER_SECONDS
            while True:
                try:
                    found = consumer.list_topics(topic, timeout=1.0).topics[topic]
                    break
                except KafkaException as problem:
                    consumer.poll(0)  # lets error_cb say whether it is the password
                    if self._refused or time.monotonic() > deadline:
                        raise self._unanswered(problem.args[0]) from None
        finally:
            consumer.close()
        if found.error is not None:
            raise explain(found.error, self._connection, topic)
        return len(found.partitions)

    def read(self, name: str) -> Progress | None:
        """The newest committed progress of `name`, or None. Waits while a transaction on the topic is open.

        Call it after `init_transactions`: what an earlier process of this source left open is then over.
        """
        newest: bytes | None = None
        reader, prober = self._consumer("read_committed"), self._consumer("read_uncommitted")
        try:
            low, high = self._ends(prober)
            reader.assign([TopicPartition(self._topic, 0, low)])
            at, deadline = low, time.monotonic() + PENDING_SECONDS
            while at < high:
                for message in reader.consume(10_000, 0.1):
                    error = message.error()
                    if error is None:
                        at = message.offset() + 1
                        if message.key() == name.encode():
                            newest = message.value()
                    elif error.code() == KafkaError._PARTITION_EOF:
                        at = max(at, message.offset())  # the last stable offset, which may still move on
                    elif not (error.retriable() or error.code() in (*PASSING, *SETTLING)):
                        raise explain(error, self._connection, self._topic)
                if at < high and time.monotonic() > deadline:
                    raise RetriableError(
                        f"A transaction on {self._topic} stays open: {at} of {high} records can be read.",
                        "Wait until its publisher has ended, then run the command again.",
                    )
        except KafkaException as problem:
            raise self._unanswered(problem.args[0]) from None
        finally:
            reader.close()
            prober.close()
        return None if newest is None else Progress.decode(newest, name)

    def _ends(self, prober: Any) -> tuple[int, int]:
        """First offset and end. Waits for a leader, but not for a broker."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                found = prober.get_watermark_offsets(
                    TopicPartition(self._topic, 0), timeout=ANSWER_SECONDS, cached=False
                )
                return int(found[0]), int(found[1])
            except KafkaException as problem:
                if problem.args[0].code() not in SETTLING or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _consumer(self, isolation: str) -> Any:
        return Consumer(
            self._connection.settings(
                group_id="none",
                client_id="publish",
                isolation_level=isolation,
                enable_auto_commit=False,
                auto_offset_reset="error",
                enable_partition_eof=True,
                fetch_wait_max_ms=20,
            )
            | {"error_cb": self._heard},
            logger=logger(logging.NullHandler()),  # what matters comes as an error or through error_cb
        )

    def _heard(self, error: KafkaError) -> None:
        self._refused |= error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)

    def _unanswered(self, error: KafkaError) -> Exception:
        if self._refused:
            return explain(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED), self._connection, self._topic)
        return explain(error, self._connection, self._topic)


def explain(error: KafkaError, connection: Connection, topic: str) -> Exception:
    """Kafka's error as one of ours, with what to do next."""
    who, code = connection.principal, error.code()
    if code in (KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION):
        return WallError(
            f"The broker at {connection.bootstrap} refused to sign in {who!r}.",
            "Check the password (SLUICE_PASSWORD_FILE) and that SLUICE_HOME is the stack's own folder.",
        )
    if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED):
        return WallError(
            f"The broker refused {who!r} ({error.name()}, topic {topic}).",
            OPEN_IT + " Publish as `producer`.",
        )
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return ConfigurationError(
            f"The topic {topic} does not exist.",
            OPEN_IT,
        )
    return RetriableError(
        f"No broker answers at {connection.bootstrap} ({error.name()}).",
        "Look at `sluice status`; start one with `sluice up --detach`, or set SLUICE_BOOTSTRAP.",
    )
