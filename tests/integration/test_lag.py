"""Lag on the real broker, seen by `ops`, which may read no record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.errors import RetriableError, WallError
from sluice.ops.lag import GroupLag, Lag, PartitionLag
from sluice.ops.lag_status import Status
from sluice.stack.acls import Right
from sluice.stack.provision import Topic, open_topics
from streams.kafka.clients import Connection
from tests.integration.conftest import RunningStack

DAY_MS = 86_400_000


@dataclass
class Place:
    """A topic of one partition, a group, and hands to move both with, as admin; lag is asked as ops."""

    stack: RunningStack
    topic: str
    group: str

    def transaction(self, records: int, commit: bool = True) -> None:
        producer = self.opened(records)
        producer.commit_transaction() if commit else producer.abort_transaction()

    def opened(self, records: int) -> Producer:
        """A transaction with its records on the broker, not ended."""
        settings = self.stack.admin.settings(transactional_id=f"lag.{uuid.uuid4().hex}")
        producer = Producer(settings)
        producer.init_transactions()
        producer.begin_transaction()
        for _ in range(records):
            producer.produce(self.topic, b"x")
        assert producer.flush(20) == 0
        return producer

    def plain(self, records: int) -> None:
        producer = Producer(self.stack.admin.settings())
        for _ in range(records):
            producer.produce(self.topic, b"x")
        assert producer.flush(20) == 0

    def consumer(self, group: str | None = None) -> Consumer:
        return Consumer(
            self.stack.admin.settings(
                group_id=group or self.group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                enable_partition_eof=True,
            )
        )

    def records(self) -> list[tuple[int, int]]:
        """(offset, append time) of all that can be read."""
        reader, found = self.consumer(uuid.uuid4().hex), []
        try:
            reader.assign([TopicPartition(self.topic, 0, 0)])
            while (message := reader.poll(10)) is not None and message.error() is None:
                found.append((message.offset() or 0, message.timestamp()[1]))
        finally:
            reader.close()
        return found

    def commit(self, offset: int) -> None:
        reader = self.consumer()
        try:
            reader.commit(offsets=[TopicPartition(self.topic, 0, offset)], asynchronous=False)
        finally:
            reader.close()

    def look(self, lag: Lag | None = None, now_ms: int | None = None) -> tuple[GroupLag, PartitionLag]:
        reader = lag or Lag(self.stack.connection("ops"))
        (group,) = reader.look(now_ms if now_ms is not None else clock_ms(), [self.group])
        (partition,) = group.partitions
        return group, partition


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


def code_of(message: Message | None) -> int | None:
    error = message.error() if message is not None else None
    return None if error is None else error.code()


def place(stack: RunningStack, kind: str) -> Place:
    name = f"l{uuid.uuid4().hex}"
    found = Place(stack, f"{name}.{kind}", f"share.{name}")
    rights = [Right("ops", "topic", found.topic, "DESCRIBE"), Right("ops", "group", found.group, "DESCRIBE")]
    open_topics([Topic(found.topic, 1, DAY_MS)], rights, stack.admin)
    return found


@pytest.fixture
def raw(stack: RunningStack) -> Place:
    """As the share agent sees it: filled by transactions only."""
    return place(stack, "raw.v1")


@pytest.fixture
def other(stack: RunningStack) -> Place:
    """Somebody else's topic, without transactions."""
    return place(stack, "orders")


def test_a_group_that_has_read_everything_is_not_behind(raw: Place) -> None:
    raw.transaction(5)
    raw.transaction(3)
    assert [offset for offset, _ in raw.records()] == [0, 1, 2, 3, 4, 6, 7, 8]  # 5 and 9 are markers
    for committed in (9, 10):  # after the last record, and after the marker behind it
        raw.commit(committed)
        group, partition = raw.look(now_ms=clock_ms() + DAY_MS)
        assert (partition.committed, partition.end) == (committed, 10)
        assert (partition.messages, partition.seconds, partition.status) == (0, 0.0, Status.OK)
        assert (group.messages, group.seconds, group.status) == (0, 0.0, Status.OK)


def test_a_consumer_that_commits_its_position_is_not_behind_either(raw: Place) -> None:
    raw.transaction(4)
    reader = raw.consumer()
    try:
        reader.subscribe([raw.topic])
        seen = 0
        while (message := reader.poll(20)) is not None and message.error() is None:
            seen += 1
        assert code_of(message) == KafkaError._PARTITION_EOF
        reader.commit(asynchronous=False)
        group, partition = raw.look()
        assert (seen, partition.messages, group.members, group.state) == (4, 0, 1, "STABLE")
    finally:
        reader.close()


def test_messages_and_age_of_what_waits(raw: Place) -> None:
    raw.transaction(5)
    raw.commit(5)  # as a client does that commits the offset after the last record
    time.sleep(2)
    raw.transaction(3)
    times = dict(raw.records())
    now_ms = clock_ms()
    _, partition = raw.look(now_ms=now_ms)
    assert 3 <= partition.messages <= 4  # the old marker counts until it is passed
    assert partition.seconds is not None
    assert partition.seconds == (now_ms - times[6]) / 1000  # not the marker's, two seconds older
    raw.commit(6)
    assert raw.look()[1].messages == 3
    raw.commit(1)
    _, partition = raw.look(now_ms=now_ms)
    assert partition.seconds == (now_ms - times[1]) / 1000


def test_a_topic_without_transactions_is_counted_exactly(other: Place) -> None:
    for _ in range(4):
        other.plain(2)
        time.sleep(0.1)
    times = dict(other.records())
    assert len(times) == 8
    for committed in range(9):
        other.commit(committed)
        now_ms = clock_ms()
        _, partition = other.look(now_ms=now_ms)
        assert partition.messages == 8 - committed
        assert partition.seconds == ((now_ms - times[committed]) / 1000 if committed < 8 else 0.0)


def test_an_open_transaction_is_not_waiting(raw: Place) -> None:
    raw.transaction(2)
    raw.commit(2)
    producer = raw.opened(50)
    assert raw.look()[1].messages == 0
    producer.commit_transaction()
    assert 50 <= raw.look()[1].messages <= 51


def test_a_group_that_never_committed_and_one_that_retention_overtook(
    raw: Place, stack: RunningStack
) -> None:
    raw.transaction(10)
    reader = raw.consumer()
    try:
        reader.subscribe([raw.topic])
        assert reader.poll(20) is not None
        _, partition = raw.look()
        assert (partition.committed, partition.messages) == (None, 10)
    finally:
        reader.close()
    raw.commit(2)
    admin = AdminClient(stack.admin.settings())
    admin.delete_records([TopicPartition(raw.topic, 0, 7)])[TopicPartition(raw.topic, 0)].result()
    _, partition = raw.look()
    assert (partition.messages, partition.expired) == (3, 5)


def test_status_follows_the_group(raw: Place, stack: RunningStack) -> None:
    raw.transaction(20)
    lag, now_ms = Lag(stack.connection("ops")), clock_ms()
    raw.commit(4)
    assert raw.look(lag, now_ms)[1].status is Status.STOP  # waiting, and nobody there
    reader = raw.consumer()
    try:
        reader.subscribe([raw.topic])
        assert reader.poll(20) is not None
        seen = []
        for second in range(1, 9):
            seen.append(raw.look(lag, now_ms + 1000 * second)[1].status)
        assert seen[-1] is Status.STALL
        reader.commit(offsets=[TopicPartition(raw.topic, 0, 12)], asynchronous=False)
        assert raw.look(lag, now_ms + 9000)[1].status is Status.OK
        reader.commit(offsets=[TopicPartition(raw.topic, 0, 3)], asynchronous=False)
        assert raw.look(lag, now_ms + 10_000)[1].status is Status.REWIND
        reader.commit(offsets=[TopicPartition(raw.topic, 0, 21)], asynchronous=False)
        assert raw.look(lag, now_ms + 11_000)[1].status is Status.OK
    finally:
        reader.close()


def test_ops_sees_lag_and_no_record(raw: Place, stack: RunningStack) -> None:
    raw.transaction(3)
    raw.commit(0)
    assert raw.look()[1].messages == 3
    peeping = Consumer(stack.connection("ops").settings(group_id=raw.group, enable_auto_commit=False))
    try:
        peeping.assign([TopicPartition(raw.topic, 0, 0)])
        refused = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
        assert code_of(peeping.poll(10)) in refused
    finally:
        peeping.close()


def test_what_cannot_be_seen_is_said(raw: Place, stack: RunningStack) -> None:
    lag = Lag(stack.connection("ops"))
    with pytest.raises(WallError) as problem:
        lag.look(clock_ms(), ["share.of-somebody-else"])
    assert "SLUICE_USERNAME" in problem.value.remedy
    nowhere = Connection("127.0.0.1:1", "ops", stack.connection("ops").password)
    with pytest.raises(RetriableError):
        Lag(nowhere, timeout_seconds=1).look(clock_ms())


@pytest.fixture
def environment(stack: RunningStack) -> dict[str, str]:
    return {**os.environ, "SLUICE_HOME": str(stack.home), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def behind(raw: Place) -> Iterator[Place]:
    raw.transaction(7)
    raw.commit(3)
    yield raw
    raw.commit(8)


def sluice(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sluice.cli.main", "lag", *arguments]


def test_one_json_object(behind: Place, environment: dict[str, str]) -> None:
    done = subprocess.run(
        sluice("--json"), env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(done.stdout)
    (group,) = (g for g in found["groups"] if g["group"] == behind.group)
    assert group["messages"] == 4
    assert group["seconds"] > 0
    assert group["status"] == "STOP"
    assert found["messages"] >= 4
    (partition,) = group["partitions"]
    assert (partition["topic"], partition["committed"], partition["end"]) == (behind.topic, 3, 8)


def test_the_table(behind: Place, environment: dict[str, str]) -> None:
    command = sluice("--group", behind.group)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert behind.topic in done.stdout
    assert "STOP" in done.stdout
    missing = subprocess.run(
        sluice("-g", "nope"), env=environment, capture_output=True, text=True, timeout=60
    )
    assert missing.returncode == 2
    assert "->" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_watch_goes_on_until_it_is_told(behind: Place, environment: dict[str, str]) -> None:
    command = sluice("--watch", "--json", "--interval", "0.2", "-g", behind.group)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        first = [json.loads(watching.stdout.readline()) for _ in range(3)]
        behind.commit(8)
        deadline = time.monotonic() + 30
        while json.loads(watching.stdout.readline())["messages"] and time.monotonic() < deadline:
            pass
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(10) == 0
    assert [found["messages"] for found in first] == [4, 4, 4]
    assert time.monotonic() < deadline
