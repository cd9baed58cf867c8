"""What must have become of each event, from the raw log alone, in plain Python: docs/privacy.md, one record at a time.

None of the code under test decides here; fastavro reads the records.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import fastavro

from schemas.contract import Contract
from tests.chaos.events import DAY_MS, MINUTE_MS
from tests.chaos.oracle import Model

CLOCK = fastavro.parse_schema(
    {"type": "record", "name": "Clock", "fields": [{"name": "clock_ms", "type": "long"}]}
)


@dataclass(slots=True)
class Told:
    """Of one partition: numbers in the order of the log, and where each went. `clocks`: every clock record."""

    raw: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    denied: Counter[str] = field(default_factory=Counter)
    clocks: list[int] = field(default_factory=list)


def told(contract: Contract, clock_id: int, values: Iterable[bytes]) -> Told:
    """`values`: all records of one raw partition, in the order of its log."""
    found, model = Told(), Model(contract.privacy.contribution.max)
    schema = fastavro.parse_schema(contract.raw_schema)
    for value in values:
        body = io.BytesIO(value[5:])
        if int.from_bytes(value[1:5], "big") == clock_id:
            found.clocks.append(_record(body, CLOCK)["clock_ms"])
            continue
        event = _record(body, schema)
        at_ms = round(event["at"].timestamp() * 1000)
        found.raw.append(event["number"])
        clock = found.clocks[-1] if found.clocks else None
        reason = _out_of_time(at_ms, clock, contract.keep.raw_ms)
        reason = reason or model.admit(at_ms // DAY_MS, int(event["card"][5:]), at_ms // MINUTE_MS)
        if reason:
            found.denied[reason] += 1
        else:
            found.shared.append(event["number"])
    return found


def _out_of_time(at_ms: int, clock_ms: int | None, keep_raw_ms: int) -> str:
    if clock_ms is None:
        return "no-clock"
    epoch = at_ms // DAY_MS
    if (epoch + 1) * DAY_MS + keep_raw_ms < clock_ms:
        return "epoch-closed"
    return "epoch-future" if epoch > clock_ms // DAY_MS + 1 else ""


def _record(body: io.BytesIO, schema: Any) -> dict[str, Any]:
    found = fastavro.schemaless_reader(body, schema, None)
    assert isinstance(found, dict)
    return found
