"""A consumer that gave its partitions up and never asks for them again, or that fetches no more, must not stand still
for ever.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.kafka import reader, stable
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read, send, values
from tests.integration.test_transaction import Counting, counting, expected, name, payload

__all__ = ["name"]  # the fixture


class Deaf:
    """A consumer that nobody polls: as one whose client has forgotten to join."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.closed = False

    def poll(self, timeout: float) -> None:
        return None

    def close(self) -> None:
        self.closed = True
        self._consumer.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class Stranded(Deaf):
    """A member in good standing to whom nothing comes: as one whose partition lies with a broker that is gone."""

    def poll(self, timeout: float) -> None:
        self._consumer.poll(timeout)

    def consume(self, most: int, timeout: float) -> list[Any]:
        self._consumer.consume(most, timeout)
        return []


def test_a_consumer_that_fetches_no_more_is_built_anew(
    stack: RunningStack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stable, "STRANDED_LOOKS", 2)
    monkeypatch.setattr(stable, "STRANDED_SECONDS", 0.0)
    send(stack.admin, f"{name}.in", payload(0, 1000))
    with counting(stack.admin, name) as worker:
        worker.until(1000)
        found = worker.pipe._reader
        stranded = found._consumer = Stranded(found._consumer)  # type: ignore[assignment]
        send(stack.admin, f"{name}.in", payload(1000, 2000))
        worker.until(2000)
        assert stranded.closed
    assert values(read(stack.admin, f"{name}.out")) == expected(0, 2000)


def test_a_consumer_with_nothing_to_read_is_kept(
    stack: RunningStack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An aborted transaction makes the log grow, and no record comes of it."""
    monkeypatch.setattr(stable, "STRANDED_LOOKS", 2)
    monkeypatch.setattr(stable, "STRANDED_SECONDS", 0.0)
    send(stack.admin, f"{name}.in", payload(0, 1000))
    with counting(stack.admin, name) as worker:
        worker.until(1000)
        kept = worker.pipe._reader._consumer
        producer = Producer(stack.admin.settings(transactional_id=f"t.{name}"))
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(f"{name}.in", b"never")
        producer.flush(10)
        producer.abort_transaction(20)
        end = time.monotonic() + 6.0
        while time.monotonic() < end:
            worker.step()
        assert worker.pipe._reader._consumer is kept


def test_a_consumer_that_never_joins_again_is_built_anew(
    stack: RunningStack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "AWAY_SECONDS", 2.0)
    send(stack.admin, f"{name}.in", payload(0, 1000))
    with counting(stack.admin, name) as worker:
        worker.until(1000)
        found = worker.pipe._reader
        real = found._consumer
        deaf = found._consumer = Deaf(real)  # type: ignore[assignment]
        found._on_revoke(real, [])
        send(stack.admin, f"{name}.in", payload(1000, 2000))
        worker.until(2000)
        assert deaf.closed
    assert values(read(stack.admin, f"{name}.out")) == expected(0, 2000)


def test_a_worker_without_partitions_keeps_its_consumer(
    stack: RunningStack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "AWAY_SECONDS", 3.0)
    workers = [Counting(stack.admin, name, slot=slot) for slot in range(2)]
    with workers[0].pipe, workers[1].pipe:
        deadline = time.monotonic() + 40
        while sum(len(worker.pipe.assigned) for worker in workers) < 1 or any(
            worker.pipe._reader._away_since is not None for worker in workers
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        consumers = [worker.pipe._reader._consumer for worker in workers]
        time.sleep(5)
        assert [worker.pipe._reader._consumer for worker in workers] == consumers
