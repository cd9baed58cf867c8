"""A contract, raw records and the shipped share worker as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from producers.encode import encoder
from schemas.codec import CLOCK
from schemas.contract import Contract, parse
from sluice.stack.provision import Opened, open_contract
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import group_offset, read

ROOT = Path(__file__).parents[2]
DAY_MS = 86_400_000
START_MS = 16_804 * DAY_MS


@dataclass
class Opening:
    """A contract that is open on a stack. Sends raw records and looks at what came of them."""

    stack: RunningStack
    contract: Contract
    file: Path
    opened: Opened = field(init=False)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.opened = open_contract(self.contract, self.stack.admin)
        self.raw_id = self.opened.schema_ids[f"{self.contract.topics.raw}-value"]
        self.encode = encoder(self.raw_id, self.contract.raw_schema)
        self._clock = encoder(self.opened.schema_ids["sluice.clock"], dict(CLOCK))

    @property
    def group(self) -> str:
        return f"share.{self.contract.contract}"

    def clock(self, ms: int) -> bytes:
        return self._clock({"clock_ms": ms})

    def send(
        self, records: Sequence[tuple[bytes | None, bytes | None]], partition: int = 0, headers: Any = None
    ) -> None:
        """(key, value) pairs, in one transaction."""
        producer = Producer(
            self.stack.admin.settings(
                transactional_id=f"test.{self.contract.contract}",
                linger_ms=20,
                queue_buffering_max_messages=1_000_000,
            )
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        for key, value in records:
            producer.produce(self.contract.topics.raw, value, key, partition, headers=headers)
        assert producer.flush(60) == 0
        producer.commit_transaction(60)

    def committed(self, partition: int = 0) -> int:
        return max(0, group_offset(self.stack.admin, self.group, self.contract.topics.raw, partition))

    def out(self, topic: str, partition: int = 0, *, committed: bool = True) -> list[tuple[Any, Any, Any]]:
        """(key, value, headers) of a topic, as an independent reader sees them."""
        found = read(self.stack.admin, topic, partition, committed=committed)
        return [(each.key(), each.value(), tuple(each.headers() or ())) for each in found]

    def forget(self) -> None:
        """As if no share agent had ever run: outputs, ledger and the group's offsets are gone."""
        topics = self.contract.topics
        client = AdminClient(self.stack.admin.settings())
        for deleted in client.delete_topics([topics.shared, topics.dlq, topics.ledger]).values():
            deleted.result(30)
        deadline = time.monotonic() + 30
        while True:  # the static member's session must have ended
            try:
                client.delete_consumer_groups([self.group])[self.group].result(30)
                break
            except KafkaException:
                assert time.monotonic() < deadline
                time.sleep(0.3)
        while {topics.shared, topics.dlq, topics.ledger} & set(client.list_topics(timeout=10).topics):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.open()


def opening(stack: RunningStack, folder: Path, text: str) -> Opening:
    file = folder / "contract.yaml"
    file.write_text(text)
    return Opening(stack, parse(text), file)


class Worker:
    """`sluice share` as a user starts it."""

    def __init__(self, opening: Opening, *options: str) -> None:
        self.opening = opening
        log = opening.file.parent / "worker.log"
        command = [sys.executable, "-m", "sluice.cli.main", "share", str(opening.file), "--json", *options]
        environment = {**os.environ, "SLUICE_HOME": str(opening.stack.home), "PYTHONPATH": str(ROOT)}
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr)

    def wait(self, offsets: Sequence[int], seconds: float = 120) -> None:
        """Until the group is committed at these offsets, by partition."""
        consumer = Consumer(
            self.opening.stack.admin.settings(group_id=self.opening.group, isolation_level="read_committed")
        )
        topic = self.opening.contract.topics.raw
        wanted = [TopicPartition(topic, partition) for partition in range(len(offsets))]
        deadline = time.monotonic() + seconds
        try:
            while any(
                found.offset < offset
                for found, offset in zip(consumer.committed(wanted, timeout=30), offsets, strict=True)
            ):
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                assert time.monotonic() < deadline, self.log.read_text()[-3000:]
                time.sleep(0.05)
        finally:
            consumer.close()

    def stop(self) -> dict[str, Any]:
        """Stops it cleanly and returns its counts."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=40)
        assert self.process.returncode == 0, self.log.read_text()[-3000:]
        found: dict[str, Any] = json.loads(out)
        return found

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate(timeout=20)

    def peak_mib(self) -> float:
        """The most memory it has ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextlib.contextmanager
def working(opening: Opening, *options: str) -> Iterator[Worker]:
    worker = Worker(opening, *options)
    try:
        yield worker
    finally:
        worker.kill()
