"""CPU of `share()` alone, ledger and changelog records on: 1,000,000 events of 100,000 units, 10 slots each.

    python -m bench.share_pure [rows per batch] [events]

No Kafka, no codec. Prints one JSON object; times are user + system seconds of this process, warm.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from schemas.contract import parse
from streams.privacy.keys import KeyChain
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.sharing import RawBatch, share

UNITS, SLOTS, GRID_MS = 100_000, 10, 60_000
DAY_MS = 86_400_000
START_MS = 16_804 * DAY_MS
CONTRACT = """
contract: bench.share
version: 1.0.0
owner: did:web:bench.example
source: {kind: csv, path: none.csv}
event:
  key: unit
  time: {field: at, format: epoch_ms}
  fields:
    unit: {type: string}
    at: {type: timestamp}
    amount: {type: int}
privacy:
  protects: person
  epoch: {length: day, from: 2016-01-01}
  epsilon: 10
  contribution: {max: 10, of: [at], held_by: ledger}
  unit: [unit]
  fields:
    unit: pseudonym
    at: {time: 1min}
    amount: {count: {min: 0, max: 100, per_unit: 100}}
terms: {purpose: [bench], for: 1d}
"""


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def batches(events: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Each unit has one event in each of ten slots; units in random order within a slot."""
    rng = np.random.default_rng(7)
    order = np.concatenate([rng.permutation(UNITS) for _ in range(SLOTS)])[:events]
    slot = np.repeat(np.arange(SLOTS), UNITS)[:events]
    names = np.array([f"u-{i:07d}" for i in range(UNITS)], object)
    for at in range(0, events, rows):
        some = slice(at, at + rows)
        times = START_MS + slot[some] * GRID_MS
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(names[order[some]], pa.string()),
                pa.array(times, pa.int64()).cast(pa.timestamp("ms", "UTC")),
                pa.array(rng.integers(0, 101, len(times))),
            ],
            names=["unit", "at", "amount"],
        )


def run(rows: int, events: int, contract: str = CONTRACT) -> dict[str, float | int]:
    plan = Plan.of(parse(contract))
    keys = KeyChain.of_root("bench", DAY_MS, 0, 16_000, bytes(range(32)))
    ledger = Ledger()
    work = list(batches(events, rows))
    clock = np.full(rows, START_MS + DAY_MS // 2)
    shared = written = 0
    began, wall = cpu(), time.perf_counter()
    for columns in work:
        result = share(RawBatch(columns, None, clock[: columns.num_rows]), plan, keys, ledger)
        written += sum(len(key) + len(value or b"") for key, value in ledger.records(result.changes))
        ledger.apply(result.changes)
        shared += result.shared.num_rows
    used, wall = cpu() - began, time.perf_counter() - wall
    return {
        "rows_per_batch": rows,
        "events_in": events,
        "shared": shared,
        "cpu_s_per_million": round(used / events * 1e6, 3),
        "events_per_s": round(events / wall),
        "changelog_bytes_per_event": round(written / events, 1),
        "ledger_bytes_per_unit": round(ledger.nbytes / max(ledger.units, 1), 1),
    }


if __name__ == "__main__":
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 16_384
    events = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    run(rows, min(events, 50_000))  # warm
    print(json.dumps(run(rows, events)))
