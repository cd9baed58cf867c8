"""One broker, one contract per engine, the same events: where the engines meet.

Input is written in one open transaction, so that it becomes visible at one moment and costs the measurement nothing.
The clock runs from that commit until the engine's last output is committed: for an engine with transactions when its
group's committed offsets (a part of the transaction) reach the end of the input, else when a `read_committed` reader of
the output may see as many records. Both are looked at every 20 ms.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from bench.passes import CONTRACT, DAY_MS, START_MS, UNITS, batches, cpu_seconds, events
from bench.peers import content
from schemas.codec import CLOCK, Encoder
from schemas.contract import Contract, parse
from schemas.partition import partition as home_of
from schemas.partition import unit_bytes
from sluice.stack import leash
from sluice.stack.provision import Opened, open_contract
from sluice.stack.supervisor import Stack
from streams.kafka.clients import Connection

SIZES: dict[int, list[int]] = {
    39: [],
    400: [87, 87, 87, 88],
}  # bytes of an event; letters of the fields that fill it
LOOK_SECONDS = 0.02
LATER = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.NOT_COORDINATOR}
START_SECONDS, LEAST_PER_S = 120.0, 1_500


class FailedError(Exception):
    """The engine did not share what it was given; the text says how it ended."""


class UnavailableError(Exception):
    """The engine cannot be had on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine has to know. `folder` is its own, and may hold secrets."""

    contract: Contract
    contract_file: Path
    opened: Opened
    admin: Connection
    home: Path
    folder: Path
    partitions: int
    codec: str

    @property
    def group(self) -> str:
        return f"share.{self.contract.contract}"

    @property
    def raw_id(self) -> int:
        return self.opened.schema_ids[f"{self.contract.topics.raw}-value"]

    @property
    def shared_id(self) -> int:
        return self.opened.schema_ids[f"{self.contract.topics.shared}-value"]


@dataclass(frozen=True, slots=True)
class Engine:
    """One that competes. `command` prepares it and says how it is started; raises UnavailableError.

    `clocked`: it wants clock records in its input. `transactions`: its group's offsets are a part of its transactions.
    `most`: what it gets at most, that a slow one does not take minutes. `late`: it starts when the input is there, and
    its clock runs from its first output to its last (by append time): Faust also
    reads what is not committed yet.
    """

    name: str
    title: str
    command: Callable[[Task], list[str]]
    delivery: str
    transactions: bool = False
    most: int = 1_000_000
    warm: int = 50_000
    late: bool = False
    clocked: bool = False


def contract_of(name: str, size: int, partitions: int) -> tuple[Contract, str]:
    """The contract of bench/passes.py under another name, with partitions, and for 400 bytes with fields that it drops.

    More than one partition ask for a unit that the key is a part of: a card at a site. A card then has one site (see
    Feed), so that there are as many units as with one partition.
    """
    notes = [f"note{i}" for i in range(len(SIZES[size]))]
    text = CONTRACT.replace("bench.passes", f"bench.{name.replace('_', '-')}")
    text = text.replace("privacy:\n", f"partitions: {partitions}\nprivacy:\n", 1)
    if partitions > 1:
        text = text.replace("unit: [card]", "unit: [card, site]", 1)
    amount, rule = "    amount: {type: int}\n", "    amount: {count"
    text = text.replace(amount, amount + "".join(f"    {note}: {{type: string}}\n" for note in notes))
    text = text.replace(rule, "".join(f"    {note}: drop\n" for note in notes) + rule)
    return parse(text), text


def filled(batch: pa.RecordBatch, size: int) -> pa.RecordBatch:
    """With the fields that make an event `size` bytes long."""
    rng = np.random.default_rng(5)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz012345", np.uint8)
    for i, length in enumerate(SIZES[size]):
        pool = [letters[rng.integers(0, 32, length)].tobytes().decode() for _ in range(1000)]
        rows = rng.integers(0, len(pool), batch.num_rows).tolist()
        batch = batch.append_column(f"note{i}", pa.array([pool[row] for row in rows]))
    return batch


def at_home(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Each card at one site, that of its last three digits."""
    digits = pc.utf8_slice_codeunits(batch.column("card"), 6, 9)
    sites = pc.binary_join_element_wise("station-000", digits, "")
    return batch.set_column(batch.schema.names.index("site"), "site", sites)


class Feed:
    """Writes raw topics. Each event goes to the partition of its unit, where our worker wants it. `written`: what."""

    def __init__(self, task: Task, size: int, **settings: Any) -> None:
        self._task, self._size = task, size
        self.written: list[pa.RecordBatch] = []
        self._encoder = Encoder(task.raw_id, task.contract.raw_schema)
        self._clock = Encoder(task.opened.schema_ids["sluice.clock"], CLOCK)
        self.producer = Producer(
            task.admin.settings(**{"linger_ms": 50, "queue_buffering_max_messages": 2_000_000, **settings})
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.producer.begin_transaction()
        yield
        self.producer.commit_transaction(60)

    def values(self, batch: pa.RecordBatch) -> Iterator[tuple[bytes, str, int]]:
        """Value, key, partition. Raises AssertionError where the size is not what was asked for."""
        count = self._task.partitions
        batch = at_home(batch) if count > 1 else batch
        self.written.append(batch.select(["site", "at"]))
        values = self._encoder.encode(filled(batch, self._size))
        assert set(map(len, values)) == {self._size}, set(map(len, values))
        cards, sites = batch.column("card"), batch.column("site").to_pylist()
        for card, site, value in zip(cards.to_pylist(), sites, values, strict=True):
            yield value, site, home_of(unit_bytes([card, site]), count) if count > 1 else 0

    def write(self, batch: pa.RecordBatch) -> None:
        topic, produce = self._task.contract.topics.raw, self.producer.produce
        for value, site, partition in self.values(batch):
            produce(topic, value, site, partition)
        assert self.producer.flush(120) == 0

    def clocks(self) -> None:
        """A record for each partition that says what time it is: our worker admits nothing before."""
        column = pa.array([START_MS + DAY_MS // 2]).cast(pa.timestamp("ms", "UTC"))
        (value,) = self._clock.encode(pa.RecordBatch.from_arrays([column], names=["clock_ms"]))
        for partition in range(self._task.partitions):
            self.producer.produce(self._task.contract.topics.raw, value, None, partition)

    def warm(self, count: int) -> None:
        """Events of units that come in no other batch."""
        for first in range(0, count, 50_000):
            units = np.arange(first, min(first + 50_000, count)) + UNITS
            self.write(events(units, np.zeros(len(units), np.int64), 99 + first))


class Watch:
    """Looks at positions from outside."""

    def __init__(self, task: Task) -> None:
        def client(level: str) -> Consumer:
            return Consumer(task.admin.settings(group_id=task.group, isolation_level=level))

        self._task = task
        self._committed, self._all = client("read_committed"), client("read_uncommitted")

    def ends(self) -> list[int]:
        """Of the input, open transactions included."""
        return [
            int(self._all.get_watermark_offsets(each, timeout=30)[1])
            for each in self._parts(self._task.contract.topics.raw)
        ]

    def outputs(self) -> int:
        """What a `read_committed` reader may see; markers of transactions count too."""
        return sum(
            int(self._committed.get_watermark_offsets(each, timeout=30)[1])
            for each in self._parts(self._task.contract.topics.shared)
        )

    def done(self, ends: Sequence[int]) -> bool:
        """Whether the group's committed offsets reached `ends`. A `read_committed` client would not be told while a
        transaction is being committed, and would ask again later than we look.
        """
        found = self._all.committed(self._parts(self._task.contract.topics.raw), timeout=30)
        return all(each.offset >= end for each, end in zip(found, ends, strict=True))

    def close(self) -> None:
        self._committed.close()
        self._all.close()

    def _parts(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in range(self._task.partitions)]


Record = tuple[bytes | None, int, bytes]


def committed_records(task: Task, topic: str) -> list[Record]:
    """Key, append time (ms) and value of every committed record, partition by partition."""
    settings = {
        "enable_partition_eof": True,
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
    }
    consumer = Consumer(task.admin.settings(group_id="count", **settings))
    found: list[list[Record]] = [[] for _ in range(task.partitions)]
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(task.partitions)])
    open_partitions = set(range(task.partitions))
    while open_partitions:
        for message in consumer.consume(50_000, 1.0):
            if message.error() is not None:
                open_partitions.discard(message.partition())
            else:
                record = message.key(), message.timestamp()[1], message.value() or b""
                found[message.partition() or 0].append(record)
    consumer.close()
    return [record for each in found for record in each]


class Arena:
    """The broker, and what all engines have in common."""

    def __init__(self, stack: Stack, folder: Path, size: int, partitions: int, codec: str) -> None:
        self._stack, self._folder = stack, folder
        self.size, self.partitions, self.codec = size, partitions, codec

    def open(self, name: str, partitions: int | None = None) -> Task:
        """Topics and schemas of an engine's own."""
        partitions = partitions or self.partitions
        folder = self._folder / name
        folder.mkdir(mode=0o700)
        contract, text = contract_of(name, self.size, partitions)
        file = folder / "contract.yaml"
        file.write_text(text)
        admin = self._stack.connection("admin")
        opened = open_contract(contract, admin)
        return Task(contract, file, opened, admin, self._stack.home.path, folder, partitions, self.codec)

    @property
    def broker_pid(self) -> int:
        assert self._stack.broker.process is not None
        return self._stack.broker.process.pid


class Run:
    """An engine's process; ended by its id, and by the kernel when the bench dies."""

    def __init__(self, engine: Engine, task: Task, command: list[str]) -> None:
        self._log = task.folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*leash.prefix(), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._title = engine.title

    def wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Raises FailedError where the process ends, or the time does."""
        deadline = time.monotonic() + seconds
        while not _answer(done):
            if self.process.poll() is not None:
                raise FailedError(f"{self._title} ended with {self.process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise FailedError(f"{self._title} was not done after {seconds:.0f} s: {self._last_words()}")
            time.sleep(LOOK_SECONDS)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _last_words(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").strip().splitlines()[-6:])[-1500:]


def _answer(done: Callable[[], bool]) -> bool:
    """A broker that has too much to do says so, and is asked again."""
    try:
        return done()
    except KafkaException as problem:
        if not problem.args[0].retriable() and problem.args[0].code() not in LATER:
            raise
        return False


@contextmanager
def running(engine: Engine, task: Task) -> Iterator[Run]:
    run = Run(engine, task, engine.command(task))
    try:
        yield run
    finally:
        run.end()


def throughput(arena: Arena, engine: Engine, total: int) -> dict[str, float]:
    """Events/s and CPU seconds per million, every output counted. Raises FailedError or UnavailableError."""
    total = min(total, engine.most)
    task = arena.open(engine.name)
    watch = Watch(task)
    feed = Feed(task, arena.size, transactional_id="bench.raw", transaction_timeout_ms=300_000)
    feed.producer.init_transactions(30)
    try:
        return (_late if engine.late else _punctual)(arena, engine, task, watch, feed, total)
    finally:
        watch.close()


def _punctual(
    arena: Arena, engine: Engine, task: Task, watch: Watch, feed: Feed, total: int
) -> dict[str, float]:
    seconds = START_SECONDS + total / LEAST_PER_S
    with running(engine, task) as run:
        ends: list[int] = []
        warm = min(engine.warm, total)
        with feed.transaction():
            if engine.clocked:
                feed.clocks()
            feed.warm(warm)
            ends = watch.ends()
        run.wait(lambda: watch.done(ends) if engine.transactions else watch.outputs() >= warm, seconds)
        with feed.transaction():
            for batch in batches(total):
                feed.write(batch)
            ends = watch.ends()
            time.sleep(1.0)
            used, broker = cpu_seconds(run.process.pid), cpu_seconds(arena.broker_pid)
            began = time.perf_counter()
        everything = warm + total
        run.wait(lambda: watch.done(ends) if engine.transactions else watch.outputs() >= everything, seconds)
        wall = time.perf_counter() - began
        used, broker = cpu_seconds(run.process.pid) - used, cpu_seconds(arena.broker_pid) - broker
    _check(engine, len(found := committed_records(task, task.contract.topics.shared)), everything)
    _check_content(engine, task, feed, found)
    return _figures(total, wall, used, broker)


def _late(arena: Arena, engine: Engine, task: Task, watch: Watch, feed: Feed, total: int) -> dict[str, float]:
    with feed.transaction():
        for batch in batches(total):
            feed.write(batch)
    with running(engine, task) as run:
        run.wait(lambda: watch.outputs() > 0, START_SECONDS)
        used, broker = cpu_seconds(run.process.pid), cpu_seconds(arena.broker_pid)
        run.wait(lambda: watch.outputs() >= total, START_SECONDS + total / LEAST_PER_S)
        used, broker = cpu_seconds(run.process.pid) - used, cpu_seconds(arena.broker_pid) - broker
    found = committed_records(task, task.contract.topics.shared)
    _check(engine, len(found), total)
    _check_content(engine, task, feed, found)
    times = [append for _, append, _ in found]
    return _figures(total, (max(times) - min(times)) / 1000, used, broker)


def _check(engine: Engine, found: int, wanted: int) -> None:
    if found != wanted:
        raise FailedError(f"{engine.title} shared {found} records of {wanted}")


def _check_content(engine: Engine, task: Task, feed: Feed, found: list[Record]) -> None:
    if problem := content.problem(task.shared_id, feed.written, [(key, value) for key, _, value in found]):
        raise FailedError(f"{engine.title} shared something else: {problem}")


def _figures(total: int, wall: float, used: float, broker: float) -> dict[str, float]:
    return {
        "events": total,
        "events_per_s": round(total / wall),
        "cpu_s_per_million": round(used / total * 1e6, 3),
        "broker_cpu_s_per_million": round(broker / total * 1e6, 3),
    }
