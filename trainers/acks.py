"""What a subscriber tells the trainer's side: which releases it took. Needs the base install only."""

from __future__ import annotations

import io
from types import TracebackType
from typing import Any, Self

import structlog
from confluent_kafka import Producer
from fastavro import schemaless_writer

from streams.kafka.clients import Connection
from trainers.follower import Update
from trainers.lookup import newest_id
from trainers.manifest import avro
from trainers.releases import QUIET

log = structlog.get_logger("sluice.subscribe")


class Acks:
    """Tells what was done with each release. Best effort: an ack that fails is logged."""

    def __init__(self, connection: Connection, task: str) -> None:
        self._connection = connection
        self._topic = f"models.{task}.acks.v1"
        self._task = task
        self._schema_id = 0

    def __enter__(self) -> Self:
        self._producer = Producer(
            self._connection.settings(linger_ms=5, queue_buffering_max_kbytes=1024), logger=QUIET
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._producer.flush(2.0)

    def send(self, subscriber: str, update: Update, reason: str) -> None:
        """Queues one ack; returns at once, except for the registry's answer at the first."""
        try:
            if not self._schema_id:
                self._schema_id = newest_id(self._connection, f"{self._topic}-value")
            out = io.BytesIO(b"\0" + self._schema_id.to_bytes(4, "big"))
            out.seek(5)
            state = "applied" if update.applied else "refused"
            record: dict[str, Any] = {"task": self._task, "subscriber": subscriber, "release": update.release}
            record |= {"version": update.version, "state": state, "reason": reason}
            schemaless_writer(out, avro("model_ack"), record)
            self._producer.produce(self._topic, out.getvalue(), subscriber.encode())
            self._producer.poll(0)
        except Exception as problem:  # registry and HTTP errors of many kinds; the model matters more
            log.warning("ack not sent", task=self._task, error=type(problem).__name__)
