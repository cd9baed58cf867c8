"""The transactional pipe on the real broker: once each, state from committed transactions only, tears seen."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.errors import TornError, WallError
from streams.kafka.clients import Connection
from streams.kafka.producer import DisturbedError
from streams.kafka.state import Position
from streams.kafka.transaction import DEFAULTS, Output, Records, Result, Source, TransactionalPipe, Tuning
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import end, group_offset, make_topics, read, send, unique, values

SMALL = Tuning(batch_records=500, transaction_timeout_ms=4000)


class Counting:
    """Numbers the records of each partition: one lost, doubled or reordered shows in its number."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        slot: int = 0,
        tuning: Tuning = SMALL,
        kinds: tuple[str, str, str] = ("in", "out", "log"),
        group: str = "g",
    ) -> None:
        source, self.out, log = (f"{name}.{kind}" for kind in kinds)
        self.counts: dict[Source, int] = {}
        self.restores = 0
        self.seen: list[Records] = []
        self.pipe = TransactionalPipe(
            connection,
            group=f"{group}.{name}",
            topics=[source],
            transactional_id=f"t.{name}.{slot}",
            changelog=lambda source: Source(log, source.partition),
            restore=self.restore,
            tuning=tuning,
        )

    def restore(self, sources: Sequence[Source], changelog: Iterable[tuple[bytes, bytes | None]]) -> None:
        self.restores += 1
        count = 0
        for _, value in changelog:
            count = int(value or b"0")
        for source in sources:
            self.counts[source] = count

    def result(self, records: Records) -> Result:
        first, source = self.counts[records.source], records.source
        numbered = [f"{first + row}:".encode() + (value or b"") for row, value in enumerate(records.values)]

        def apply() -> None:
            self.counts[source] = first + len(numbered)

        return Result(
            outputs=[Output(self.out, records.partition, numbered, records.keys)],
            changes=[(b"count", str(first + len(numbered)).encode())],
            apply=apply,
        )

    def step(self, timeout: float = 0.2) -> bool:
        """Whether a batch was committed."""
        records = self.pipe.next(timeout)
        if records is None:
            return False
        self.seen.append(records)
        return self.pipe.commit([(records, self.result(records))]).result(30)

    def until(self, total: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while sum(self.counts.values()) < total:
            self.step()
            assert time.monotonic() < deadline, f"{self.counts} of {total}"


@contextmanager
def counting(connection: Connection, name: str) -> Iterator[Counting]:
    worker = Counting(connection, name)
    with worker.pipe:
        yield worker


@pytest.fixture
def name(stack: RunningStack) -> str:
    name = unique("tx")
    make_topics(stack.admin, f"{name}.in", f"{name}.out")
    make_topics(stack.admin, f"{name}.log", compacted=True)
    return name


def expected(first: int, last: int) -> list[bytes]:
    return [f"{row}:v{row}".encode() for row in range(first, last)]


def payload(first: int, last: int) -> list[bytes]:
    return [f"v{row}".encode() for row in range(first, last)]


def test_every_record_once_and_state_survives_a_restart(stack: RunningStack, name: str) -> None:
    send(stack.admin, f"{name}.in", payload(0, 2000))
    with counting(stack.admin, name) as worker:
        worker.until(2000)
        assert worker.pipe.assigned == {Source(f"{name}.in", 0): 2000}
    send(stack.admin, f"{name}.in", payload(2000, 3000))
    with counting(stack.admin, name) as worker:
        worker.until(3000)
        assert worker.restores == 1
    assert values(read(stack.admin, f"{name}.out")) == expected(0, 3000)
    assert group_offset(stack.admin, f"g.{name}", f"{name}.in") == 3000


def test_a_reset_drops_old_work_and_repeats_it_with_the_same_bytes(stack: RunningStack, name: str) -> None:
    send(stack.admin, f"{name}.in", payload(0, 3000))
    with counting(stack.admin, name) as worker:
        while (records := worker.pipe.next(1)) is None:
            pass
        stale = worker.result(records)
        worker.pipe.restart("test")
        assert worker.pipe.commit([(records, stale)]).result(30) is False
        worker.until(1000)
        worker.pipe.restart("test")
        worker.until(3000)
        assert worker.restores == 3
    assert values(read(stack.admin, f"{name}.out", committed=False)) == expected(0, 3000)


@pytest.mark.parametrize("step", ["begin", "flush", "send_offsets", "commit"])
def test_any_failing_step_is_recovered(
    stack: RunningStack, name: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(stack.admin, f"{name}.in", payload(0, 2000))
    with counting(stack.admin, name) as worker:
        worker.until(500)
        producer = worker.pipe._writer._producer
        before = producer.recycled
        real = getattr(producer, step)

        def fails_after(*arguments: object) -> None:
            real(*arguments)
            monkeypatch.setattr(producer, step, real)
            raise DisturbedError("on purpose, when it is done")

        monkeypatch.setattr(producer, step, fails_after)
        worker.until(2000)
        assert producer.recycled == before + 1
        assert worker.restores == 2
    assert values(read(stack.admin, f"{name}.out")) == expected(0, 2000)


def test_what_was_fetched_is_not_cut_for_ever_by_one_bad_minute(stack: RunningStack, name: str) -> None:
    """After transactions that timed out they are small, and grow: with what waits already, not behind it."""
    send(stack.admin, f"{name}.in", payload(0, 20_000))
    worker = Counting(stack.admin, name, tuning=DEFAULTS)
    with worker.pipe:
        worker.pipe.session.fit.most = 2
        time.sleep(3.0)  # all of it is fetched
        worker.until(20_000, seconds=20)
    assert max(map(len, worker.seen)) > 100 * len(worker.seen[0])
    assert values(read(stack.admin, f"{name}.out")) == expected(0, 20_000)


def test_a_record_that_fails_its_handler_is_found_and_the_others_go_on(
    stack: RunningStack, name: str
) -> None:
    send(stack.admin, f"{name}.in", payload(0, 600))
    doomed: set[int] = set()
    with counting(stack.admin, name) as worker:
        deadline = time.monotonic() + 60
        while sum(worker.counts.values()) < 600:
            assert time.monotonic() < deadline
            records = worker.pipe.next(0.2)
            if records is None:
                continue
            bad = [offset for offset in records.offsets if offset == 417]
            if bad and not records.doomed:
                worker.pipe.fail(records, ValueError("one of these"))
                continue
            doomed |= records.doomed & set(records.offsets)
            worker.pipe.commit([(records, worker.result(records))]).result(30)
    assert doomed == {417}
    assert values(read(stack.admin, f"{name}.out")) == expected(0, 600)


def test_two_workers_share_the_partitions_and_one_takes_over(stack: RunningStack) -> None:
    name, partitions = unique("tx"), 4
    make_topics(stack.admin, f"{name}.in", f"{name}.out", partitions=partitions)
    make_topics(stack.admin, f"{name}.log", partitions=partitions, compacted=True)
    stop = [threading.Event(), threading.Event()]
    workers = [Counting(stack.admin, name, slot=slot) for slot in range(2)]

    def work(slot: int) -> None:
        with workers[slot].pipe:
            while not stop[slot].is_set():
                workers[slot].step(0.1)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(6):
            deadline = time.monotonic() + 60
            while turn == 3 and not all(worker.pipe.assigned for worker in workers):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            for partition in range(partitions):
                send(stack.admin, f"{name}.in", payload(turn * 500, turn * 500 + 500), partition)
            while turn == 3 and not all(worker.seen for worker in workers):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            if turn == 3:
                stop[0].set()
        for partition in range(partitions):
            deadline = time.monotonic() + 60
            while group_offset(stack.admin, f"g.{name}", f"{name}.in", partition) < 3000:
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        stop[0].set()
        stop[1].set()
        for thread in threads:
            thread.join()
    for partition in range(partitions):
        assert values(read(stack.admin, f"{name}.out", partition)) == expected(0, 3000)


def test_the_changelog_holds_the_position_of_every_transaction(stack: RunningStack, name: str) -> None:
    send(stack.admin, f"{name}.in", payload(0, 700))
    with counting(stack.admin, name) as worker:
        worker.until(700)
    last = read(stack.admin, f"{name}.log")[-1]
    assert Position.decode(last.key(), last.value()).next == 700
    assert set(json.loads(last.value())) == {"next", "cluster"}


@pytest.mark.parametrize("tear", ["offsets", "changelog"])
def test_a_tear_stops_the_partition_and_says_so(stack: RunningStack, name: str, tear: str) -> None:
    send(stack.admin, f"{name}.in", payload(0, 1000))
    with counting(stack.admin, name) as worker:
        worker.until(1000)
        cluster = worker.pipe._writer.cluster
    if tear == "offsets":
        consumer = Consumer(stack.admin.settings(group_id=f"g.{name}"))
        deadline = time.monotonic() + 20
        while True:  # until the static member's session is over
            try:
                consumer.commit(offsets=[TopicPartition(f"{name}.in", 0, 400)], asynchronous=False)
                break
            except KafkaException:
                assert time.monotonic() < deadline
                time.sleep(0.3)
        consumer.close()
    else:
        from confluent_kafka import Producer

        key, value = Position(Source(f"{name}.in", 0), 400, cluster).encode()
        producer = Producer(stack.admin.settings())
        producer.produce(f"{name}.log", value, key, 0)
        assert producer.flush(30) == 0
    before = end(stack.admin, f"{name}.out")
    with counting(stack.admin, name) as worker, pytest.raises(TornError, match="400"):
        worker.until(1001, seconds=20)
    assert end(stack.admin, f"{name}.out") == before


def test_a_principal_without_rights_is_told_so(stack: RunningStack, name: str) -> None:
    worker = Counting(stack.connection("subscriber"), name)
    with pytest.raises(WallError), worker.pipe:
        worker.until(1, seconds=20)
