"""Whole batches through pyruhvro, and nothing believed that does not encode to the very same bytes again.

Known of pyruhvro 0.4: trailing bytes pass, invalid UTF-8 passes, one bad record fails the batch, and bytes, fixed,
uuid and decimal panic (`columns.flat` keeps those away).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas import columns
from schemas.writer import RowWriter

Indices = np.ndarray[Any, np.dtype[np.int64]]
PART = 64  # records a failing batch is cut into; then halves


class Columnar:
    """Reads and writes bodies (without header) of one flat schema. Writer's and reader's schema are the
    same."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._text = json.dumps(columns.trim(schema))
        self.schema = columns.arrow_schema(schema)

    def write(self, batch: pa.RecordBatch) -> pa.BinaryArray:
        """One body a row. `batch` must have this schema."""
        return pyruhvro.serialize_record_batch(batch, self._text, 1)[0]

    def read(self, bodies: pa.BinaryArray) -> tuple[pa.RecordBatch, Indices]:
        """The records that decode, and encode to the same bytes again; and their indices. The others need a
        second look. `bodies` has no nulls.
        """
        rows = np.arange(len(bodies), dtype=np.int64)
        batch = self._decode(bodies)
        if batch is None:
            rows = np.delete(rows, self._failing(bodies.to_pylist()))
            bodies = bodies.take(pa.array(rows))
            batch = self._decode(bodies)
            if batch is None:  # the parts decode, the whole does not: nothing of it is believed
                return self.empty(), rows[:0]
        doubtful = self._differing(batch, bodies) + self._not_text(batch)
        if doubtful:
            kept = np.delete(np.arange(len(rows)), doubtful)
            return batch.take(pa.array(kept)), rows[kept]
        return batch, rows

    def empty(self) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([], self.schema)

    def _failing(self, bodies: list[bytes]) -> list[int]:
        """Halves failing parts until the failing records stand alone; parts start small, since at 1 %
        poison every large one fails.
        """
        failing: list[int] = []
        parts = [(at, min(at + PART, len(bodies))) for at in range(0, len(bodies), PART)]
        while parts:
            start, end = parts.pop()
            if self._raw(bodies[start:end]) is not None:
                continue
            if end - start == 1:
                failing.append(start)
            else:
                middle = (start + end) // 2
                parts += [(start, middle), (middle, end)]
        return failing

    def _decode(self, bodies: pa.BinaryArray) -> pa.RecordBatch | None:
        batch = self._raw(bodies.to_pylist()) if len(bodies) else self.empty()
        return None if batch is None else pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)

    def _raw(self, bodies: list[bytes]) -> pa.RecordBatch | None:
        try:
            return pyruhvro.deserialize_array(bodies, self._text)
        except Exception:
            return None
        except BaseException as problem:
            if type(problem).__name__ == "PanicException":  # pyo3's: no Exception, but no reason to die
                return None
            raise

    def _not_text(self, batch: pa.RecordBatch) -> list[int]:
        """Rows whose strings are no UTF-8: pyruhvro 0.4 builds string columns without looking."""
        rows: list[int] = []
        for column in batch.columns:
            if not pa.types.is_string(column.type):
                continue
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                words = column.cast(pa.binary()).to_pylist()
                rows += [i for i, word in enumerate(words) if word is not None and not _is_utf8(word)]
        return rows

    def _differing(self, batch: pa.RecordBatch, bodies: pa.BinaryArray) -> list[int]:
        """Rows that do not encode to their own bytes: trailing bytes, overlong numbers."""
        if not len(bodies):
            return []
        again = self.write(batch)
        return (
            []
            if again.equals(bodies)
            else np.flatnonzero(pc.fill_null(pc.not_equal(again, bodies), True)).tolist()
        )


def _is_utf8(word: bytes) -> bool:
    try:
        word.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def trusted(schema: Mapping[str, Any]) -> bool:
    """Whether pyruhvro writes this schema byte for byte as fastavro does. Asked once, when a contract
    loads; a panic in there is caught and means no."""
    shape = columns.arrow_schema(schema)
    full = [_example(field.type) for field in shape]
    bare = [None if field.nullable else value for field, value in zip(shape, full, strict=True)]
    pairs = zip(full, bare, strict=True)
    arrays = [pa.array(pair, field.type) for pair, field in zip(pairs, shape, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=shape)
    try:
        return bool(Columnar(schema).write(batch).equals(RowWriter(schema).write(batch)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return False


def _example(type_: pa.DataType) -> Any:
    """Any value of the type, with something in every part of it."""
    if pa.types.is_string(type_):
        return "käse"
    if pa.types.is_boolean(type_):
        return True
    if pa.types.is_floating(type_):
        return 1.5
    if pa.types.is_list(type_):
        return [_example(type_.value_type)]
    if pa.types.is_struct(type_):
        return {field.name: _example(field.type) for field in type_}
    return 1_451_606_400_000
