"""Where the pipe could stand still and look alive: a pause that is forgotten, a refusal for ever, a shared slot."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from schemas.errors import FatalError
from streams.kafka.records import Source
from streams.kafka.restore import _UnansweredError
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import end, make_topics, read, send, unique, values
from tests.integration.test_transaction import Counting, counting, expected, name, payload

__all__ = ["name"]  # the fixture


def test_a_reset_of_a_paused_partition_goes_on(stack: RunningStack, name: str) -> None:
    send(stack.admin, f"{name}.in", payload(0, 5000))
    with counting(stack.admin, name) as worker:
        deadline = time.monotonic() + 30
        while not worker.pipe._reader._paused:  # nobody takes what it fetches
            assert time.monotonic() < deadline
            time.sleep(0.1)
        worker.pipe.restart("test")
        worker.until(5000, seconds=30)
    assert values(read(stack.admin, f"{name}.out")) == expected(0, 5000)


def test_what_the_broker_never_takes_ends_the_worker(stack: RunningStack, name: str) -> None:
    resource = ConfigResource(
        ResourceType.TOPIC,
        f"{name}.out",
        incremental_configs=[
            ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
        ],
    )
    admin = AdminClient(stack.admin.settings())
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
    send(stack.admin, f"{name}.in", [b"x" * 5000])
    with counting(stack.admin, name) as worker, pytest.raises(FatalError, match="does not take"):
        worker.until(1, seconds=30)
    assert values(read(stack.admin, f"{name}.out")) == []


def test_a_record_as_long_as_the_broker_takes_goes_through(stack: RunningStack, name: str) -> None:
    """The client's own limit is lower than the broker's: a raw record between them would never be a dead letter."""
    long = b"x" * 1_040_000
    producer = Producer(stack.admin.settings(message_max_bytes=4 << 20))
    producer.produce(f"{name}.in", long, partition=0)
    assert producer.flush(30) == 0
    with counting(stack.admin, name) as worker:
        worker.until(1, seconds=30)
    assert values(read(stack.admin, f"{name}.out")) == [b"0:" + long]


def test_two_processes_of_one_slot_do_not_fence_each_other_for_ever(stack: RunningStack) -> None:
    name = unique("tx")
    make_topics(stack.admin, f"{name}.in", f"{name}.out")
    make_topics(stack.admin, f"{name}.log", compacted=True)
    send(stack.admin, f"{name}.in", payload(0, 2000))
    done, errors = threading.Event(), []

    def work(worker: Counting) -> None:
        try:
            with worker.pipe:
                while not done.is_set():
                    worker.step(0.1)
        except FatalError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(Counting(stack.admin, name),)) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(1)
        deadline = time.monotonic() + 60
        while not errors:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        send(stack.admin, f"{name}.in", payload(2000, 3000))
        while not errors[1:] and end(stack.admin, f"{name}.out", stable=True) < 3000:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert "the same slot" in str(errors[0])
    found = values(read(stack.admin, f"{name}.out"))
    assert found == expected(0, len(found))


def test_a_restore_that_gets_no_answer_begins_anew_with_all_partitions(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One partition runs already when the other's ends cannot be read: its state must not be replaced under it."""
    name = unique("unanswered")
    make_topics(stack.admin, f"{name}.in", f"{name}.out", partitions=2)
    make_topics(stack.admin, f"{name}.log", partitions=2, compacted=True)
    for partition in (0, 1):
        send(stack.admin, f"{name}.in", payload(0, 3000), partition)
    worker = Counting(stack.admin, name)
    restorer: Any = worker.pipe._restorer
    start = restorer._start
    failed: list[Source] = []

    def unanswered(probing: Any, source: Source, *more: Any) -> int:
        if source.partition == 1 and not failed:
            failed.append(source)
            deadline = time.monotonic() + 20
            while worker.pipe.session.positions.get(Source(f"{name}.in", 0), 0) < 1000:  # it runs
                assert time.monotonic() < deadline
                time.sleep(0.01)
            raise _UnansweredError
        return int(start(probing, source, *more))

    monkeypatch.setattr(restorer, "_start", unanswered)
    with worker.pipe:
        worker.until(6000, seconds=60)
        assert failed
        assert worker.pipe.session.epoch > 1  # the one of the assignment is over
    for partition in (0, 1):
        assert values(read(stack.admin, f"{name}.out", partition)) == expected(0, 3000)
