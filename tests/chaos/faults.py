"""How each fault is done, and how long the way back takes."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.plans import Fault
from tests.chaos.proxy import Hold, Proxy
from tests.chaos.scene import Scene
from tests.chaos.workers import Slot

# The keeper gives up at the fourth end of a child in five minutes; and a little.
ENDS, ENDS_SECONDS = 3, 304.0
HOLD_SECONDS = 30.0
NO_COORDINATOR_LASTS = 5.0  # longer than the session
DELAY_SECONDS, DELAY_LASTS = 2.0, 6.0


@dataclass(slots=True)
class Faults:
    """Does faults one after the other; the next one begins when every partition has been at full rate for a while.

    `seconds`: by name, from the fault to the first event written after it that every partition has shared; of `delay`
    and `stall` from their ends; of the trainer, and in `learned` of all faults that touch it, until it has learned
    such an event.
    `stuck`: faults after which a partition, or the trainer, stood still for a minute. `killed`: SIGKILLs by victim.
    """

    scene: Scene
    say: Callable[[str], None]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    learned: dict[str, list[float]] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    _down: Slot | None = None
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=ENDS))

    def may(self, fault: Fault) -> bool:
        """False while the keeper would give up after it."""
        full = fault.kind in ("broker", "registry") and len(self._ends) == ENDS
        return not full or time.monotonic() - self._ends[0] > ENDS_SECONDS

    def do(self, fault: Fault) -> None:
        scene = self.scene
        if fault.kind in ("broker", "registry"):
            self._ends.append(time.monotonic() + fault.pause)
        scene.endure(fault.pause)
        at = time.monotonic()
        began, written = getattr(self, f"_{fault.kind}")(fault)
        whole = scene.back(written)
        took = time.monotonic() - began
        learned = ""
        if scene.trainer is not None and self._touches_trainer(fault):
            whole = scene.learned_back(written) and whole
            self.learned.setdefault(fault.name, []).append(time.monotonic() - began)
            learned = f", trainer after {time.monotonic() - began:.2f} s"
            if fault.kind == "trainer":
                took, learned = time.monotonic() - began, ""
        if not whole:
            self.stuck.append(fault.name)
        self.seconds.setdefault(fault.name, []).append(took)
        self._heal(fault)
        self.say(
            f"{fault.name} on {fault.target}: back after {took:.2f} s{learned} "
            f"({time.monotonic() - at:.1f} s in all)"
        )

    @staticmethod
    def _touches_trainer(fault: Fault) -> bool:
        if fault.kind in ("network", "endtxn"):
            return fault.target == 3
        return fault.kind in ("trainer", "broker", "stall", "registry")

    def _heal(self, fault: Fault) -> None:
        """What was held down comes back, and has its share again before the next fault."""
        if fault.name == "kill:takeover" and self._down is not None:
            self._down.wanted = True
            self.scene.joined(self._down)
        elif fault.kind == "zombie" and self._down is not None:
            self.scene.endure(fault.lasts)
            self._down.send(signal.SIGCONT)
            self.scene.endure(4.0)
        self.scene.settle()

    def _worker(self, fault: Fault) -> Slot:
        scene = self.scene
        there = [*scene.workers, scene.spare] if scene.spare.wanted else scene.workers
        return there[fault.target % len(there)]

    def _end(self, slot: Slot) -> tuple[float, int]:
        slot.send(signal.SIGKILL)
        self.killed[slot.name.rstrip("0123456789")] += 1
        return self.scene.mark()

    def _end_of_stack(self, role: str) -> tuple[float, int]:
        os.kill(self.scene.ground.pid(role), signal.SIGKILL)
        self.killed[role] += 1
        return self.scene.mark()

    def _kill(self, fault: Fault) -> tuple[float, int]:
        self._down = slot = self._worker(fault)
        slot.wanted = fault.variant == "restart"
        return self._end(slot)

    def _trainer(self, fault: Fault) -> tuple[float, int]:
        assert self.scene.trainer is not None
        return self._end(self.scene.trainer)

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
        return self._end(self.scene.publisher)

    def _broker(self, fault: Fault) -> tuple[float, int]:
        return self._end_of_stack("broker")

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
        """With a process that cannot start without it."""
        self._end_of_stack("registry")
        return self._end(
            self.scene.trainer if self.scene.trainer and fault.target % 2 else self._worker(fault)
        )

    def _zombie(self, fault: Fault) -> tuple[float, int]:
        self._down = self._worker(fault)
        self._down.send(signal.SIGSTOP)
        return self.scene.mark()

    def _network(self, fault: Fault) -> tuple[float, int]:
        scene = self.scene
        proxy = self._proxy(fault)
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
        proxy = self._proxy(fault)
        proxy.holds.append(Hold(fault.variant, HOLD_SECONDS))
        if not self.scene.endure_until(lambda: not proxy.holds, 10.0):
            proxy.holds.clear()  # that client commits nothing now: no trial
        return self.scene.mark()

    def _proxy(self, fault: Fault) -> Proxy:
        scene = self.scene
        return [*scene.workers, scene.publisher, scene.trainer or scene.publisher][fault.target].proxy
