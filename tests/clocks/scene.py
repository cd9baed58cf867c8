"""A publisher and share workers, each with a wall clock of its own, a steady load, and a reader of what is shared."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from producers.positions import Positions
from schemas.contract import parse
from sluice.stack.provision import open_contract
from streams.kafka.clients import Connection
from streams.kafka.watchdog import EXIT_CODE as AGAIN
from tests.chaos.audit import number_of, records
from tests.clocks import oracle
from tests.clocks.events import CAP, HEADER, PARTITIONS, Script, contract_text
from tests.integration.kafka_help import end, unique
from tests.soak.reader import reader
from tests.soak.roles import Role

STATE_KEY = b"S"
FLOWS_SECONDS, DRAIN_SECONDS = 90.0, 60.0


@dataclass(slots=True)
class Verdict:
    """`denied`, `events` and `shared` of the oracle; what differs from it. Empty `wrong`: nothing does."""

    events: int = 0
    shared: int = 0
    denied: Counter[str] = field(default_factory=Counter)
    clocks: dict[int, list[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Scene:
    """`environments`: by role (`publish`, `share0`, ...), what its process gets beside ours."""

    def __init__(
        self,
        home: Path,
        connection: Callable[[str], Connection],
        folder: Path,
        script: Script,
        *,
        workers: int = 1,
        follow: bool = True,
        rate: float = 2000.0,
        cap: int = CAP,
        environments: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        file = folder / "contract.yaml"
        file.write_text(contract_text(unique("clocks"), follow=follow, cap=cap))
        self.contract = contract = parse(file.read_text(), folder)
        self.admin = connection("admin")
        self.clock_id = open_contract(contract, self.admin).schema_ids["sluice.clock"]
        self.group = f"share.{contract.contract}"
        self.rate, self.restarts = rate, list[str]()
        self._home, self._folder, self._script = home, folder, script
        self._environments = environments or {}
        words = [str(file), "--json", "--no-open"]
        self.publish = Role("publish", ["publish", *words])
        self.shares = [Role(f"share{n}", ["share", *words, "--slot", str(n)]) for n in range(workers)]
        self.count, self._began = 0, 0.0
        self._file = (folder / "load.csv").open("ab", buffering=0)
        self._file.write(HEADER)
        self._reader = reader(self.admin, contract.topics.shared, PARTITIONS)
        self._last = dict.fromkeys(range(PARTITIONS), -1)

    @property
    def written(self) -> int:
        """Bytes of the source."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def roles(self) -> list[Role]:
        return [self.publish, *self.shares]

    def begin(self, roles: Sequence[Role] | None = None) -> None:
        """Starts processes, and the load. Returns when every partition has shared something."""
        for role in self.roles if roles is None else roles:
            self._start(role)
        self._began = time.monotonic()
        assert self.until(lambda: self.behind(-1), FLOWS_SECONDS), "nothing is shared"

    def _start(self, role: Role) -> None:
        role.start(self._home, self._folder / f"{role.name}.log", self._environments.get(role.name))

    def write(self, due: int) -> None:
        """So many events in all are in the file then."""
        lines = [self._script.event(number).line() for number in range(self.count, due)]
        if lines:
            self._file.write(b"".join(lines))
            self.count = due

    def tick(self, seconds: float = 0.02) -> None:
        """A moment of load and reading. A process that fails is an error, but one that asks to be started again is:
        what supervises it does so. A replay comes to its end."""
        if self.rate:
            self.write(int((time.monotonic() - self._began) * self.rate))
        for message in self._reader.consume(5000, seconds):
            if message.error() is None:
                partition = int(message.partition() or 0)
                self._last[partition] = max(self._last[partition], number_of(message.value() or b""))
        for role in self.roles:
            if role.ended and role.process is not None and role.process.returncode == AGAIN:
                self.restarts.append(role.name)
                self._start(role)
            assert not role.failed, f"{role.name} ended by itself: {role.said()[-3000:]}"

    def until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            self.tick()
        return True

    def endure(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def behind(self, number: int) -> bool:
        """Whether every partition has shared something that was written after this event."""
        return all(last > number for last in self._last.values())

    def drain(self) -> None:
        """No more load: all that was written is in raw, and all of raw is committed by the group."""
        self.rate, deadline = 0.0, time.monotonic() + DRAIN_SECONDS
        positions = Positions(self.admin, self.contract.topics.source)
        while (at := positions.read("load.csv")) is None or at.position.offset < self.written:
            assert time.monotonic() < deadline, "not all that was written is in raw"
            self.endure(0.2)
        topic = self.contract.topics.raw
        ends = [end(self.admin, topic, each) for each in range(PARTITIONS)]
        wanted = [TopicPartition(topic, each) for each in range(PARTITIONS)]
        client = Consumer(self.admin.settings(group_id=self.group, isolation_level="read_committed"))
        try:
            while any(  # behind what is committed stands one marker
                found.offset < last - 1
                for found, last in zip(client.committed(wanted, timeout=30), ends, strict=True)
            ):
                assert time.monotonic() < deadline, "not all of raw is shared"
                self.endure(0.2)
        finally:
            client.close()

    def _read(self, topic: str, *, committed: bool = True) -> list[list[bytes]]:
        """Values by partition, in the order of their log."""
        found: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for message in records(self.admin, topic, PARTITIONS, committed=committed):
            found[message.partition()].append(message.value())
        return found

    def verdict(self) -> Verdict:
        """After `drain` and `close`: every topic against the oracle, which reads the raw log."""
        found, topics = Verdict(events=self.count), self.contract.topics
        numbers: list[int] = []
        raw, shared = self._read(topics.raw), self._read(topics.shared)
        uncommitted = self._read(topics.shared, committed=False)
        for each in range(PARTITIONS):
            told = oracle.told(self.contract, self.clock_id, raw[each])
            seen = list(map(number_of, shared[each]))
            if seen != told.shared:
                twice = len(seen) - len(set(seen))
                lost, more = set(told.shared) - set(seen), set(seen) - set(told.shared)
                found.wrong.append(f"shared[{each}]: {len(lost)} lost, {twice} twice, {len(more)} too many")
            payloads: dict[int, set[bytes]] = {}
            for value in uncommitted[each]:
                payloads.setdefault(number_of(value), set()).add(value)
            if second := sum(len(values) > 1 for values in payloads.values()):
                found.wrong.append(f"shared[{each}]: {second} with a second payload")
            if unexpected := set(payloads) - set(told.shared):
                found.wrong.append(
                    f"shared[{each}]: {len(unexpected)} that should not be, uncommitted ones too"
                )
            numbers += told.raw
            found.shared += len(told.shared)
            found.denied += told.denied
            found.clocks[each] = told.clocks
        if sorted(numbers) != list(range(self.count)):
            found.wrong.append(f"raw: {self.count} written, {len(set(numbers))} there, {len(numbers)} in all")
        if any(self._read(topics.dlq)):
            found.wrong.append("dead letters")
        return found

    def said(self) -> dict[str, Any]:
        """What the share workers counted, by the last record of each partition's changelog: `events`, `shared`,
        `denied`. (A worker's own sum has partitions in it that another one took over since.)"""
        last: dict[int, dict[str, Any]] = {}
        for message in records(self.admin, self.contract.topics.ledger, PARTITIONS, committed=True):
            if message.key() == STATE_KEY:
                last[message.partition()] = json.loads(message.value())
        denied: Counter[str] = Counter()
        for body in last.values():
            denied.update(body["denied"])
        total = {name: sum(body[name] for body in last.values()) for name in ("events", "shared")}
        return {**total, "denied": denied}

    def close(self) -> dict[str, int | None]:
        codes = {role.name: role.down() for role in self.roles}
        self._reader.close()
        self._file.close()
        return codes
