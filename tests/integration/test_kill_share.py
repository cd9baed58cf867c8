"""SIGKILL the share worker in the middle of its transactions: nothing lost, nothing doubled, the same bytes.

The same raw log is shared twice: undisturbed, then with kills until five of them have left an open transaction
with data in it (the shared topic's last stable offset stays below its end while nobody runs).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.partition import partition as home
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import end, unique
from tests.integration.share_help import DAY_MS, START_MS, Opening, Worker, opening

EVENTS, PARTITIONS, UNITS = 300_000, 2, 10_000
OPEN_KILLS = 5
CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:kill.example
source: {{kind: csv, path: none.csv}}
event:
  key: card
  time: {{field: at, format: epoch_ms}}
  fields:
    card: {{type: string}}
    at: {{type: timestamp}}
    amount: {{type: int}}
    kind: {{type: string}}
privacy:
  protects: person
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 10
  contribution: {{max: 12, of: [at], held_by: ledger}}
  unit: [card]
  fields:
    card: pseudonym
    at: {{time: 1min}}
    amount: {{count: {{min: 0, max: 100, per_unit: 100}}}}
    kind: {{category: {{members: [a, b, c], other: c}}}}
terms: {{purpose: [test], for: 1d}}
partitions: 2
"""


def fill(opened: Opening) -> list[int]:
    """Raw records: events, among them 8 % in a slot that their unit has used (denied) and 1 % poison (dead letters)."""
    rng = random.Random(11)
    ends = []
    for partition in range(PARTITIONS):
        cards = [card(unit, partition) for unit in range(UNITS)]
        records: list[tuple[bytes | None, bytes | None]] = [(b"clock", opened.clock(START_MS + DAY_MS // 2))]
        for row in range(EVENTS // PARTITIONS):
            unit, slot = row % UNITS, row // UNITS
            if rng.random() < 0.08:
                slot = rng.randrange(slot + 1)
            key = cards[unit]
            event = {
                "card": key,
                "at": START_MS + slot * 60_000,
                "amount": rng.randrange(120),
                "kind": rng.choice("abcd"),
            }
            value = opened.encode(event)
            if rng.random() < 0.01:
                value = value[: rng.randrange(1, len(value))]
            records.append((key.encode(), value))
        opened.send(records, partition)
        ends.append(len(records))
    return ends


def card(unit: int, partition: int) -> str:
    """A name that lives in this partition."""
    names = (f"card-{unit:05d}.{number}" for number in count())
    return next(name for name in names if home(name.encode(), PARTITIONS) == partition)


class Watch:
    """The shared topic's ends, seen from outside within two milliseconds."""

    def __init__(self, opened: Opening) -> None:
        self._client = AdminClient(opened.stack.admin.settings())
        self._topic = opened.contract.topics.shared

    def open_data(self) -> bool:
        """Whether some partition holds records of a transaction that has not ended."""
        found = []
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
            latest: Any = OffsetSpec
            asked = {TopicPartition(self._topic, each): latest.latest() for each in range(PARTITIONS)}
            answers = self._client.list_offsets(asked, isolation_level=level, request_timeout=10)
            found.append({each.partition: answer.result().offset for each, answer in answers.items()})
        stable, last = found
        return any(stable[partition] < last[partition] for partition in stable)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_lose_nothing_double_nothing_and_change_no_byte(stack: RunningStack, tmp_path: Path) -> None:
    opened = opening(stack, tmp_path, CONTRACT.format(name=unique("kill.share")))
    ends = fill(opened)
    topics = opened.contract.topics

    worker = Worker(opened)
    worker.wait(ends)
    calm_counts = worker.stop()
    calm = {
        (topic, partition): opened.out(topic, partition)
        for topic in (topics.shared, topics.dlq)
        for partition in range(PARTITIONS)
    }
    assert calm_counts["events"] == EVENTS
    assert calm_counts["shared"] == sum(
        len(calm[topics.shared, partition]) for partition in range(PARTITIONS)
    )
    assert sum(calm_counts["rejected"].values()) > EVENTS * 0.005
    assert calm_counts["denied"]["slot-used"] > EVENTS * 0.03

    opened.forget()
    watch, rng = Watch(opened), random.Random(5)
    open_kills = kills = 0
    while open_kills < OPEN_KILLS:
        worker = Worker(opened, "--slot", "0", "--batch", "4000")
        patience = rng.randrange(6)  # transactions that it may finish first
        deadline, was_open = time.monotonic() + 60, False
        while True:
            assert time.monotonic() < deadline, worker.log.read_text()[-3000:]
            now_open = watch.open_data()
            patience -= was_open and not now_open
            was_open = now_open
            if now_open and patience <= 0:
                break
        worker.kill()
        kills += 1
        open_kills += watch.open_data()
        done = sum(opened.committed(partition) for partition in range(PARTITIONS))
        assert done < sum(ends), (
            f"all is done after {kills} kills, {open_kills} of them in an open transaction"
        )
    worker = Worker(opened, "--slot", "0")
    worker.wait(ends)
    counts = worker.stop()

    for (topic, partition), expected in calm.items():
        found = opened.out(topic, partition)
        assert len(found) == len(expected)
        assert found == expected
        uncommitted = Counter(opened.out(topic, partition, committed=False))
        assert set(uncommitted) == set(expected)
        assert end(stack.admin, topic, partition) > len(expected)
    assert sum(
        (Counter(opened.out(topics.shared, each, committed=False)) for each in (0, 1)), Counter()
    ).total() > len(calm[topics.shared, 0] + calm[topics.shared, 1]), "no kill left records behind"
    assert counts == calm_counts
