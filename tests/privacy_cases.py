"""Contracts, batches and chains that the tests of the privacy core share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.contract import Contract, parse
from streams.privacy.keys import KeyChain
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.sharing import RawBatch, Shared, share

DAY_MS = 86_400_000
EPOCH = 16_804  # 2016-01-04
START_MS = EPOCH * DAY_MS
MINUTE_MS = 60_000
ROOT = bytes(range(32))

FIELDS = """
    person: {type: string}
    at: {type: timestamp}
    place: {type: string}
    steps: {type: int}
    weight: {type: float}
    mood: {type: string}
    seen: {type: timestamp}
    note: {type: string}
"""
RULES = """
    person: pseudonym
    at: {time: 1min}
    place: public
    steps: {count: {min: 0, max: 20, per_unit: 20, default: 3}}
    weight: {number: {min: -8, max: 8, step: 0.5, default: 1}}
    mood: {category: {members: [good, bad], other: unknown}}
    seen: {time: 1h}
    note: drop
"""
# The unit is a person in a mood, which is not the key.
UNIT_RULES = """
    person: drop
    at: {time: 1min}
    place: public
    steps: {count: {min: 0, max: 20, per_unit: 20}}
    weight: drop
    mood: pseudonym
    seen: drop
    note: drop
"""


def contract(
    *,
    fields: str = FIELDS,
    rules: str = RULES,
    key: str = "person",
    unit: str = "unit: [person]",
    held: str = "{max: 8, of: [at], held_by: ledger}",
    epsilon: str = "24",
    more: str = "",
    top: str = "",
    time: str = "format: epoch_ms",
    name: str = "test.walks",
    version: str = "1.0.0",
    epoch: str = "{length: day, from: 2016-01-01}",
    keep: str = "{raw: 2d}",
) -> Contract:
    return parse(f"""
contract: {name}
version: {version}
owner: did:web:test.example
source: {{kind: csv, path: none.csv}}
event:
  key: {key}
  time: {{field: at, {time}}}
  fields:{fields}
privacy:
  protects: person
  epoch: {epoch}
  epsilon: {epsilon}
  contribution: {held}
  {unit}
  {more}
  fields:{rules}
terms: {{purpose: [testing], for: 1d}}
keep: {keep}
{top}
""")


COUNTER = {
    "fields": "\n    detector: {type: string}\n    at: {type: timestamp}\n    vehicles: {type: int}\n",
    "rules": "\n    detector: public\n    at: {time: 5min}\n    vehicles: {count: {min: 0, max: 256}}\n",
    "key": "detector",
    "unit": "",
    "held": "{max: 2, of: [at, detector], held_by: assumed, basis: out and back, attested_by: the city}",
    "epsilon": "1",
}


def counter(**changes: str) -> Contract:
    """A detector's counts: the unit is not in the data."""
    return contract(**{**COUNTER, **changes})


def chain(population: str = "did:web:test.example/person", oldest: int = EPOCH - 30) -> KeyChain:
    return KeyChain.of_root(population, DAY_MS, 0, oldest, ROOT)


ARROW = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("ms", "UTC"),
}


def raw(of: Contract, rows: list[dict[str, Any]], clocks: list[int] | int = START_MS) -> RawBatch:
    """Rows as a raw batch; a field that a row leaves out is null. Times are milliseconds."""
    columns = []
    for name, spec in of.event.fields.items():
        values = [row.get(name) for row in rows]
        kind = pa.int64() if spec.type == "timestamp" else ARROW[spec.type]
        columns.append(pa.array(values, kind).cast(ARROW[spec.type]))
    table = pa.RecordBatch.from_arrays(columns, names=list(of.event.fields))
    clock = [clocks] * len(rows) if isinstance(clocks, int) else clocks
    return RawBatch(table, None, np.array(clock, np.int64))


def part(batch: RawBatch, start: int, stop: int) -> RawBatch:
    keys = None if batch.keys is None else batch.keys[start:stop]
    return RawBatch(batch.columns.slice(start, stop - start), keys, batch.clock_ms[start:stop])


def run(
    batch: RawBatch, plan: Plan, keys: KeyChain, ledger: Ledger, owns: Callable[[int], bool] | None = None
) -> Shared:
    """Share, and take the ledger's changes over as after a commit."""
    shared = share(batch, plan, keys, ledger, owns)
    ledger.apply(shared.changes)
    return shared


def walk(person: str = "p1", slot: int = 0, **values: Any) -> dict[str, Any]:
    """One event in the given minute of the test day."""
    return {"person": person, "at": START_MS + slot * MINUTE_MS, "place": "park", "steps": 7, **values}
