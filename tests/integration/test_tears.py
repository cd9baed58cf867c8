"""Planted tears: the partition stops and is named in time, the others go on, `doctor` repairs, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from schemas.errors import RetriableError, TornError
from sluice.ops.doctor import Doctor, Report
from sluice.ops.doctor_rules import Problem
from streams.kafka.clients import Connection
from streams.kafka.stable import LEAST_GAP_SECONDS, PATIENCE
from streams.kafka.state import Position
from streams.kafka.transaction import Source, Tuning
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import end, group_offset, make_topics, read, send, unique, values
from tests.integration.share_help import DAY_MS, ROOT, START_MS, opening, working
from tests.integration.test_kill_share import CONTRACT, card
from tests.integration.test_transaction import Counting, expected, payload

TIMEOUT_SECONDS = 4.0
TUNING = Tuning(batch_records=500, transaction_timeout_ms=int(TIMEOUT_SECONDS * 1000))
KINDS = ("raw.v1", "shared.v1", "ledger.v1")
SLACK_SECONDS = (
    12.0  # at a load of 35 on 2 cores the producers that plant took 4; what the worker counts has none
)


class Scene:
    """Topics named as a contract's, so that `doctor` finds them, and a worker of its share group."""

    def __init__(self, stack: RunningStack, partitions: int) -> None:
        self.admin, self.partitions = stack.admin, partitions
        self.contract = unique("tear")
        self.raw, self.shared, self.ledger = (f"{self.contract}.{kind}" for kind in KINDS)
        self.group = f"share.{self.contract}"
        self.sent = 0
        make_topics(stack.admin, self.raw, self.shared, partitions=partitions)
        make_topics(stack.admin, self.ledger, partitions=partitions, compacted=True)

    def send(self, count: int) -> None:
        """To each partition."""
        for partition in range(self.partitions):
            send(self.admin, self.raw, payload(self.sent, self.sent + count), partition)
        self.sent += count

    def worker(self) -> Counting:
        return Counting(self.admin, self.contract, tuning=TUNING, kinds=KINDS, group="share")

    def caught_up(self, worker: Counting, *partitions: int) -> None:
        """Until these partitions have dealt with all that was sent."""
        wanted = [Source(self.raw, each) for each in partitions]
        self.until(worker, lambda: all(worker.counts.get(each) == self.sent for each in wanted))

    def until(self, worker: Counting, what: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, (worker.counts, worker.pipe.stopped)
            worker.step(0.05)

    def whole(self) -> None:
        """Each record once, numbered in its order, for readers with read_committed."""
        for partition in range(self.partitions):
            assert values(read(self.admin, self.shared, partition)) == expected(0, self.sent)

    def hang(self, topic: str, partition: int) -> str:
        """A transaction on this partition that nobody ends; its id."""
        identity = unique("hangs")
        producer = Producer(self.admin.settings(transactional_id=identity, transaction_timeout_ms=600_000))
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, b"never", b"never", partition)
        assert producer.flush(30) == 0
        return identity

    def move(self, partition: int, offset: int) -> None:
        move(self.admin, self.group, self.raw, partition, offset)

    def doctor(self, older_seconds: float = 1.0) -> Doctor:
        return Doctor(self.admin, older_seconds)

    def look(self, doctor: Doctor) -> Report:
        (report,) = doctor.look(time.time_ns() // 1_000_000, self.contract)
        return report


def move(connection: Connection, group: str, topic: str, partition: int, offset: int) -> None:
    """Sets a group's offset past its workers' backs, once their static members are gone."""
    admin = AdminClient(connection.settings())
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])
    deadline = time.monotonic() + 30
    while True:
        with suppress(KafkaException):
            (answer,) = admin.alter_consumer_group_offsets([wanted]).values()
            if all(each.error is None for each in answer.result(10).topic_partitions):
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def command(stack: RunningStack, *options: str) -> tuple[int, Any]:
    """`sluice doctor` as a user runs it: exit code, and what --json says."""
    words = [sys.executable, "-m", "sluice.cli.main", "doctor", "--json", *options]
    environment = {**os.environ, "SLUICE_HOME": str(stack.home), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode in (0, 1), run.stderr
    return run.returncode, json.loads(run.stdout)


def test_transactions_that_nobody_ends_stop_their_partitions_alone(stack: RunningStack) -> None:
    scene = Scene(stack, 4)
    scene.send(1000)
    worker = scene.worker()
    with capture_logs() as logs, worker.pipe:
        scene.caught_up(worker, 0, 1, 2, 3)
        planted = [(scene.raw, 0), (scene.shared, 1), (scene.ledger, 2)]
        first = time.monotonic()
        identities = [scene.hang(*where) for where in planted]
        last = time.monotonic()
        scene.until(worker, lambda: len(worker.pipe.stopped) == 3)
        assert time.monotonic() - last < 2 * TIMEOUT_SECONDS + SLACK_SECONDS
        assert time.monotonic() - first > TIMEOUT_SECONDS, "a transaction of ours may last so long"
        assert set(worker.pipe.stopped) == {Source(scene.raw, each) for each in (0, 1, 2)}
        said = [each for each in logs if each["log_level"] == "critical"]
        for (topic, partition), each in zip(
            planted, sorted(said, key=lambda x: x["partitions"]), strict=True
        ):
            assert f"{topic}[{partition}] holds a transaction" in each["event"]
            assert each["partitions"] == [[scene.raw, partition]]
            stood = float(each["event"].rsplit("for ", 1)[1].removesuffix(" s."))
            assert PATIENCE * TIMEOUT_SECONDS <= stood <= PATIENCE * TIMEOUT_SECONDS + LEAST_GAP_SECONDS + 0.1
            assert "sluice doctor" in each["remedy"]

        scene.send(500)
        scene.caught_up(worker, 3)
        assert [worker.counts[Source(scene.raw, each)] for each in (0, 1, 2)] == [1000, 1000, 1000]

        found = scene.look(scene.doctor()).problems
        by_identity: dict[str | None, Problem] = {each.identity: each for each in found}
        for where, identity in zip(planted, identities, strict=True):
            assert by_identity[identity].kind == "hanging"
            assert by_identity[identity].where == (where,)
        assert len(found) == 3
        assert scene.look(scene.doctor(600)).problems == (), "a young transaction is no problem"

        impatient = Doctor(scene.admin, 1.0, idle_seconds=0.5)
        with pytest.raises(RetriableError, match="live"):
            impatient.repair(scene.look(impatient))
        assert len(worker.pipe.stopped) == 3

        Producer(scene.admin.settings(transactional_id=identities[0])).init_transactions(30)
        scene.until(worker, lambda: len(worker.pipe.stopped) == 2)
        scene.caught_up(worker, 0)  # what is ended after all goes on by itself

    worker = scene.worker()  # its restore waits for ledger 2, and for no other
    with worker.pipe:
        scene.until(worker, lambda: Source(scene.raw, 3) in worker.counts)
        assert Source(scene.raw, 2) not in worker.pipe.stopped, "3 was restored behind it"
        scene.send(500)
        scene.caught_up(worker, 0, 3)
        assert Source(scene.raw, 2) not in worker.counts
    code, said = command(stack, scene.contract, "--older", "1")
    assert (code, said["healthy"], len(said["contracts"][0]["problems"])) == (1, False, 2)
    code, said = command(stack, scene.contract, "--older", "1", "--repair", "--yes")
    assert (code, said["healthy"]) == (0, True)
    assert sorted(said["repaired"]) == sorted(f"aborted the transaction of {each}" for each in identities[1:])
    worker = scene.worker()
    with worker.pipe:
        scene.caught_up(worker, 0, 1, 2, 3)
        assert not worker.pipe.stopped
    scene.whole()


def test_offsets_that_left_their_changelog_stop_their_partitions_alone(stack: RunningStack) -> None:
    scene = Scene(stack, 3)
    scene.send(1000)
    worker = scene.worker()
    with worker.pipe:
        scene.caught_up(worker, 0, 1, 2)
    scene.send(1000)
    scene.move(0, 1500)
    scene.move(1, 400)
    before = [end(scene.admin, scene.shared, each) for each in (0, 1)]
    worker = scene.worker()
    with worker.pipe:
        scene.caught_up(worker, 2)
        stopped = worker.pipe.stopped
    assert {source.partition: type(error) for source, error in stopped.items()} == {
        0: TornError,
        1: TornError,
    }
    assert "1500, its changelog at 1000" in str(stopped[Source(scene.raw, 0)])
    assert before == [end(scene.admin, scene.shared, each) for each in (0, 1)]

    doctor = scene.doctor()
    ahead, behind = (report := scene.look(doctor)).problems
    assert (ahead.kind, ahead.where, ahead.offset, ahead.again) == ("ahead", ((scene.raw, 0),), 1000, ())
    assert (behind.kind, behind.where, behind.offset) == ("behind", ((scene.raw, 1),), 1000)
    assert len(doctor.repair(report)) == 2
    assert scene.look(doctor).problems == ()
    worker = scene.worker()
    with worker.pipe:
        scene.caught_up(worker, 0, 1, 2)
    scene.whole()


def test_what_readers_may_see_twice_is_listed(stack: RunningStack) -> None:
    """A changelog that lost its last transactions: what it forgot is shared already, and will be again."""
    scene = Scene(stack, 1)
    scene.send(10)
    worker = scene.worker()
    with worker.pipe:
        scene.caught_up(worker, 0)
        cluster = worker.pipe._writer.cluster
    key, value = Position(Source(scene.raw, 0), 4, cluster).encode()
    producer = Producer(scene.admin.settings())
    producer.produce(scene.ledger, value, key, 0)
    assert producer.flush(30) == 0
    doctor = scene.doctor()
    (problem,) = (report := scene.look(doctor)).problems
    assert (problem.kind, problem.offset) == ("ahead", 4)
    (span,) = problem.again
    assert (span.topic, span.partition) == (scene.shared, 0)
    assert span.first <= 4
    assert span.last >= 10
    doctor.repair(report)
    assert group_offset(scene.admin, scene.group, scene.raw) == 4


def test_a_share_worker_ends_with_2_when_a_partition_is_torn(stack: RunningStack, tmp_path: Path) -> None:
    """The shipped worker on a contract, as its owner lives it: tear, message, exit code, doctor, and all is shared."""
    opened = opening(stack, tmp_path, CONTRACT.format(name=unique("tear.share")))
    raw = opened.contract.topics.raw

    def more(first: int, last: int) -> None:
        for partition in (0, 1):
            cards = [card(unit, partition) for unit in range(first, last)]
            event = {"at": START_MS, "amount": 1, "kind": "a"}
            records = [(each.encode(), opened.encode({"card": each, **event})) for each in cards]
            clock = [(b"clock", opened.clock(START_MS + DAY_MS // 2))]
            opened.send([*clock, *records], partition)

    more(0, 99)  # 100 records and the marker of their transaction
    with working(opened) as worker:
        worker.wait([100, 100])
        assert worker.stop()["events"] == 198
    more(99, 198)
    move(stack.admin, opened.group, raw, 0, 150)
    with working(opened) as worker:
        worker.wait([0, 201])
        worker.process.send_signal(signal.SIGTERM)
        out, _ = worker.process.communicate(timeout=40)
        assert worker.process.returncode == 2
        assert json.loads(out)["events"] == 198 + 99
        assert f"{raw}[0] is torn" in worker.log.read_text()
    code, said = command(stack, str(opened.file), "--repair", "--yes")
    assert (code, said["healthy"], len(said["repaired"])) == (0, True, 1)
    (opened.file.parent / "worker.log").unlink()
    with working(opened) as worker:
        worker.wait([201, 201])
        while "restored" not in worker.log.read_text():  # both partitions, for both are counted
            time.sleep(0.05)
        counts = worker.stop()
    assert (counts["events"], counts["shared"]) == (396, 396)
    assert [len(opened.out(opened.contract.topics.shared, each)) for each in (0, 1)] == [198, 198]
