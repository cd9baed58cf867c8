"""How large a batch is: all that came meanwhile, and never more than memory allows."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.agents.pipe import Batch, Pipe
from streams.kafka.records import Output, Records, Result
from streams.kafka.transaction import TransactionalPipe, Tuning
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read, send, values
from tests.integration.test_transaction import Counting, name, payload

__all__ = ["name"]  # the fixture

MB = 1 << 20


def test_what_comes_while_nobody_asks_is_one_batch(stack: RunningStack, name: str) -> None:
    worker = Counting(stack.admin, name)
    with worker.pipe:
        send(stack.admin, f"{name}.in", payload(0, 1))
        worker.until(1)
        for first in range(1, 301, 60):
            send(stack.admin, f"{name}.in", payload(first, first + 60))
            time.sleep(0.2)
        time.sleep(1)
        worker.until(301)
    assert [len(records) for records in worker.seen] == [1, 300]


def test_long_records_make_a_batch_of_bounded_bytes(stack: RunningStack, name: str) -> None:
    """14,000 records of a megabyte would be 14 GB; a batch is 16 MB, and one fetch more."""
    send(stack.admin, f"{name}.in", (bytes([row]) * 900_000 for row in range(70)))
    worker = Counting(stack.admin, name, tuning=Tuning())
    found: list[Records] = []
    with worker.pipe:
        deadline = time.monotonic() + 60
        while sum(map(len, found)) < 70:
            assert time.monotonic() < deadline
            if not found:
                time.sleep(3)  # all 63 MB could have come
            records = worker.pipe.next(1)
            if records is not None:
                found.append(records)
    first = sum(len(value or b"") for value in found[0].values)
    assert 0 < first < 32 * MB
    assert [value[0] for records in found for value in records.values if value] == list(range(70))


class Echo:
    """A Pipe whose results are the records, and whose commits take as long as one says."""

    def __init__(self, kafka: TransactionalPipe, topic: str) -> None:
        self.batches: list[int] = []

        async def deliver(batch: Batch[Records]) -> None:
            self.batches.append(len(batch.records))
            batch.finish(Result([Output(topic, 0, batch.records.values)]))

        self.pipe: Pipe[Records] = Pipe(kafka, lambda records: records, deliver)


def test_what_comes_during_a_transaction_is_the_next_one(
    stack: RunningStack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that waited behind its own commit would be small, and each small batch one more transaction's wait."""
    kafka = TransactionalPipe(
        stack.admin, group=f"g.{name}", topics=[f"{name}.in"], transactional_id=f"t.{name}"
    )
    writer: Any = kafka._writer._producer
    commit = writer.commit

    def slow() -> None:
        time.sleep(0.5)
        commit()

    monkeypatch.setattr(writer, "commit", slow)

    async def run() -> list[int]:
        echo = Echo(kafka, f"{name}.out")
        await echo.pipe.start()
        producer = Producer(stack.admin.settings(linger_ms=0))
        for row in range(200):  # for 4 s
            producer.produce(f"{name}.in", f"v{row}".encode(), partition=0)
            producer.poll(0)
            await asyncio.sleep(0.02)
        producer.flush(10)
        deadline = time.monotonic() + 30
        while sum(echo.batches) < 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await echo.pipe.stop()
        return echo.batches

    batches = asyncio.run(run())
    assert values(read(stack.admin, f"{name}.out")) == payload(0, 200)
    assert len(batches) <= 14, batches
