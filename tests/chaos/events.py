"""The load's events: number n is a pure function of (seed, n), so nobody has to remember what was sent.

Five in a hundred go back to an earlier minute of their unit (used, or too old), the last of a unit's day are beyond its
contribution, two in a thousand are rows that no parser takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from schemas.partition import partition, unit_bytes

MINUTE_MS, DAY_MS = 60_000, 86_400_000
STEP = 30  # minutes between two events of a unit
DAYS = 3  # the last is today: a trainer leaves out what is more than a day ahead of the broker's clock
PARTITIONS = 4
STATIONS = 4  # of each partition: keys of the shared topic; what a trainer learns of one follows from its log
ROUNDS = DAYS * 24 * 60 // STEP
CAP = 40  # of 48 events a day
HEADER = b"number,card,at,amount,kind,station\n"
CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:chaos.example
source: {{kind: csv, path: load.csv, follow: true}}
event:
  key: station
  time: {{field: at, format: epoch_ms}}
  fields:
    number: {{type: int}}
    card: {{type: string}}
    at: {{type: timestamp}}
    amount: {{type: int}}
    kind: {{type: string}}
    station: {{type: string}}
privacy:
  protects: person
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 10
  contribution: {{max: {cap}, of: [at], held_by: ledger}}
  unit: [card, station]
  fields:
    number: {{public: {{because: the test tells records apart by it}}}}
    card: pseudonym
    at: {{time: 1min}}
    amount: {{count: {{min: 0, max: 100, per_unit: 100}}}}
    kind: {{category: {{members: [a, b, c], other: c}}}}
    station: public
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
        return who(self.unit)[0]

    @property
    def epoch(self) -> int:
        """Days since 1970."""
        return self.slot * MINUTE_MS // DAY_MS

    @property
    def station(self) -> str:
        return who(self.unit)[1]

    def line(self) -> bytes:
        if self.broken:
            return b"broken,%d\n" % self.number
        kind = "abcd"[self.amount % 4]
        at = self.slot * MINUTE_MS
        return f"{self.number},{self.card},{at},{self.amount},{kind},{self.station}\n".encode()


@dataclass(frozen=True, slots=True)
class Script:
    """`start_ms`: midnight of the first day. `units` must be enough for the whole run; see `units_for`."""

    seed: int
    units: int
    start_ms: int

    @property
    def limit(self) -> int:
        """So many events fit into the days there are."""
        return ROUNDS * self.units

    def event(self, number: int) -> Event:
        around, unit = divmod(number, self.units)
        if not 0 <= number < self.limit:
            raise ValueError("the script has no such event")
        chance = mixed(self.seed * 0x9E3779B97F4A7C15 + number)
        back = (chance >> 16 & 0xFF) % 5 if chance % 100 < 5 else 0
        slot = self.start_ms // MINUTE_MS + max(0, around - back) * STEP + unit * STEP // self.units
        return Event(number, unit, slot, unit % PARTITIONS, chance % 1000 >= 998, (chance >> 32) % 120)

    def events(self, count: int) -> Iterator[Event]:
        return map(self.event, range(count))


@lru_cache(1 << 18)
def who(unit: int) -> tuple[str, str]:
    """Card and station of a unit: the first card of that number that lives in its station's partition."""
    home = unit % PARTITIONS
    station = f"station-{home}-{unit // PARTITIONS % STATIONS}"
    cards = (f"{unit}-{attempt}" for attempt in count())
    return next(card for card in cards if partition(unit_bytes([card, station]), PARTITIONS) == home), station


def units_for(events: int) -> int:
    """So many that each has an event in every step of the days there are, and some to spare."""
    return max(500, -(-events // (ROUNDS - 10)))


def mixed(value: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    value &= (1 << 64) - 1
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    value = (value ^ value >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    return value ^ value >> 31
