"""Which fault comes when, from a seed; and how each is done."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.proxy import HELD, LOST, UNANSWERED, Hold
from tests.chaos.scene import Scene

KINDS = ("kill", "broker", "stall", "rebalance", "network", "zombie", "producer", "endtxn")
ON_REQUEST = ("registry",)  # a keeper's restarts are few, and the broker's count more
WEIGHTS = {
    "kill": 8,
    "broker": 2,
    "stall": 2,
    "rebalance": 3,
    "network": 6,
    "zombie": 2,
    "producer": 2,
    "endtxn": 3,
}
WEIGHTS |= dict.fromkeys(ON_REQUEST, 1)
VARIANTS: dict[str, tuple[str, ...]] = {
    "kill": ("restart", "restart", "takeover"),
    "network": ("cut", "reset", "delay", "half-open", "no-coordinator"),
    "endtxn": (*[LOST] * 5, HELD, UNANSWERED),
}
BETWEEN_ENDS = 101.0  # of the keeper's children: it gives up after the fourth end in five minutes
HOLD_SECONDS = 30.0
NO_COORDINATOR_LASTS = 5.0  # longer than the session
DELAY_SECONDS, DELAY_LASTS = 2.0, 6.0


@dataclass(frozen=True, slots=True)
class Fault:
    """`target`: which of the workers, or with `network` the publisher too; `pause` before it; `lasts` where it has
    a length."""

    kind: str
    variant: str
    target: int
    pause: float
    lasts: float

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.variant}" if self.variant else self.kind


def plan(seed: int, kinds: Sequence[str]) -> Iterator[Fault]:
    """The faults of a run in their order, without an end. Every kind comes once before one comes twice."""
    rng = random.Random(seed)
    first = [kind for kind in (*KINDS, *ON_REQUEST) if kind in kinds]
    bags: dict[str, list[str]] = {}
    adds = 0
    while True:
        kind = first.pop(0) if first else rng.choices(kinds, [WEIGHTS[each] for each in kinds])[0]
        variant = ""
        if kind == "rebalance":
            variant = ("add", "remove")[adds % 2]
            adds += 1
        elif kind in VARIANTS:
            bag = bags.setdefault(kind, [])
            if not bag:
                bag.extend(rng.sample(VARIANTS[kind], len(VARIANTS[kind])))
            variant = bag.pop()
        target = rng.randrange(3 if kind == "network" else 2)
        yield Fault(kind, variant, target, rng.uniform(0.2, 1.5), rng.uniform(5.0, 14.0))


@dataclass(slots=True)
class Faults:
    """Does faults one after the other; the next one begins when every partition is back.

    `seconds`: by name, from the fault to the first event written after it that every partition has shared; of `delay`
    and `stall` from their ends. `stuck`: faults after which that took longer than a minute.
    """

    scene: Scene
    say: Callable[[str], None]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)
    _ended_at: float = -1e9

    def do(self, fault: Fault) -> None:
        scene = self.scene
        if fault.kind in ("broker", "registry"):
            if time.monotonic() - self._ended_at < BETWEEN_ENDS:
                return
            self._ended_at = time.monotonic()
        scene.endure(fault.pause)
        at = time.monotonic()
        began, written = getattr(self, f"_{fault.kind}")(fault)
        if not scene.back(written):
            self.stuck.append(fault.name)
        took = time.monotonic() - began
        self.seconds.setdefault(fault.name, []).append(took)
        self.say(
            f"{fault.name} on {fault.target}: back after {took:.2f} s ({time.monotonic() - at:.1f} s in all)"
        )
        self._heal(fault)

    def _heal(self, fault: Fault) -> None:
        """What was held down comes back, and has its share again before the next fault."""
        if fault.name == "kill:takeover":
            self.scene.workers[fault.target].wanted = True
            self.scene.joined(self.scene.workers[fault.target])
        elif fault.kind == "zombie":
            self.scene.endure(fault.lasts)
            self.scene.workers[fault.target].send(signal.SIGCONT)
            self.scene.endure(4.0)
        self.scene.back(self.scene.mark()[1])

    def _kill(self, fault: Fault) -> tuple[float, int]:
        slot = self.scene.workers[fault.target]
        slot.wanted = fault.variant == "restart"
        slot.send(signal.SIGKILL)
        return self.scene.mark()

    def _rebalance(self, fault: Fault) -> tuple[float, int]:
        spare = self.scene.spare
        if fault.variant == "add":
            spare.wanted = True
            self.scene.joined(spare)
            return self.scene.mark()
        found = self.scene.mark()
        spare.wanted = False
        spare.send(signal.SIGTERM)
        return found

    def _producer(self, fault: Fault) -> tuple[float, int]:
        self.scene.publisher.send(signal.SIGKILL)
        return self.scene.mark()

    def _broker(self, fault: Fault) -> tuple[float, int]:
        os.kill(self.scene.ground.pid("broker"), signal.SIGKILL)
        return self.scene.mark()

    def _stall(self, fault: Fault) -> tuple[float, int]:
        """The broker stands still for longer than its own session: its controller fences it, and every partition has no
        leader for a while, the coordinators' among them."""
        pid = self.scene.ground.pid("broker")
        os.kill(pid, signal.SIGSTOP)
        try:
            self.scene.endure(fault.lasts)
        finally:
            os.kill(pid, signal.SIGCONT)
        return self.scene.mark()

    def _registry(self, fault: Fault) -> tuple[float, int]:
        """With a worker, which cannot start without it."""
        os.kill(self.scene.ground.pid("registry"), signal.SIGKILL)
        self.scene.workers[fault.target].send(signal.SIGKILL)
        return self.scene.mark()

    def _zombie(self, fault: Fault) -> tuple[float, int]:
        self.scene.workers[fault.target].send(signal.SIGSTOP)
        return self.scene.mark()

    def _network(self, fault: Fault) -> tuple[float, int]:
        scene = self.scene
        proxy = [*scene.workers, scene.publisher][fault.target].proxy
        if fault.variant == "delay":
            proxy.delay = DELAY_SECONDS
            scene.endure(DELAY_LASTS)
            proxy.delay = 0.0
        elif fault.variant == "no-coordinator":
            proxy.coordinator = False
            scene.endure(NO_COORDINATOR_LASTS)
            proxy.coordinator = True
        elif fault.variant == "half-open":
            scene.network.call(proxy.silence)
        else:
            scene.network.call(lambda: proxy.cut(hard=fault.variant == "reset"))
        return scene.mark()

    def _endtxn(self, fault: Fault) -> tuple[float, int]:
        proxy = self.scene.workers[fault.target].proxy
        proxy.holds.append(Hold(fault.variant, HOLD_SECONDS))
        self.scene.endure_until(lambda: not proxy.holds, 10.0)
        return self.scene.mark()
