"""Planted tears: the partition stops and is named in time, the others go on, `doctor` repairs, nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from schemas.errors import TornError
from streams.kafka.clients import Connection
from streams.kafka.transaction import Source, Tuning
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import end, make_topics, read, send, unique, values
from tests.integration.share_help import ROOT
from tests.integration.test_transaction import Counting, expected, payload

TIMEOUT_SECONDS = 4.0
TUNING = Tuning(batch_records=500, transaction_timeout_ms=int(TIMEOUT_SECONDS * 1000))
KINDS = ("raw.v1", "shared.v1", "ledger.v1")
SLACK_SECONDS = 2.0  # a busy machine's


class Topics:
    """Named as a contract's: so `doctor` finds them. Two partitions."""

    def __init__(self, stack: RunningStack) -> None:
        self.admin, self.home = stack.admin, stack.home
        self.contract = unique("tear")
        self.raw, self.shared, self.dlq, self.ledger = (
            f"{self.contract}.{kind}.v1" for kind in ("raw", "shared", "dlq", "ledger")
        )
        make_topics(stack.admin, self.raw, self.shared, self.dlq, partitions=2)
        make_topics(stack.admin, self.ledger, partitions=2, compacted=True)

    def send(self, first: int, last: int) -> None:
        for partition in (0, 1):
            send(self.admin, self.raw, payload(first, last), partition)

    def worker(self) -> Counting:
        return Counting(self.admin, self.contract, tuning=TUNING, kinds=KINDS, group="share")

    def shared_values(self, partition: int) -> list[bytes]:
        return values(read(self.admin, self.shared, partition))


@pytest.fixture
def topics(stack: RunningStack) -> Topics:
    return Topics(stack)


@contextmanager
def hanging(connection: Connection, topic: str, partition: int) -> Iterator[tuple[str, float]]:
    """A transaction on this partition that nobody ends; its id, and when it began to hold its readers back."""
    identity = unique("hangs")
    producer = Producer(connection.settings(transactional_id=identity, transaction_timeout_ms=600_000))
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"never", b"never", partition)
    assert producer.flush(30) == 0
    yield identity, time.monotonic()


def rewind(topics: Topics, offset: int) -> None:
    """The group's offset of partition 0 is set past the worker's back, once its static member is gone."""
    admin = AdminClient(topics.admin.settings())
    wanted = ConsumerGroupTopicPartitions(f"share.{topics.contract}", [TopicPartition(topics.raw, 0, offset)])
    deadline = time.monotonic() + 30
    while True:
        with suppress(KafkaException):
            (answer,) = admin.alter_consumer_group_offsets([wanted]).values()
            if all(each.error is None for each in answer.result(10).topic_partitions):
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def doctor(topics: Topics, *options: str) -> tuple[int, Any]:
    """As a user runs it: exit code, and what --json says (None: an error)."""
    command = [sys.executable, "-m", "sluice.cli.main", "doctor", topics.contract, "--json", *options]
    environment = {**os.environ, "SLUICE_HOME": str(topics.home), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode in (0, 1, 3), run.stderr
    return run.returncode, json.loads(run.stdout) if run.stdout else None


def until(worker: Counting, what: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, (worker.counts, worker.pipe.stopped)
        worker.step(0.05)


@pytest.mark.parametrize("kind", ["raw", "shared", "ledger"])
def test_a_transaction_that_nobody_ends_stops_its_partition_alone(topics: Topics, kind: str) -> None:
    topics.send(0, 1000)
    worker, torn, well = topics.worker(), Source(topics.raw, 0), Source(topics.raw, 1)
    with capture_logs() as logs, worker.pipe:
        worker.until(2000)
        with hanging(topics.admin, getattr(topics, kind), 0) as (identity, began):
            until(worker, lambda: worker.pipe.stopped)
            assert time.monotonic() - began < 2 * TIMEOUT_SECONDS + SLACK_SECONDS
            assert set(worker.pipe.stopped) == {torn}
            (said,) = [each for each in logs if each["log_level"] == "critical"]
            assert f"{getattr(topics, kind)}[0]" in said["event"]
            assert "sluice doctor" in said["remedy"]
            topics.send(1000, 2000)
            until(worker, lambda: worker.counts[well] == 2000)
            assert worker.counts[torn] == 1000
            code, found = doctor(topics, "--older", "1")
            (problem,) = found["contracts"][0]["problems"]
            assert (code, problem["kind"], problem["transactional_id"]) == (1, "hanging", identity)
            assert problem["partitions"] == [{"topic": getattr(topics, kind), "partition": 0}]
            assert doctor(topics, "--older", "600")[0] == 0, "young transactions are no problem"
        if kind == "raw":  # refused while it lives; and what ends by itself goes on by itself
            code, found = doctor(topics, "--older", "1", "--repair", "--yes")
            assert (code, found) == (3, None)
            assert worker.pipe.stopped
            Producer(topics.admin.settings(transactional_id=identity)).init_transactions(30)
            until(worker, lambda: not worker.pipe.stopped)
            worker.until(4000)
    if kind != "raw":
        code, found = doctor(topics, "--older", "1", "--repair", "--yes")
        assert (code, found["healthy"]) == (0, True)
        assert found["repaired"] == [f"aborted the transaction of {identity}"]
        worker = topics.worker()
        with worker.pipe:
            until(worker, lambda: sum(worker.counts.values()) == 4000)
    for partition in (0, 1):
        assert topics.shared_values(partition) == expected(0, 2000)


def test_a_torn_partition_does_not_stop_the_other(topics: Topics) -> None:
    topics.send(0, 1000)
    worker = topics.worker()
    with worker.pipe:
        worker.until(2000)
    rewind(topics, 1000 + 500)
    topics.send(1000, 2000)
    before = end(topics.admin, topics.shared, 0)
    worker = topics.worker()
    with worker.pipe:
        until(worker, lambda: worker.counts.get(Source(topics.raw, 1)) == 2000)
        (torn,) = worker.pipe.stopped.items()
        assert torn[0] == Source(topics.raw, 0)
        assert isinstance(torn[1], TornError)
        assert "1500" in torn[1].message
        assert "1000" in torn[1].message
    assert end(topics.admin, topics.shared, 0) == before
    code, found = doctor(topics)
    assert code == 1
    (problem,) = found["contracts"][0]["problems"]
    assert problem["kind"] == "ahead"
    assert problem["partitions"] == [{"topic": topics.raw, "partition": 0}]
    assert problem["offset"] == 1000
    assert problem["again"] == []  # nothing was shared since that record
    code, found = doctor(topics, "--repair", "--yes")
    assert (code, found["healthy"]) == (0, True)
    worker = topics.worker()
    with worker.pipe:
        until(worker, lambda: worker.counts.get(Source(topics.raw, 0)) == 2000)
    assert topics.shared_values(0) == expected(0, 2000)
