"""Events that come late, early and shuffled: number n is a pure function of (seed, n).

Of a hundred, 60 come in their turn, 20 up to ten minutes earlier or later than it, 8 an hour late (where their unit is
not further by then: too old for the ledger's window), 6 a day late, 2 for a slot that is mostly used, 2 nine days late
(in a closed epoch) and 2 three days early (in a future one).
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.partition import partition
from tests.chaos.events import MINUTE_MS, mixed

CAP, PARTITIONS = 1000, 4  # so many a day that no card has spent it at the end of a run
HEADER = b"number,card,at,amount\n"
LATE = {"hour": 60, "day": 1440, "closed": 9 * 1440, "future": -3 * 1440}  # minutes
CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:clocks.example
source: {{kind: csv, path: load.csv, follow: {follow}}}
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
  population: {name}
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 10
  contribution: {{max: {cap}, of: [at], held_by: ledger}}
  unit: [card]
  fields:
    number: {{public: {{because: the test tells records apart by it}}}}
    card: pseudonym
    at: {{time: 1min}}
    amount: {{count: {{min: 0, max: 100, per_unit: 100}}}}
terms: {{purpose: [test], for: 1d}}
partitions: {partitions}
"""


def contract_text(name: str, *, follow: bool, cap: int) -> str:
    return CONTRACT.format(name=name, cap=cap, partitions=PARTITIONS, follow=str(follow).lower())


@dataclass(frozen=True, slots=True)
class Event:
    """`at_ms`: event time. `kind` says what is odd about it."""

    number: int
    card: str
    at_ms: int
    amount: int
    kind: str

    def line(self) -> bytes:
        return f"{self.number},{self.card},{self.at_ms},{self.amount}\n".encode()


@dataclass(frozen=True, slots=True)
class Script:
    """`units` cards in turn, each a minute further in every round, from `start_ms` on."""

    seed: int
    units: int
    start_ms: int

    def event(self, number: int) -> Event:
        around, unit = divmod(number, self.units)
        chance = mixed(self.seed * 0x9E3779B97F4A7C15 + number)
        minute, kind = around, "in turn"
        percent, more = chance % 100, chance >> 16 & 0xFF
        if percent < 20:
            minute, kind = around + more % 21 - 10, "shuffled"
        elif percent < 28:
            minute, kind = around - LATE["hour"], "hour"
        elif percent < 34:
            minute, kind = around - LATE["day"], "day"
        elif percent < 36:
            minute, kind = around - 1, "again"
        elif percent < 38:
            minute, kind = around - LATE["closed"], "closed"
        elif percent < 40:
            minute, kind = around - LATE["future"], "future"
        at_ms = self.start_ms + minute * MINUTE_MS + more * 100
        return Event(number, f"card-{unit}", at_ms, chance >> 40 & 0x7F, kind)


def home(card: str) -> int:
    return partition(card.encode(), PARTITIONS)
