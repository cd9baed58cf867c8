"""The load's events: number n is a pure function of (seed, n), so nobody has to remember what was sent.

Five in a hundred go back to an earlier minute of their unit (used, or too old), the last of a unit's day are beyond its
contribution, two in a thousand are rows that no parser takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.partition import partition

MINUTE_MS, DAY_MS = 60_000, 86_400_000
STEP = 30  # minutes between two events of a unit
DAYS = 3  # yesterday to tomorrow: later than the clock's next epoch would be denied for that
ROUNDS = DAYS * 24 * 60 // STEP
CAP = 40  # of 48 events a day
HEADER = b"number,card,at,amount,kind\n"
CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:chaos.example
source: {{kind: csv, path: load.csv, follow: true}}
event:
  key: card
  time: {{field: at, format: epoch_ms}}
  fields:
    number: {{type: int}}
    card: {{type: string}}
    at: {{type: timestamp}}
    amount: {{type: int}}
    kind: {{type: string}}
privacy:
  protects: person
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 10
  contribution: {{max: {cap}, of: [at], held_by: ledger}}
  unit: [card]
  fields:
    number: {{public: {{because: the test tells records apart by it}}}}
    card: pseudonym
    at: {{time: 1min}}
    amount: {{count: {{min: 0, max: 100, per_unit: 100}}}}
    kind: {{category: {{members: [a, b, c], other: c}}}}
terms: {{purpose: [test], for: 1d}}
partitions: {partitions}
"""


@dataclass(frozen=True, slots=True)
class Event:
    """`slot` is the minute since 1970; a `broken` one is a row that cannot be read."""

    number: int
    unit: int
    slot: int
    partition: int
    broken: bool
    amount: int

    @property
    def card(self) -> str:
        return f"card-{self.unit}"

    @property
    def epoch(self) -> int:
        """Days since 1970."""
        return self.slot * MINUTE_MS // DAY_MS

    def line(self) -> bytes:
        if self.broken:
            return b"broken,%d\n" % self.number
        kind = "abcd"[self.amount % 4]
        return f"{self.number},{self.card},{self.slot * MINUTE_MS},{self.amount},{kind}\n".encode()


@dataclass(frozen=True, slots=True)
class Script:
    """`start_ms`: midnight of the first day. `units` must be enough for the whole run; see `units_for`."""

    seed: int
    units: int
    start_ms: int
    partitions: int

    @property
    def limit(self) -> int:
        """So many events fit into the days there are."""
        return ROUNDS * self.units

    def event(self, number: int) -> Event:
        around, unit = divmod(number, self.units)
        if not 0 <= number < self.limit:
            raise ValueError("the script has no such event")
        chance = _mixed(self.seed * 0x9E3779B97F4A7C15 + number)
        back = (chance >> 16 & 0xFF) % 5 if chance % 100 < 5 else 0
        slot = self.start_ms // MINUTE_MS + max(0, around - back) * STEP
        home = partition(f"card-{unit}".encode(), self.partitions)
        return Event(number, unit, slot, home, chance % 1000 >= 998, (chance >> 32) % 120)

    def events(self, count: int) -> Iterator[Event]:
        return map(self.event, range(count))


def units_for(events: int) -> int:
    """So many that each has an event in every step of the days there are, and some to spare."""
    return max(500, -(-events // (ROUNDS - 10)))


def _mixed(value: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    value &= (1 << 64) - 1
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    value = (value ^ value >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    return value ^ value >> 31
