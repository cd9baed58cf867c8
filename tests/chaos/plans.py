"""Which fault comes when, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.proxy import HELD, LOST, UNANSWERED

KINDS = ("kill", "broker", "stall", "rebalance", "network", "zombie", "producer", "endtxn", "trainer")
ON_REQUEST = ("registry",)  # a keeper's restarts are few, and the broker's count more
OFTEN = {
    "kill:restart": 46,
    "kill:takeover": 13,
    "trainer": 21,
    "producer": 18,
    "registry": 2,
}  # of 100 kills
REBALANCES = 12  # so many kills come with one worker more or less
WEIGHTS = {
    "kill": 8,
    "broker": 2,
    "stall": 2,
    "rebalance": 3,
    "network": 6,
    "zombie": 2,
    "producer": 2,
    "endtxn": 3,
    "trainer": 3,
}
WEIGHTS |= dict.fromkeys(ON_REQUEST, 1)
VARIANTS: dict[str, tuple[str, ...]] = {
    "kill": ("restart", "restart", "takeover"),
    "network": ("cut", "reset", "delay", "half-open", "no-coordinator"),
    "endtxn": (*[LOST] * 5, HELD, UNANSWERED),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`target`: which of the workers that run; with `network` and `endtxn` 2 is the publisher, 3 the trainer. `pause`
    before it; `lasts` where it has a length."""

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


def kills(seed: int, count: int, brokers: int) -> list[Fault]:
    """`count` processes killed at random, each sort at least once where they are enough; `brokers` brokers as well, and
    rebalances in between."""
    rng = random.Random(seed)
    names = [name for name, share in OFTEN.items() for _ in range(max(1, round(share * count / 100)))]
    while len(names) > count:
        names.remove(max(OFTEN, key=names.count))
    names += ["kill:restart"] * (count - len(names))
    rng.shuffle(names)
    for place in range(count - REBALANCES // 2, 0, -REBALANCES):
        names.insert(place, "rebalance")
    step = len(names) / brokers if brokers else 0.0
    for place in reversed(range(brokers)):
        names.insert(int(place * step + rng.uniform(0.2, 0.8) * step), "broker")
    found, adds = [], 0
    for name in names:
        kind, _, variant = name.partition(":")
        if kind == "rebalance":
            variant = ("add", "remove")[adds % 2]
            adds += 1
        found.append(Fault(kind, variant, rng.randrange(6), rng.uniform(0.0, 1.0), 0.0))
    return found


def endtxns(seed: int, count: int) -> list[Fault]:
    """`count` ends of transactions held back, most of them the workers'."""
    rng, bag, found = random.Random(seed), list[str](), list[Fault]()
    for _ in range(count):
        bag = bag or rng.sample(VARIANTS["endtxn"], len(VARIANTS["endtxn"]))
        target = rng.choice((0, 0, 0, 1, 1, 1, 2, 3))
        found.append(Fault("endtxn", bag.pop(), target, rng.uniform(0.0, 1.0), 0.0))
    return found
