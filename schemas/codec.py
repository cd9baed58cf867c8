"""Kafka values to Arrow columns and back: Confluent framing (0, u32 schema id) around Avro.

Columns come from pyruhvro, 12 million records/s; every batch is encoded again and compared byte for byte,
since pyruhvro takes trailing bytes. Where a batch fails or differs, the records that do are found by
splitting, and for those alone the guard and fastavro decide, one by one: a poisoned record costs its
batch microseconds, not its speed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas import columns
from schemas.columnar import Columnar, Indices, trusted
from schemas.guarded import Guarded
from schemas.writer import RowWriter

AvroSchema = Mapping[str, Any]
HEADER = 5
LONGEST = (1 << 31) - 1  # of a value; without an end, `binary_slice` of Arrow 26 fails
NOT_FRAMED = -1
CLOCK: AvroSchema = json.loads((Path(__file__).parent / "avro" / "clock.avsc").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot be decoded: its index in the batch and a fixed word, never anything of its
    bytes."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """Good events in log order (`rows`: their indices into the values), clock records, and the poison."""

    batch: pa.RecordBatch
    rows: Indices
    clocks: list[tuple[int, int]]
    poison: list[Poison]


class Decoder:
    """Values of one topic. `schemas`: writer schema by id; the last one (or `current`) names the columns.

    Records of older ids are resolved to those columns by fastavro. Never raises because of a value, holds
    nothing between batches, and takes memory in proportion to the bytes it is given.
    """

    def __init__(
        self, schemas: Mapping[int, AvroSchema], clock_id: int | None = None, current: int | None = None
    ) -> None:
        self._current = list(schemas)[-1] if current is None else current
        self._clock_id = clock_id
        reader = schemas[self._current]
        self._guarded = {id_: Guarded(schema, reader) for id_, schema in schemas.items()}
        self._clock = Guarded(CLOCK, CLOCK)
        self._columnar = Columnar(reader) if columns.flat(reader) and trusted(reader) else None
        self.schema = columns.arrow_schema(reader)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Every value ends up in exactly one of `rows`, `clocks` and `poison`."""
        given = pa.array(values, pa.binary())
        ids, poison = _headers(given)
        clocks: list[tuple[int, int]] = []
        parts: list[tuple[pa.RecordBatch, Indices]] = []
        for id_ in np.unique(ids).tolist():
            if id_ == NOT_FRAMED:
                continue
            rows = np.flatnonzero(ids == id_)
            bodies = pc.binary_slice(
                given if len(rows) == len(given) else given.take(pa.array(rows)), HEADER, LONGEST
            )
            if id_ == self._clock_id:
                good, bad = self._clock.read(bodies.to_pylist())
                clocks += [(int(rows[i]), record["clock_ms"]) for i, record in good]
            elif id_ in self._guarded:
                bad = self._events(id_, rows, bodies, parts)
            else:
                bad = [(i, "unknown-schema-id") for i in range(len(rows))]
            poison += [Poison(int(rows[i]), reason) for i, reason in bad]
        batch, rows = self._merge(parts)
        return Decoded(batch, rows, clocks, sorted(poison, key=lambda p: p.row))

    def _events(
        self, id_: int, rows: Indices, bodies: pa.BinaryArray, parts: list[tuple[pa.RecordBatch, Indices]]
    ) -> list[tuple[int, str]]:
        """Appends the good ones to `parts`; returns (index, reason) of the others."""
        suspects = np.arange(len(bodies))
        if self._columnar is not None and id_ == self._current:
            batch, kept = self._columnar.read(bodies)
            parts.append((batch, rows[kept]))
            if len(kept) == len(bodies):
                return []
            suspects = np.delete(suspects, kept)
        guarded = self._guarded[id_]
        good, bad = guarded.read(bodies.take(pa.array(suspects)).to_pylist())
        if good:
            indices = suspects[[i for i, _ in good]]
            parts.append((guarded.batch([record for _, record in good]), rows[indices]))
        return [(int(suspects[i]), reason) for i, reason in bad]

    def _merge(self, parts: list[tuple[pa.RecordBatch, Indices]]) -> tuple[pa.RecordBatch, Indices]:
        """One batch in log order."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return pa.RecordBatch.from_pylist([], self.schema), np.empty(0, np.int64)
        rows = np.concatenate([rows for _, rows in parts])
        order = np.argsort(rows, kind="stable")
        whole = pa.Table.from_batches([batch for batch, _ in parts]).combine_chunks().to_batches()
        batch = whole[0] if whole else pa.RecordBatch.from_pylist([], self.schema)
        return batch.take(pa.array(order)), rows[order]


def _headers(values: pa.BinaryArray) -> tuple[Indices, list[Poison]]:
    """Schema id of each value, NOT_FRAMED where it has no header, and why."""
    lengths = pc.fill_null(pc.binary_length(values), -1).to_numpy(zero_copy_only=False)
    ids = np.full(len(values), NOT_FRAMED, np.int64)
    framed = np.flatnonzero(lengths >= HEADER)
    whole = values if len(framed) == len(values) else values.take(pa.array(framed))
    heads = pc.binary_slice(whole, 0, HEADER).buffers()[2] or b""
    fields = np.frombuffer(heads, np.dtype([("magic", "u1"), ("id", ">u4")]), len(framed))
    ids[framed] = np.where(fields["magic"] == 0, fields["id"].astype(np.int64), NOT_FRAMED)
    poison = []
    for row in np.flatnonzero(ids == NOT_FRAMED).tolist():
        words = {-1: "null-value", 0: "empty-value"}
        short = "too-short" if lengths[row] < HEADER else "wrong-magic"
        poison.append(Poison(row, words.get(int(lengths[row]), short)))
    return ids, poison


class Encoder:
    """Batches of one schema to framed values."""

    def __init__(self, schema_id: int, schema: AvroSchema) -> None:
        self._header = struct.pack(">bI", 0, schema_id)
        self.schema = columns.arrow_schema(schema)
        self._required = [f.name for f in self.schema if not f.nullable]
        fast = columns.nested(schema) and trusted(schema)
        self._writer: Columnar | RowWriter = Columnar(schema) if fast else RowWriter(schema)

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """`frame`, as a list."""
        return self.frame(batch).to_pylist()  # type: ignore[no-any-return]

    def frame(self, batch: pa.RecordBatch) -> pa.BinaryArray:
        """One framed value a row, in order. Raises ValueError on a null where the schema has none, and on
        columns that do not fit: both are errors of the program, not of an event."""
        if batch.num_rows == 0:
            return pa.array([], pa.binary())
        for name in self._required:
            if batch.column(name).null_count:
                raise ValueError(f"column {name} holds nulls, but its Avro type does not")
        given = [batch.column(field.name) for field in self.schema]
        arrays = [
            column if column.type == field.type else column.cast(field.type)
            for column, field in zip(given, self.schema, strict=True)
        ]
        bodies = self._writer.write(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        return pc.binary_join_element_wise(pa.scalar(self._header, pa.binary()), bodies, b"")
