"""When the trainer makes its next transaction, and when nothing more is there for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from streams.kafka.clients import Connection
from streams.kafka.records import Records
from streams.kafka.transaction import TransactionalPipe

IDLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """At most one transaction in so many seconds, unless so many records wait."""

    records: int
    seconds: float


def batches(
    pipe: TransactionalPipe,
    stopping: threading.Event,
    until_caught_up: bool,
    pace: Pace,
    connection: Connection,
) -> Iterator[list[Records]]:
    """Records of one epoch, collected until the pace allows the next transaction or they are enough."""
    held: list[Records] = []
    began, idle_since = 0.0, time.monotonic()
    while not stopping.is_set():
        wait = max(0.0, began + pace.seconds - time.monotonic()) if held else 0.2
        records = pipe.next(wait)
        if records is None and not held:
            idle = time.monotonic() - idle_since
            if until_caught_up and idle > IDLE_SECONDS and _caught_up(pipe, connection, idle):
                return
            continue
        if held and records is not None and records.epoch != held[0].epoch:
            held = []  # an older epoch: it comes again
        if records is not None:
            held.append(records)
        full = sum(map(len, held)) >= min(pace.records, pipe.session.fit.most or pace.records)
        if held and (full or time.monotonic() >= began + pace.seconds):
            began = time.monotonic()
            yield held
            held, idle_since = [], time.monotonic()


def _caught_up(pipe: TransactionalPipe, connection: Connection, idle_seconds: float) -> bool:
    """Whether the committed positions are at the end of every shared partition.

    A position may stand a marker or an aborted record before the end, which only waiting can tell from a slow
    broker.
    """
    from confluent_kafka import Consumer, TopicPartition

    positions = pipe.assigned
    if not positions:
        return False
    probe = Consumer(connection.settings(group_id="unused", isolation_level="read_committed"))
    try:
        ends = {
            source: probe.get_watermark_offsets(TopicPartition(*source), timeout=10, cached=False)[1]
            for source in positions
        }
    finally:
        probe.close()
    behind = max(ends[source] - position for source, position in positions.items())
    return behind <= 1 or idle_seconds > 5 * IDLE_SECONDS
