"""The events of the benches: 39 bytes (the framed value), 100,000 units, 10 admitted events each; who writes them, and
who looks at positions from outside.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.codec import CLOCK, Encoder
from schemas.contract import Contract
from sluice.stack.provision import Opened
from streams.kafka.clients import Connection

UNITS, SLOTS = 100_000, 10
DAY_MS, GRID_MS = 86_400_000, 60_000
START_MS = 16_804 * DAY_MS
CONTRACT = """
contract: bench.passes
version: 1.0.0
owner: did:web:bench.example
about: One card's passes of a site, one record a minute at most
source: {kind: csv, path: none.csv}
event:
  key: site
  time: {field: at, format: epoch_ms}
  fields:
    card: {type: string}
    at: {type: timestamp}
    site: {type: string}
    amount: {type: int}
privacy:
  protects: person
  epoch: {length: day, from: 2016-01-01}
  epsilon: 10
  contribution: {max: 10, of: [at], held_by: ledger}
  unit: [card]
  fields:
    card: drop
    at: {time: 1min}
    site: {public: {because: bench}}
    amount: {count: {min: 0, max: 1000, per_unit: 1000}}
shares:
  map: {site: site, dateObserved: at, intensity: {from: amount, scale: 0.1}}
terms: {purpose: [bench], for: 1d}
"""


def events(units: np.ndarray, slots: np.ndarray, seed: int) -> pa.RecordBatch:
    """One row a unit and slot."""
    rng = np.random.default_rng(seed)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"u-{unit:07d}" for unit in units.tolist()]),
            pa.array(START_MS + slots * GRID_MS).cast(pa.timestamp("ms", "UTC")),
            pa.array([f"station-{site:06d}" for site in rng.integers(0, 1000, len(units)).tolist()]),
            pa.array(rng.integers(64, 1000, len(units))),
        ],
        names=["card", "at", "site", "amount"],
    )


def batches(count: int) -> Iterator[pa.RecordBatch]:
    """Each unit once in each of ten slots, in random order within a slot."""
    rng = np.random.default_rng(7)
    for slot in range(SLOTS):
        order = rng.permutation(UNITS)[: max(0, min(UNITS, count - slot * UNITS))]
        if len(order):
            yield events(order, np.full(len(order), slot), slot)


class Raw:
    """Writes the raw topic in transactions that end when told."""

    def __init__(self, admin: Connection, contract: Contract, opened: Opened) -> None:
        self._topic = contract.topics.raw
        self._encoder = Encoder(opened.schema_ids[f"{contract.topics.raw}-value"], contract.raw_schema)
        self._clock = Encoder(opened.schema_ids["sluice.clock"], CLOCK)
        self._producer = Producer(
            admin.settings(
                transactional_id="bench.raw",
                transaction_timeout_ms=300_000,
                linger_ms=50,
                queue_buffering_max_messages=2_000_000,
            )
        )
        self._producer.init_transactions(30)
        self.sizes: set[int] = set()

    def write(self, batch: pa.RecordBatch) -> None:
        values = self._encoder.encode(batch)
        self.sizes |= set(map(len, values))
        for key, value in zip(batch.column("site").to_pylist(), values, strict=True):
            self._producer.produce(self._topic, value, key, 0)
        assert self._producer.flush(120) == 0

    def clock(self) -> None:
        column = pa.array([START_MS + DAY_MS // 2]).cast(pa.timestamp("ms", "UTC"))
        (value,) = self._clock.encode(pa.RecordBatch.from_arrays([column], names=["clock_ms"]))
        self._producer.produce(self._topic, value, None, 0)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._producer.begin_transaction()
        yield
        self._producer.commit_transaction(60)


class Reader:
    """Looks at positions from outside."""

    def __init__(self, admin: Connection, group: str) -> None:
        self._consumer = Consumer(admin.settings(group_id=group, isolation_level="read_committed"))
        self._all = Consumer(admin.settings(group_id=group, isolation_level="read_uncommitted"))

    def committed(self, topic: str) -> int:
        return int(self._consumer.committed([TopicPartition(topic, 0)], timeout=30)[0].offset)

    def end(self, topic: str) -> int:
        """Of the log, open transactions included."""
        return int(self._all.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1])

    def wait(self, topic: str, offset: int, process: subprocess.Popen[bytes], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while self.committed(topic) < offset:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the worker did not share what it was given")
            time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
