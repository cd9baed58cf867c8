"""Wall clocks that jump by an hour, forward and back, while events flow that come late, early and shuffled.

Each process has a clock of its own that the test sets (tests/clocks/wall.c); the machine's stays, and so do the
monotonic ones. What must hold, whoever's clock jumps: nothing lost, nothing doubled, one payload an event, every event
where the raw log says that it belongs, a worker that goes on, and a lag that is right or said to be unknown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sluice.ops.lag import Lag
from sluice.stack.home import Home
from sluice.stack.supervisor import Stack
from tests.chaos.events import DAY_MS
from tests.clocks.events import Script
from tests.clocks.scene import Scene
from tests.clocks.wall import HOUR_SECONDS, Clock, Walls

BACK_SECONDS = 60.0  # until every partition shares what was written after a jump; .2 on a free machine
IDLE_SECONDS = 20.0
READ = "import time; print(time.time_ns(), time.monotonic_ns(), flush=True); input()\n"


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Walls:
    try:
        return Walls(tmp_path_factory.mktemp("walls"))
    except OSError as problem:
        if os.environ.get("SLUICE_REQUIRE_ALL") == "1":
            raise
        pytest.skip(str(problem))


@dataclass
class Ground:
    """A stack whose broker has a settable clock, and one clock each for the share worker and the publisher."""

    stack: Stack
    walls: Walls
    broker: Clock
    share: Clock = field(init=False)
    publish: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.share, self.publish = self.walls.clock("share"), self.walls.clock("publish")

    @property
    def host(self) -> tuple[Clock, ...]:
        """One machine's clock is all of them."""
        return self.broker, self.share, self.publish

    def scene(self, folder: Path, *, units: int = 4000) -> Scene:
        script = Script(7, units, time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - 20 * 60_000)
        environments = {"publish": self.publish.environment, "share0": self.share.environment}
        return Scene(self.stack.home.path, self.stack.connection, folder, script, environments=environments)


@pytest.fixture(scope="module")
def ground(walls: Walls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    broker = walls.clock("broker")
    stack = Stack(Home(tmp_path_factory.mktemp("clocks")))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in broker.environment.items():
            patch.setenv(name, value)
        stack.start()
    try:
        yield Ground(stack, walls, broker)
    finally:
        stack.stop()


def set_to(hours: float, *clocks: Clock) -> None:
    for clock in clocks:
        clock.set(hours * HOUR_SECONDS)


def test_a_jump_moves_the_wall_clock_at_once_and_no_monotonic_one(walls: Walls) -> None:
    clock = walls.clock("itself")
    child = subprocess.Popen(
        [sys.executable, "-c", READ * 3],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    wall, steady = [], []
    for hours in (1, -1, 0):
        now, monotonic = map(int, child.stdout.readline().split())
        wall.append((now - time.time_ns()) / 1e9)
        steady.append((monotonic - time.monotonic_ns()) / 1e9)
        set_to(hours, clock)
        child.stdin.write("\n")
        child.stdin.flush()
    child.communicate(timeout=20)
    assert wall == pytest.approx([0, 3600, -3600], abs=5)
    assert steady == pytest.approx([0, 0, 0], abs=5)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_jumps_of_every_clock_under_load(ground: Ground, tmp_path: Path) -> None:
    """Worker and publisher apart, then all of a host with its broker."""
    scene = ground.scene(tmp_path)
    lag = Lag(ground.stack.connection("ops"))

    def seconds() -> float | None:
        now_ms = time.time_ns() // 1_000_000 + ground.broker.ahead_ms
        return lag.look(now_ms, [scene.group])[0].seconds

    def jumped(hours: float, *clocks: Clock) -> None:
        set_to(hours, *clocks)
        written = scene.count
        assert scene.until(lambda: scene.behind(written), BACK_SECONDS), (
            hours,
            scene.shares[0].said()[-3000:],
        )
        scene.endure(0.7)

    try:
        scene.begin()
        for hours in (1, 0, -1, 0):
            jumped(hours, ground.share)
            jumped(-hours, ground.publish)
            age = seconds()
            assert age is not None
            assert 0 <= age < BACK_SECONDS
        jumped(1, *ground.host)
        age = seconds()
        assert age is not None
        assert 0 <= age < BACK_SECONDS
        jumped(0, *ground.host)
        assert seconds() in (None, 0.0), "behind what was appended an hour ahead no age can be known"
        jumped(-1, *ground.host)
        scene.drain()
    finally:
        codes = scene.close()
        set_to(0, *ground.host)
    assert codes == {"publish": 0, "share0": 0}, scene.shares[0].said()[-3000:]
    verdict = scene.verdict()
    assert verdict.wrong == []
    assert scene.said() == {"events": verdict.events, "shared": verdict.shared, "denied": verdict.denied}
    assert set(verdict.denied) == {"slot-used", "slot-too-old", "epoch-closed", "epoch-future"}
    for clocks in verdict.clocks.values():
        if "publish" not in scene.restarts:
            assert clocks == sorted(set(clocks)), "the clock records of a run only go forward"
        assert max(clocks) - clocks[0] >= HOUR_SECONDS * 1000


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.xfail(
    strict=False, reason="librdkafka's issue 2145: on a busy machine a client may sleep on for long"
)
def test_an_idle_host_whose_clock_is_set_back(ground: Ground, tmp_path: Path) -> None:
    """librdkafka's timed waits are of the wall clock: set back, a client that has nothing to do sleeps for an hour, its
    heartbeats too, and leaves its group. The next record should wake it: on a free machine it does, within 1.1 s."""
    scene = ground.scene(tmp_path)
    try:
        scene.begin()
        scene.rate = 0.0
        scene.endure(3.0)
        set_to(-1, *ground.host)
        scene.endure(5.0)
        written = scene.count - 1
        scene.write(scene.count + 400)
        assert scene.until(lambda: scene.behind(written), IDLE_SECONDS), scene.shares[0].said()[-3000:]
        scene.drain()
    finally:
        set_to(0, *ground.host)
        scene.close()
    assert scene.verdict().wrong == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_lag_of_a_stopped_worker(ground: Ground, tmp_path: Path) -> None:
    """Right while the clock only goes forward; unknown, and not nothing, behind a clock that was set back."""
    scene = ground.scene(tmp_path)

    def printed() -> tuple[int, float | None]:
        found = subprocess.run(
            [sys.executable, "-m", "sluice.cli.main", "lag", "--json", "--group", scene.group],
            env={**os.environ, **ground.broker.environment, "SLUICE_HOME": str(ground.stack.home.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        body = json.loads(found.stdout)
        assert body["seconds"] == body["groups"][0]["seconds"]
        return body["messages"], body["seconds"]

    try:
        scene.begin()
        set_to(1, *ground.host)
        since, written = time.monotonic(), scene.count
        assert scene.until(lambda: scene.behind(written), BACK_SECONDS)
        scene.shares.pop().kill()
        scene.endure(1.0)
        messages, age = printed()
        assert messages > 0
        assert age is not None
        assert 0.5 <= age <= time.monotonic() - since + 1
        set_to(0, *ground.host)
        scene.endure(0.5)
        messages, age = printed()
        assert messages > 0
        assert age is None
    finally:
        scene.close()
        set_to(0, *ground.host)
