"""The share hop against a plain Faust app, in one run on one broker. The last line is one JSON object.

    python -m bench.bench_share [events]

1,000,000 events of 39 bytes (the framed value), 100,000 units, 10 admitted events each, one partition, one process,
exactly-once: the shipped `sluice share`, with ledger, keyed noise, mapping and dead-letter path. The events are written
in one open transaction, so that a `read_committed` worker sees all of them at the moment it commits: the producer costs
the measurement nothing. CPU is user + system of the worker's process from then to the last commit, after a warm-up of
50,000 events. The plain app (bench/plain_faust.py) gets 100,000 events, at-least-once; its clock runs from its
first output to its last.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.codec import CLOCK, Encoder
from schemas.contract import Contract, parse
from sluice.stack.home import Home
from sluice.stack.provision import Opened, open_contract
from sluice.stack.supervisor import Stack
from streams.kafka.clients import Connection

UNITS, SLOTS, WARM = 100_000, 10, 50_000
PLAIN_EVENTS = 100_000
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


def count(connection: Connection, topic: str) -> tuple[int, list[int]]:
    """Committed records of a topic, and their append times."""
    consumer = Consumer(
        connection.settings(
            group_id="count",
            isolation_level="read_committed",
            enable_partition_eof=True,
            enable_auto_commit=False,
        )
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    times: list[int] = []
    while True:
        for message in consumer.consume(50_000, 1.0):
            if message.error() is not None:
                consumer.close()
                return len(times), times
            times.append(message.timestamp()[1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_share(stack: Stack, folder: Path, total: int) -> dict[str, Any]:
    file = folder / "bench.yaml"
    file.write_text(CONTRACT)
    contract = parse(CONTRACT)
    admin = stack.connection("admin")
    opened = open_contract(contract, admin)
    raw, reader = Raw(admin, contract, opened), Reader(admin, f"share.{contract.contract}")
    topic = contract.topics.raw
    command = [sys.executable, "-m", "sluice.cli.main", "share", str(file), "--home", str(stack.home.path)]
    worker = subprocess.Popen(command, stderr=(folder / "share.log").open("wb"))
    try:
        with raw.transaction():
            raw.clock()
            raw.write(events(np.arange(UNITS, UNITS + WARM), np.zeros(WARM, np.int64), 99))
        reader.wait(topic, WARM + 1, worker)
        with raw.transaction():
            for batch in batches(total):
                raw.write(batch)
            time.sleep(1.0)
            used, began = cpu_seconds(worker.pid), time.perf_counter()
        reader.wait(topic, reader.end(topic) - 1, worker)
        wall, used = time.perf_counter() - began, cpu_seconds(worker.pid) - used
        memory = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    assert raw.sizes == {39}, raw.sizes
    shared, _ = count(admin, contract.topics.shared)
    assert shared == total + WARM, f"{shared} shared of {total + WARM}"
    return {
        "events_per_s": round(total / wall),
        "cpu_s_per_million": round(used / total * 1e6, 3),
        "rss_mb": round(memory / 1e6),
    }


def run_plain(stack: Stack, folder: Path) -> float:
    contract = parse(CONTRACT.replace("bench.passes", "bench.plain"))
    admin = stack.connection("admin")
    opened = open_contract(contract, admin)
    raw = Raw(admin, contract, opened)
    with raw.transaction():
        for batch in batches(PLAIN_EVENTS):
            raw.write(batch)
    (folder / "raw.avsc").write_text(json.dumps(contract.raw_schema))
    (folder / "shared.avsc").write_text(json.dumps(contract.shared_schema))
    reader = Reader(admin, "plain-faust-watch")
    arguments = [
        admin.bootstrap,
        "admin",
        str(stack.home.path / "secrets" / "admin"),
        contract.topics.raw,
        contract.topics.shared,
        str(folder / "raw.avsc"),
        str(folder / "shared.avsc"),
        str(opened.schema_ids[f"{contract.topics.shared}-value"]),
    ]
    app = subprocess.Popen(
        [sys.executable, "-m", "bench.plain_faust", *arguments],
        stderr=(folder / "plain.log").open("wb"),
        cwd=folder,
    )
    try:
        deadline = time.monotonic() + 180
        while reader.end(contract.topics.shared) < PLAIN_EVENTS:
            if app.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the plain app ended early: " + (folder / "plain.log").read_text()[-2000:])
            time.sleep(0.2)
    finally:
        app.send_signal(signal.SIGTERM)
        try:
            app.wait(10)
        except subprocess.TimeoutExpired:
            app.kill()
            app.wait()
    found, times = count(admin, contract.topics.shared)
    return found / ((max(times) - min(times)) / 1000)


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else UNITS * SLOTS
    os.environ["PYTHONPATH"] = str(Path.cwd())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = Stack(Home(folder / "home"))
        stack.start()
        try:
            found = run_share(stack, folder, total)
            print(f"share: {found}", flush=True)
            plain = run_plain(stack, folder)
        finally:
            stack.stop()
    ratio = found["events_per_s"] / plain
    print(json.dumps({**found, "plain_faust_events_per_s": round(plain), "ratio": round(ratio, 1)}))


if __name__ == "__main__":
    main()
