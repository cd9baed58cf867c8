"""Where the share hop's time goes: each part of it alone, on one broker. The last line is one JSON object.

    python -m bench.limits [events]

The events of bench/passes.py (39 bytes, 100,000 units). Per part: events a second where it is a rate of its own,
CPU s per million of this process, and of the broker where it takes part. `hop` is what happens between consumer and
producer, without Kafka; the sum of the parts is less than the worker's CPU, which also pays for threads that wait for
each other.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from bench.passes import CONTRACT, DAY_MS, START_MS, UNITS, Raw, batches, cpu_seconds
from schemas.codec import CLOCK, Decoder, Encoder
from schemas.contract import Contract, parse
from sluice.stack.home import Home
from sluice.stack.provision import Opened, open_contract
from sluice.stack.supervisor import Stack
from streams.agents.hop import Hop
from streams.agents.partition import PartitionState
from streams.kafka.producer import Recyclable
from streams.kafka.records import Message, Output, Packed, Records, Source
from streams.kafka.session import Tuning
from streams.kafka.watchdog import Watchdog
from streams.privacy.keys import KeyChain
from streams.privacy.plan import Plan

BATCH = Tuning().batch_records
Figures = dict[str, float]


def timed(events: int, work: Callable[[], None], broker: int | None = None) -> Figures:
    wall, own = time.perf_counter(), time.process_time()
    theirs = cpu_seconds(broker) if broker else 0.0
    work()
    wall, own = time.perf_counter() - wall, time.process_time() - own
    found = {"events_per_s": round(events / wall), "cpu_s_per_million": round(own / events * 1e6, 3)}
    if broker:
        found["broker_cpu_s_per_million"] = round((cpu_seconds(broker) - theirs) / events * 1e6, 3)
    return found


def consumed(stack: Stack, contract: Contract, group: str, use: Callable[[Sequence[Message]], None]) -> None:
    """Every record of the raw topic, in batches like the worker's."""
    consumer = Consumer(
        stack.connection("admin").settings(
            group_id=group,
            isolation_level="read_committed",
            enable_partition_eof=True,
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=32 << 20,
            queued_max_messages_kbytes=8 << 10,
            queued_min_messages=BATCH,
            fetch_queue_backoff_ms=10,
        )
    )
    consumer.assign([TopicPartition(contract.topics.raw, 0, 0)])
    while True:
        messages = consumer.consume(BATCH, 0.1)
        good: list[Any] = [message for message in messages if message.error() is None]
        use(good)
        if len(good) < len(messages):  # the end of the partition
            break
    consumer.close()


def produced(stack: Stack, contract: Contract, output: Output, transactions: int) -> None:
    producer = Recyclable(stack.connection("admin"), "bench.limits", threading.Event(), Watchdog(), Tuning())
    producer.recycle()
    for _ in range(transactions):
        producer.begin()
        producer.produce(output)
        producer.flush()
        producer.commit()
    producer.close()


class Event:
    """A message that is not from Kafka."""

    __slots__ = ("_key", "_offset", "_value")

    def __init__(self, value: bytes, key: bytes | None, offset: int) -> None:
        self._value, self._key, self._offset = value, key, offset

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 0, 0

    def headers(self) -> None:
        return None


def hopped(contract: Contract, opened: Opened, folder: Path, total: int) -> Iterator[tuple[str, Figures]]:
    """Decode, and share with map and encode, of batches that lie in memory."""
    raw_id, shared_id = (
        opened.schema_ids[f"{topic}-value"] for topic in (contract.topics.raw, contract.topics.shared)
    )
    clock_id = opened.schema_ids["sluice.clock"]
    column = pa.array([START_MS + DAY_MS // 2]).cast(pa.timestamp("ms", "UTC"))
    (clock,) = Encoder(clock_id, CLOCK).encode(pa.RecordBatch.from_arrays([column], names=["clock_ms"]))
    found: list[Message] = [Event(clock, None, 0)]
    encoder = Encoder(raw_id, contract.raw_schema)
    for batch in batches(total):
        for key, value in zip(batch.column("site").to_pylist(), encoder.encode(batch), strict=True):
            found.append(Event(value, key.encode(), len(found)))
    hop = Hop(
        contract,
        Plan.of(contract),
        KeyChain.open(folder, contract, START_MS),
        Decoder({raw_id: contract.raw_schema}, clock_id),
        Encoder(shared_id, contract.shared_schema),
    )
    source, state = Source(contract.topics.raw, 0), PartitionState()
    parts = [
        Records(source, found[at : at + BATCH], start=at, next=min(at + BATCH, len(found)))
        for at in range(0, len(found), BATCH)
    ]
    decoded: list[Any] = []
    yield "decode", timed(total, lambda: decoded.extend(map(hop.decode, parts)))
    results: list[Any] = []
    yield (
        "share_map_encode",
        timed(total, lambda: results.extend(hop.share(batch, state) for batch in decoded)),
    )
    assert sum(len(output.values) for result in results for output in result.outputs) == total


def _drop(messages: Sequence[Message]) -> None:
    """Only fetched, and made into objects."""


def _look(messages: Sequence[Message]) -> None:
    for message in messages:
        message.value()
        message.key()


def main() -> None:
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)  # as the worker does
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10 * UNITS
    contract = parse(CONTRACT)
    figures: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as name:
        stack = Stack(Home(Path(name) / "home"))
        stack.start()
        try:
            assert stack.broker.process is not None
            broker = stack.broker.process.pid
            opened = open_contract(contract, stack.connection("admin"))
            raw = Raw(stack.connection("admin"), contract, opened)
            with raw.transaction():
                for batch in batches(total):
                    raw.write(batch)
            for words, use in (("consume", _drop), ("consume_and_look", _look)):
                figures[words] = timed(total, partial(consumed, stack, contract, words, use), broker)
            strings = [b"%030d" % number for number in range(BATCH)]
            values, keys = (
                pa.array(strings, pa.binary()),
                pa.array([one[-14:] for one in strings], pa.binary()),
            )
            rounds = -(-total // BATCH)
            for words, output in (
                ("produce_packed", Output(contract.topics.shared, 0, Packed.of(values), Packed.of(keys))),
                ("produce_one_by_one", Output(contract.topics.shared, 0, strings, keys.to_pylist())),
            ):
                work = partial(produced, stack, contract, output, rounds)
                figures[words] = timed(rounds * BATCH, work, broker)
        finally:
            stack.stop()
        figures |= dict(hopped(contract, opened, Path(name), total))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
