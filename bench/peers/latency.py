"""How long a record takes from its append in raw until a `read_committed` reader of the output has it.

5,000 events/s, evenly, for 22 s; the first two do not count. The first time is the broker's append time of the raw
record (whole milliseconds, rounded down: up to 1 ms against the engine), the second the reader's clock at the return of
the call that brought it; both clocks are this machine's. The n-th record of one is the n-th of the other, as their keys
show.
"""

from __future__ import annotations

import threading
import time

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from bench.passes import UNITS, events
from bench.peers.arena import (
    Arena,
    Engine,
    FailedError,
    Feed,
    Run,
    Task,
    Watch,
    committed_records,
    running,
)

RATE, SECONDS, AHEAD_SECONDS = 5_000, 20, 2
TICK_SECONDS = 0.005
START_SECONDS, LATE_SECONDS = 120.0, 30.0


class Listener(threading.Thread):
    """Reads the output as a subscriber does, and looks at the clock."""

    def __init__(self, task: Task, wanted: int) -> None:
        super().__init__(name="listener", daemon=True)
        settings = {"isolation_level": "read_committed", "enable_auto_commit": False}
        self._consumer = Consumer(task.admin.settings(group_id="listener", **settings))
        at = TopicPartition(task.contract.topics.shared, 0)
        at.offset = self._consumer.get_watermark_offsets(at, timeout=30)[1]
        self._consumer.assign([at])
        self._wanted = wanted
        self.keys: list[bytes | None] = []
        self.at_ms: list[float] = []
        self.stopping = False

    def run(self) -> None:
        while len(self.keys) < self._wanted and not self.stopping:
            first = self._consumer.poll(0.2)
            if first is None or first.error() is not None:
                continue
            messages = [first, *self._consumer.consume(10_000, 0)]
            now = time.time() * 1000
            keys = [message.key() for message in messages if message.error() is None]
            self.keys += keys
            self.at_ms += [now] * len(keys)
        self._consumer.close()


def latency(arena: Arena, engine: Engine, name: str) -> dict[str, float]:
    """p50 and p99 in ms, and how long the engine's transactions lasted. Raises FailedError or UnavailableError."""
    task = arena.open(f"{name}_latency", partitions=1)
    watch = Watch(task)
    total = RATE * (AHEAD_SECONDS + SECONDS)
    try:
        with running(engine, task) as run:
            _warm(arena, engine, task, watch, run)
            outputs = watch.outputs()
            listener = Listener(task, total)
            listener.start()
            _pace(Feed(task, arena.size, linger_ms=0), task, total)
            listener.join(LATE_SECONDS)
            listener.stopping = True
            listener.join()
            if len(listener.keys) != total:
                raise FailedError(f"{engine.title} shared {len(listener.keys)} records of {total} in time")
            transactions = watch.outputs() - outputs - total
    finally:
        watch.close()
    raw = committed_records(task, task.contract.topics.raw)[-total:]
    if [key for key, _, _ in raw] != listener.keys:
        raise FailedError(f"{engine.title} shared other records, or in another order, than it was given")
    late = np.array(listener.at_ms) - np.array([append for _, append, _ in raw])
    late = late[RATE * AHEAD_SECONDS :]
    return {
        "p50_ms": round(float(np.percentile(late, 50)), 1),
        "p99_ms": round(float(np.percentile(late, 99)), 1),
        "max_ms": round(float(late.max()), 1),
        "commit_interval_ms": round(1000 * (AHEAD_SECONDS + SECONDS) / max(1, transactions), 1),
    }


def _warm(arena: Arena, engine: Engine, task: Task, watch: Watch, run: Run) -> None:
    feed = Feed(task, arena.size, transactional_id="bench.raw", transaction_timeout_ms=300_000)
    feed.producer.init_transactions(30)
    with feed.transaction():
        if engine.clocked:
            feed.clocks()
        feed.warm(engine.warm)
        ends = watch.ends()
    run.wait(lambda: watch.done(ends), START_SECONDS)


def _pace(feed: Feed, task: Task, total: int) -> None:
    """Even steps of 5 ms; one that comes late is made up for."""
    ready = list(feed.values(events(np.arange(total) % UNITS, np.arange(total) // UNITS, 3)))
    topic, step = task.contract.topics.raw, round(RATE * TICK_SECONDS)
    began = time.perf_counter()
    for first in range(0, total, step):
        if (rest := began + first / RATE - time.perf_counter()) > 0:
            time.sleep(rest)
        for value, key, partition in ready[first : first + step]:
            feed.producer.produce(topic, value, key, partition)
        feed.producer.poll(0)
    assert feed.producer.flush(30) == 0
