"""Rows of a contract's source, without Kafka: its columns, and events as the producer would make them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from producers.parse import Broken, Parser, wanted
from producers.sources import Spec, open_source
from schemas import columns
from schemas.contract import Contract


@dataclass(frozen=True, slots=True)
class Rows:
    """Raw events in source order: owner's side only. `broken`: rows that would be dead letters, by reason."""

    batch: pa.RecordBatch
    keys: list[bytes]
    broken: dict[str, int]


def header(contract: Contract, path: Path | None = None) -> tuple[str, ...]:
    """All columns of the source. Raises ConfigurationError where it cannot be opened."""
    source = open_source(_spec(contract, path))
    try:
        return source.header or source.columns
    finally:
        source.close()


def read(contract: Contract, limit: int, path: Path | None = None) -> Rows:
    """At most `limit` events from the beginning of the source."""
    source = open_source(_spec(contract, path))
    events: list[dict[str, object]] = []
    keys: list[bytes] = []
    broken: Counter[str] = Counter()
    try:
        parser = Parser(contract, source)
        while len(events) < limit and (rows := source.read(min(4_000, limit - len(events)))):
            for row in rows:
                event = parser.parse(row)
                if isinstance(event, Broken):
                    broken[event.reason] += 1
                else:
                    events.append(event.record)
                    keys.append(event.key)
    finally:
        source.close()
    return Rows(_columns(contract, events), keys, dict(broken))


def _columns(contract: Contract, events: list[dict[str, object]]) -> pa.RecordBatch:
    schema = columns.arrow_schema(contract.raw_schema)
    arrays = []
    for field in schema:
        values = [event.get(field.name) for event in events]
        plain = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        arrays.append(pa.array(values, plain).cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _spec(contract: Contract, path: Path | None) -> Spec:
    source = contract.source
    return Spec(
        source.kind,
        path or source.path,
        wanted(contract),
        delimiter=source.delimiter,
        encoding=source.encoding,
    )
