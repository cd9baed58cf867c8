"""One soak: start everything, keep the rate, look once a second, stop in order, say what was seen."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.contract import parse
from sluice.stack.provision import open_contract, open_task
from tests.chaos.audit import number_of
from tests.chaos.scene import Ground
from tests.integration.kafka_help import unique
from tests.soak import figures
from tests.soak.events import CONTRACT, HEADER, PARTITIONS, STEP_MS, TASK, Script
from tests.soak.lags import Lags
from tests.soak.oracle import Oracle
from tests.soak.others import Others
from tests.soak.reader import reader
from tests.soak.roles import Role
from trainers.shared import shared_topic
from trainers.spec import parse as parse_task
from trainers.train import schemas

DAY_MS = 86_400_000
BACK_DAYS = 10_000  # where event time begins: 16 hours at 5,000 a second before it passes now
TRAIN_RECORDS = 10_000  # one transaction a second, as its pace has it: each writes what changed of the record
FLOWS_SECONDS, DRAIN_SECONDS = 120.0, 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` of steady load; `leak` runs the share worker that keeps every record."""

    seconds: float = 3600.0
    rate: float = 5000.0
    seed: int = 1
    leak: bool = False

    @property
    def warm_up(self) -> float:
        """Seconds after which memory and handles count: caches, arenas and the first releases are behind us."""
        return min(600.0, self.seconds / 3)

    @property
    def settled(self) -> float:
        """Seconds after which the lag counts: all have started."""
        return min(10.0, self.seconds / 3)


@dataclass(frozen=True, slots=True)
class Look:
    """For a progress bar."""

    seconds: float
    events: int
    delay: float
    mb: dict[str, float]


class Soak:
    """The roles, the load, and the reader of the shared topic who hands all he sees to the oracle."""

    def __init__(self, options: Options, ground: Ground, folder: Path) -> None:
        self.options, self.ground, self.folder = options, ground, folder
        name = unique("soak")
        file, task_file = folder / "contract.yaml", folder / "task.yaml"
        file.write_text(CONTRACT.format(name=name, partitions=PARTITIONS))
        self.contract = contract = parse(file.read_text(), folder)
        admin = ground.connection("admin")
        open_contract(contract, admin)
        task_file.write_text(TASK.format(name=name, contract=name))
        spec = parse_task(task_file.read_text())
        open_task(spec.task, [shared_topic(name)], admin, schemas(spec))
        now_ms = time.time_ns() // 1_000_000
        self.script = Script(options.seed, (now_ms - BACK_DAYS * DAY_MS) // STEP_MS * STEP_MS)
        self.oracle = Oracle(PARTITIONS)
        self.share = Role("share", ["share", str(file), "--json", "--no-open"])
        if options.leak:
            self.share.module = "tests.soak.leaky"
        self.publish = Role("publish", ["publish", str(file), "--json", "--no-open"])
        words = ["--json", "--no-open", "--batch-records", str(TRAIN_RECORDS)]
        self.train = Role("train", ["train", str(task_file), *words])
        self.stack = [Role(each, pid=ground.pid(each)) for each in ("registry", "broker")]
        self.lags = Lags(
            ground.connection("ops"),
            ground.connection("share"),
            [f"share.{name}", f"train.{name}"],
            f"{contract.topics.raw}-value",
        )
        self.others = Others()
        self.delays: list[tuple[float, float]] = []
        self.began = 0.0
        self.count = self._first = 0
        self._marks: deque[tuple[int, float]] = deque()
        self._file = (folder / "load.csv").open("ab", buffering=0)
        self._file.write(HEADER)
        self._reader = reader(admin, contract.topics.shared, PARTITIONS)

    @property
    def started(self) -> list[Role]:
        return [self.publish, self.share, self.train]

    @property
    def roles(self) -> list[Role]:
        return [*self.started, *self.stack]

    def begin(self) -> None:
        """Returns when the first events came through, and the trainer has a group. Raises TimeoutError."""
        for role in self.started:
            role.start(self.ground.home, self.folder / f"{role.name}.log")
        self._write(PARTITIONS * 500)
        deadline = time.monotonic() + FLOWS_SECONDS
        while self.oracle.waiting or '"sharing"' not in self.share.log.read_text():  # type: ignore[union-attr]
            self._read(0.1)
            if time.monotonic() > deadline or any(role.ended for role in self.started):
                raise TimeoutError(f"nothing is shared; see the logs in {self.folder}")
        self._first, self.began = self.count, time.monotonic()
        self.lags.start()

    def go(self, say: Callable[[Look], None]) -> None:
        """Steady load for the options' seconds. Raises RuntimeError where a process ends."""
        next_look = 0.0
        while (now := time.monotonic() - self.began) < self.options.seconds:
            self._write(self._first + int(now * self.options.rate))
            self._read(0.02)
            if now >= next_look:
                next_look = now + 1.0
                for role in self.roles:
                    role.look(now)
                self.others.look(now, [role.pid for role in self.roles])
                if ended := [role.name for role in self.started if role.ended]:
                    raise RuntimeError(f"ended by itself: {', '.join(ended)}; see {self.folder}")
                delay = max((each for at, each in self.delays[-200:] if at > now - 1), default=0.0)
                say(Look(now, self.count, delay, {r.name: r.held[-1].mb for r in self.roles if r.held}))

    def drain(self) -> bool:
        """No more load: until everything that must be shared is, or nothing has come for a while."""
        seen, since = -1, time.monotonic()
        while self.oracle.waiting and time.monotonic() - since < DRAIN_SECONDS:
            self._read(0.1)
            if self.oracle.seen > seen:
                seen, since = self.oracle.seen, time.monotonic()
        self._read(1.0)  # what should not come
        return not self.oracle.waiting

    def close(self) -> dict[str, int | None]:
        """Stops what was started. Exit codes by role."""
        if self.lags.is_alive():
            self.lags.stop()
        codes = {role.name: role.down() for role in self.started}
        self._reader.close()
        self._file.close()
        return codes

    def _write(self, due: int) -> None:
        if due <= self.count:
            return
        events = [self.script.event(number) for number in range(self.count, due)]
        for event in events:
            self.oracle.sent(event)
        self._file.write(b"".join(event.line() for event in events))
        self.count = due
        self._marks.append((due, time.monotonic()))

    def _read(self, seconds: float) -> None:
        """Hands what comes to the oracle; notes how old the oldest of it is, from its line to its visibility."""
        messages = self._reader.consume(5000, seconds)
        oldest = -1
        for message in messages:
            if message.error() is None:
                number = number_of(message.value() or b"")
                oldest = number if oldest < 0 else min(oldest, number)
                self.oracle.saw(int(message.partition() or 0), number)
        while oldest >= 0 and self._marks and self._marks[0][0] <= oldest:
            self._marks.popleft()
        if oldest >= 0 and self._marks and self.began:
            now = time.monotonic()
            self.delays.append((now - self.began, now - self._marks[0][1]))


def run(
    options: Options, ground: Ground, folder: Path, say: Callable[[Look], None] = lambda look: None
) -> tuple[dict[str, Any], Soak]:
    """The report, and the soak with its series for a plot. Ctrl-C ends the load early; the rest is done in order."""
    soak = Soak(options, ground, folder)
    interrupted = drained = False
    try:
        soak.begin()
        try:
            soak.go(say)
        except KeyboardInterrupt:
            interrupted = True
        lasted = time.monotonic() - soak.began
        drained = soak.drain()
    finally:
        codes = soak.close()
    return report(soak, lasted) | {"drained": drained, "interrupted": interrupted, "exits": codes}, soak


def report(soak: Soak, lasted: float) -> dict[str, Any]:
    options, oracle = soak.options, soak.oracle
    busy = soak.others.busy_seconds()

    def quiet(series: figures.Series) -> list[float]:
        return [value for at, value in series if at >= options.settled and int(at) not in busy]

    share, train = map(quiet, soak.lags.seconds.values())
    delays = quiet(soak.delays)
    ledger = _counts(soak.share.out())
    return {
        "seconds": round(lasted, 1),
        "events": oracle.events,
        "rate": round(oracle.events / lasted),
        "lost": oracle.waiting,
        "duplicated": oracle.duplicated,
        "reordered": oracle.reordered,
        "shared": oracle.shared,
        "denied": dict(oracle.denied),
        "dead_letters": oracle.broken,
        "counts_differ": ledger != (oracle.shared, oracle.denied),
        "quiet_seconds": round(lasted) - len(busy),
        "others_cores": round(soak.others.mean, 2),
        "lag_p99_s": _rounded(figures.p99(share)),
        "lag_max_s": _most(soak.lags.seconds[f"share.{soak.contract.contract}"]),
        "delay_p99_s": _rounded(figures.p99(delays)),
        "delay_max_s": _most(soak.delays),
        "train_lag_p99_s": _rounded(figures.p99(train)),
        "train_lag_max_s": _most(soak.lags.seconds[f"train.{soak.contract.contract}"]),
        "lag_looks_failed": dict(Counter(soak.lags.problems)),
        "releases": soak.train.out().count('"event": "release"'),
        "warm_up_s": options.warm_up,
        "processes": {role.name: _held(role, options.warm_up) for role in soak.roles},
        "leak_planted": options.leak,
        "seed": options.seed,
    }


def _held(role: Role, warm_up: float) -> dict[str, Any]:
    """Of one process after the warm-up: megabytes, and what they and the handles grew by."""
    held = [each for each in role.held if each.at >= warm_up]
    memory = [(each.at, each.mb) for each in held]
    found: dict[str, Any] = {
        "rss_mb": round(memory[-1][1], 1) if memory else None,
        "rss_growth_mb": round(figures.growth(memory), 2),
        "rss_slope_mb_h": round(figures.slope_an_hour(memory), 2),
    }
    for name in ("files", "threads"):
        series = [(each.at, float(getattr(each, name))) for each in held]
        found[name] = int(series[-1][1]) if series else None
        found[f"{name}_growth"] = figures.growth(series)
        found[f"{name}_most"] = int(max((value for _, value in series), default=0))
    return found


def _counts(out: str) -> tuple[int, Counter[str]] | None:
    """What the share worker says at its end: shared, and denied by reason."""
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        return None
    body = json.loads(lines[-1])
    return body["shared"], Counter(body["denied"])


def _most(series: figures.Series) -> float | None:
    return _rounded(max((value for _, value in series), default=None))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
