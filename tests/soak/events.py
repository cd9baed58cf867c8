"""The soak's events: number n is a pure function of (seed, n), as in chaos, but without an end.

Five-minute counts of UNITS sensors, whose event time runs as fast as the rate makes it: at 5,000 a second a day in half
a minute. The task has steps of half an hour, so the trainer reads all and learns every sixth (it learns some 2,000 a
second, and is not what this is about), and releases each half minute. All is of one epoch: the ledger, which grows by
unit and epoch as is its nature, has all its rows after the first second. Five in a hundred go back to a slot that their
sensor has mostly used, two in a thousand are rows that no parser takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.partition import partition
from tests.chaos.events import Event

UNITS, PARTITIONS = 500, 2
STEP_MS = 300_000
HEADER = b"number,sensor,at,vehicles\n"
CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:soak.example
source: {{kind: csv, path: load.csv, follow: true}}
event:
  key: sensor
  time: {{field: at, format: epoch_ms}}
  fields:
    number: {{type: int}}
    sensor: {{type: string}}
    at: {{type: timestamp}}
    vehicles: {{type: int}}
privacy:
  protects: vehicle
  neighbours: values
  epoch: {{length: 100y, from: 1970-01-01}}
  epsilon: 1
  contribution: {{max: 2, of: [sensor, at], held_by: assumed, basis: test, attested_by: test}}
  fields:
    number: {{public: {{because: the test tells records apart by it}}}}
    sensor: {{public: {{because: a place}}}}
    at: {{time: 5min}}
    vehicles: {{count: {{min: 0, max: 256, per_unit: 1}}}}
terms: {{purpose: [test], for: 1d}}
partitions: {partitions}
"""
TASK = """
task: {name}
contracts: [{contract}]
target: vehicles
step: 30min
release_every: 1d
"""


@dataclass(frozen=True, slots=True)
class SoakEvent(Event):
    """`slot` counts steps of five minutes since 1970."""

    def line(self) -> bytes:
        if self.broken:
            return b"broken,%d\n" % self.number
        return b"%d,sensor-%d,%d,%d\n" % (self.number, self.unit, self.slot * STEP_MS, self.amount)


class Script:
    """`start_ms`: event time of the first round. The partition of a sensor is looked up once."""

    def __init__(self, seed: int, start_ms: int) -> None:
        self._seed, self._first = seed, start_ms // STEP_MS
        self._homes = [partition(f"sensor-{unit}".encode(), PARTITIONS) for unit in range(UNITS)]

    def event(self, number: int) -> SoakEvent:
        around, unit = divmod(number, UNITS)
        chance = ((number + self._seed) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 24
        back = 1 + (chance >> 16 & 0xFF) % 4 if chance % 100 < 5 else 0
        slot = self._first + max(0, around - back)
        amount = 100 + (around % 288) // 3 + (chance >> 24 & 0xFFFF) % 40
        return SoakEvent(number, unit, slot, self._homes[unit], chance % 1000 >= 998, amount)
