"""All that runs: publisher, workers, their networks, load, poison and the watching reader, in one loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException

from producers.positions import Positions
from schemas.contract import Contract
from schemas.errors import SluiceError
from streams.kafka.clients import Connection
from tests.chaos.audit import UnstableError, committed_offset, records
from tests.chaos.load import Load, Poison
from tests.chaos.proxy import Network
from tests.chaos.watch import Learned, Watch
from tests.chaos.workers import Slot

BACK_SECONDS = 60.0
STEADY_SECONDS, SETTLE_SECONDS = 2.0, 20.0
DRAIN_SECONDS = 120.0


class Patience:
    """For what may be slow on a busy machine, and must not stand still."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._marks: dict[int, tuple[int, float]] = {}  # where each was, and since when

    def over(self, marks: Mapping[int, int]) -> bool:
        """Whether one of them has stood still for too long."""
        now = time.monotonic()
        for name, at in marks.items():
            if name not in self._marks or self._marks[name][0] != at:
                self._marks[name] = at, now
        return any(now - self._marks[name][1] > self._seconds for name in marks)


@dataclass(frozen=True, slots=True)
class Ground:
    """A running stack: `connection(role)`, and its processes' ids, which change when its keeper starts them again."""

    home: Path
    connection: Callable[[str], Connection]

    def pid(self, role: str) -> int:
        return int(json.loads((self.home / "stack.json").read_text())["pids"][role])

    @property
    def port(self) -> int:
        return int(self.connection("admin").bootstrap.rpartition(":")[2])


class Scene:
    """Two workers, a spare one that is added and removed, a trainer and a publisher, each behind a proxy of its own."""

    def __init__(
        self,
        ground: Ground,
        contract: Contract,
        file: Path,
        load: Load,
        *,
        recycling: bool,
        task: Path | None = None,
    ) -> None:
        self.ground, self.contract, self.load = ground, contract, load
        admin = ground.connection("admin")
        self.network = Network()

        def slot(name: str, arguments: list[str], recycling: bool = True) -> Slot:
            proxy = self.network.proxy(ground.port)
            log = file.parent / f"{name}.log"
            return Slot(name, arguments, ground.home, log, proxy, recycling)

        share = ["share", str(file), "--json", "--no-open", "--slot"]
        self.workers = [slot(f"share{number}", [*share, str(number)], recycling) for number in range(2)]
        self.spare = slot("share2", [*share, "2"], recycling)
        self.publisher = slot("publish", ["publish", str(file), "--json", "--no-open"])
        self.trainer: Slot | None = None
        if task is not None:  # one transaction a second holds all that came in it
            words = ["train", str(task), "--json", "--no-open", "--batch-records", "20000"]
            self.trainer = slot("train", words)
        self.poison = Poison(admin, contract.topics.raw, contract.partitions)
        self.watch = Watch(admin, contract.topics.shared, contract.partitions)
        self._learned = Learned(admin, task.stem, contract.topics.shared, self.watch) if task else None

    @property
    def slots(self) -> list[Slot]:
        trainers = [self.trainer] if self.trainer is not None else []
        return [*self.workers, self.spare, *trainers, self.publisher]

    def begin(self) -> None:
        """Returns when every partition has shared something, and the trainer has learned of it. Raises TimeoutError."""
        for slot in self.slots:
            slot.wanted = slot is not self.spare
        self.load.begin()
        if not self.endure_until(lambda: self.watch.behind(0), 90):
            raise TimeoutError("nothing is shared; see the logs of publish and share")
        if not self.learned_back(0):
            raise TimeoutError("nothing is learned; see the log of train")

    def tick(self) -> None:
        """20 ms of everything."""
        self.load.look()
        self.poison.look()
        for slot in self.slots:
            slot.look()
        self.watch.look(0.02)

    def endure(self, seconds: float) -> None:
        self.endure_until(lambda: False, seconds)

    def endure_until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() >= deadline:
                return False
            self.tick()
        return True

    def mark(self) -> tuple[float, int]:
        """This moment, and the number of the last event that is written by now."""
        return time.monotonic(), self.load.count

    def back(self, written: int) -> bool:
        """False where one of the partitions stands still; a slow one is waited for."""
        return self._while_it_moves(lambda: self.watch.behind(written), lambda: self.watch.last)

    def learned_back(self, written: int) -> bool:
        """Waits for the trainer; True at once where there is none."""
        learned = self._learned
        if learned is None:
            return True
        return self._while_it_moves(lambda: learned.behind(written), lambda: {0: learned.offsets})

    def _while_it_moves(self, done: Callable[[], bool], marks: Callable[[], Mapping[int, int]]) -> bool:
        patience = Patience(BACK_SECONDS)
        while not done():
            if patience.over(marks()):
                return False
            self.tick()
        return True

    def settle(self) -> bool:
        """Waits until nothing has been behind by more than a second for two: all that was held up is worked off."""
        since = time.monotonic()

        def steady() -> bool:
            nonlocal since
            if not self.watch.behind(self.load.count - int(self.load.rate)):
                since = time.monotonic()
            return time.monotonic() - since >= STEADY_SECONDS

        return self.endure_until(steady, SETTLE_SECONDS)

    def joined(self, slot: Slot) -> None:
        """Waits until this process, just started, takes part in its group."""
        size = slot.log.stat().st_size if slot.log.exists() else 0

        def assigned() -> bool:
            if not slot.log.exists():
                return False
            with slot.log.open("rb") as log:
                log.seek(size)
                return b'"assigned"' in log.read()

        self.endure_until(assigned, 40)

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """No more load: until all that was written is in raw, all of raw is committed by the share group, and all of
        shared by the trainer's. False where that stands still for so long."""
        size, at, patience = self.load.size, 0, Patience(seconds)
        positions = Positions(self.ground.connection("producer"), self.contract.topics.source)
        while at < size:
            try:
                found = positions.read("load.csv")
            except (SluiceError, KafkaException):
                found = None
            at = found.position.offset if found is not None else at
            if patience.over({0: at}):
                return False
            self._pause()
        admin, topics = self.ground.connection("admin"), self.contract.topics
        try:
            for partition, last in self._lasts(topics.raw).items():
                patience = Patience(seconds)
                while (at := committed_offset(admin, self.contract, partition)) <= last:
                    if patience.over({0: at}):
                        return False
                    self._pause()
            if self._learned is None:
                return True
            lasts, patience = self._lasts(topics.shared), Patience(seconds)
            while not self._learned.at_least(lasts):
                if patience.over({0: self._learned.offsets}):
                    return False
                self._pause()
        except UnstableError:
            return False
        return True

    def _lasts(self, topic: str) -> dict[int, int]:
        """Offset of the last committed record of each partition."""
        admin, count = self.ground.connection("admin"), self.contract.partitions
        return {
            each.partition(): each.offset()
            for each in records(admin, topic, count, committed=True, tail=20_000)
        }

    def _pause(self) -> None:
        for slot in self.slots:
            slot.look()
        self.watch.look(0.2)

    def close(self) -> None:
        for slot in self.slots:
            slot.down()
        self.watch.close()
        if self._learned is not None:
            self._learned.close()
        self.network.close()
        self.load.close()
