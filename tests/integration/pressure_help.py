"""A contract under load: the shipped publisher and two workers as processes, and what became of every event.

Event n is of unit n % UNITS in a minute of its own, so that all of them are shared, in the order in which they were
sent: what a partition of raw and of shared must hold is known without asking any of the code under test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas.contract import Contract, parse
from schemas.partition import partition
from sluice.ops.doctor import Doctor
from sluice.stack import leash
from sluice.stack.provision import Opened, open_contract
from streams.kafka.clients import Connection, logger
from tests.integration.kafka_help import read, unique

CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:pressure.example
source: {{kind: csv, path: load.csv, follow: true}}
event:
  key: card
  time: {{field: at, format: epoch_ms}}
  fields:
    number: {{type: int}}
    card: {{type: string}}
    at: {{type: timestamp}}
    amount: {{type: int}}
privacy:
  protects: person
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 10
  contribution: {{max: 100, of: [at], held_by: ledger}}
  unit: [card]
  fields:
    number: {{public: {{because: the test tells records apart by it}}}}
    card: pseudonym
    at: {{time: 1min}}
    amount: {{count: {{min: 0, max: 100, per_unit: 100}}}}
terms: {{purpose: [test], for: 1d}}
partitions: 2
"""
HEADER = "number,card,at,amount,note\n"
UNITS = 20_000
KEEPS_UP_SECONDS = 30.0
PARTITIONS = 2
DAY_MS, MINUTE_MS = 86_400_000, 60_000
ROOT = Path(__file__).parents[2]
HOMES = [partition(f"card-{unit}".encode(), PARTITIONS) for unit in range(UNITS)]


def sluice(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command as a user runs it; `communicate` brings what it says."""
    return subprocess.Popen(
        [sys.executable, "-m", "sluice.cli.main", *arguments],
        env={**os.environ, "SLUICE_HOME": str(home), "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def number_of(value: bytes) -> int:
    """The first field of a framed event: a long behind the branch of a union, in Avro's zigzag."""
    shift = number = 0
    for byte in value[6:16]:
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return number >> 1 ^ -(number & 1)


class Load(threading.Thread):
    """Whole lines into a file that is being followed, `rate` a second. `count` of them are there by now."""

    def __init__(self, file: Path, rate: float) -> None:
        super().__init__(name="load", daemon=True)
        self.rate, self.count, self.held = rate, 0, False
        self._file = file.open("ab", buffering=0)
        self._file.write(HEADER.encode())
        self._begin_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
        self._over = threading.Event()

    def run(self) -> None:
        exact, at = 0.0, time.monotonic()
        while not self._over.wait(0.02):
            before, at = at, time.monotonic()
            exact += 0.0 if self.held else (at - before) * self.rate
            due = int(exact)
            self._file.write(b"".join(map(self._line, range(self.count, due))))
            self.count = due

    def _line(self, number: int) -> bytes:
        turn, unit = divmod(number, UNITS)
        at = self._begin_ms + turn * MINUTE_MS
        return b"%d,card-%d,%d,%d,note-%d\n" % (number, unit, at, number % 90, number)

    def end(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self.join()
            self._file.close()


@dataclass
class Process:
    """One of ours, in the background; what it says is in `log`."""

    name: str
    log: Path
    child: subprocess.Popen[bytes]

    @property
    def text(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

    def peak_mib(self) -> float:
        """The most memory it has ever held; 0 where the system does not tell."""
        status = Path(f"/proc/{self.child.pid}/status")
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024 if status.exists() else 0.0


@dataclass
class Trial:
    """A running load. `last`: by partition, the newest number that a read_committed reader of shared has seen."""

    home: Path
    connection: Callable[[str], Connection]
    contract: Contract
    file: Path
    opened: Opened
    load: Load
    processes: dict[str, Process] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), -1))

    def __post_init__(self) -> None:
        settings = self.connection("admin").settings(
            group_id="watch", isolation_level="read_committed", enable_auto_commit=False, fetch_wait_max_ms=50
        )
        self._watch = Consumer(settings, logger=logger())
        self._watch.assign(
            [TopicPartition(self.contract.topics.shared, each, OFFSET_BEGINNING) for each in self.last]
        )

    def start(self, name: str, command: str, *options: str, file: Path | None = None) -> Process:
        """`sluice COMMAND FILE --json OPTIONS`, with the contract's file unless another is named."""
        log = self.file.parent / f"{name}.log"
        words = [command, str(file or self.file), "--json", *options]
        with log.open("ab") as out:
            child = subprocess.Popen(
                [*leash.prefix(), sys.executable, "-m", "sluice.cli.main", *words],
                env={**os.environ, "SLUICE_HOME": str(self.home), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.processes[name] = Process(name, log, child)
        return self.processes[name]

    def look(self, seconds: float) -> None:
        for message in self._watch.consume(5000, seconds):
            if message.error() is None:
                where = int(message.partition() or 0)
                self.last[where] = max(self.last[where], number_of(message.value() or b""))

    def until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            assert self.ended == {}, self.told()
            self.look(0.05)
        return True

    def endure(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def back(self, seconds: float = 150.0) -> float:
        """Seconds until every partition has shared what is written after this call. Fails after `seconds`. A machine
        so busy that it is still behind after KEEPS_UP_SECONDS gets no more load until it is not."""
        began, written = time.monotonic(), self.load.count
        if not self.until(lambda: min(self.last.values()) > written, KEEPS_UP_SECONDS):
            self.load.held = True
            assert self.until(lambda: min(self.last.values()) > written, seconds), self.told()
            self.load.held = False
        return time.monotonic() - began

    @property
    def behind(self) -> int:
        """Events that are written, and not yet shared by the slowest partition."""
        return self.load.count - min(self.last.values())

    def told(self) -> dict[str, str]:
        """The ends of all logs."""
        return {name: each.text[-2000:] for name, each in self.processes.items()}

    @property
    def ended(self) -> dict[str, int]:
        """Processes that have ended by themselves, with their exit codes."""
        codes = {name: each.child.poll() for name, each in self.processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    @property
    def peak_mib(self) -> float:
        return max(each.peak_mib() for each in self.processes.values() if each.child.poll() is None)

    def check(
        self,
        alike: Callable[[Collection[bytes]], bool] = lambda payloads: len(payloads) == 1,
        seconds: float = 200.0,
    ) -> None:
        """Lets all that was written flow to its end and stops everything. Then: every event is in raw and in shared
        once, in order, with payloads that are `alike` for uncommitted readers too; no letters; nothing is torn."""
        assert self.ended == {}, self.told()
        self.load.end()
        wanted: list[list[int]] = [[] for _ in range(PARTITIONS)]
        for number in range(self.load.count):
            wanted[HOMES[number % UNITS]].append(number)
        ends = {each: numbers[-1] for each, numbers in enumerate(wanted)}
        assert self.until(lambda: self.last == ends, seconds), (self.last, ends, self.told())
        codes = {name: each.end() for name, each in self.processes.items()}
        assert set(codes.values()) == {0}, (codes, self.told())
        admin, topics = self.connection("admin"), self.contract.topics
        clock = self.opened.schema_ids["sluice.clock"].to_bytes(4, "big")
        for each in range(PARTITIONS):
            raw = [m.value() for m in read(admin, topics.raw, each)]
            compare(topics.raw, [number_of(value) for value in raw if value[1:5] != clock], wanted[each])
            compare(
                topics.shared, [number_of(m.value()) for m in read(admin, topics.shared, each)], wanted[each]
            )
            payloads: dict[int, set[bytes]] = {}
            for message in read(admin, topics.shared, each, committed=False):
                payloads.setdefault(number_of(message.value()), set()).add(message.value())
            assert all(map(alike, payloads.values()))
            assert read(admin, topics.dlq, each) == []
        (report,) = Doctor(admin).look(time.time_ns() // 1_000_000, self.contract.contract)
        assert report.problems == ()

    def close(self) -> None:
        self.load.end()
        for each in self.processes.values():
            if each.child.poll() is None:
                each.end()
        self._watch.close()


def compare(topic: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    """Says what differs in few words: the lists are long."""
    if list(found) != list(wanted):
        lost, odd = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        twice = len(found) - len(set(found))
        raise AssertionError(
            f"{topic}: {len(lost)} lost {lost[:5]}, {len(odd)} odd {odd[:5]}, {twice} twice, or in another order"
        )


@contextmanager
def trial(
    home: Path,
    connection: Callable[[str], Connection],
    folder: Path,
    rate: float = 5_000.0,
    workers: int = 2,
    contract: str = CONTRACT,
) -> Iterator[Trial]:
    """Contract open, publisher and workers started, every partition sharing at `rate` events a second. `contract`:
    the text, whose {name} is filled in.
    """
    folder.mkdir(exist_ok=True)
    text, file = contract.format(name=unique("pressure")), folder / "contract.yaml"
    file.write_text(text)
    parsed = parse(text, folder)
    opened = open_contract(parsed, connection("admin"))
    running = Trial(home, connection, parsed, file, opened, Load(folder / "load.csv", rate))
    try:
        running.load.start()
        running.start("publish", "publish", "--no-open")
        for slot in range(workers):
            running.start(f"share{slot}", "share", "--no-open", "--slot", str(slot))
        running.back()
        yield running
    finally:
        running.close()
