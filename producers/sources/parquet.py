"""Parquet: a file at rest, of which only the wanted columns are loaded; alone in importing pyarrow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producers.sources import Position, Row, Spec
from producers.sources.lines import changed
from schemas.errors import ConfigurationError

BATCH = 4096
MICROSECONDS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}


class ParquetSource:
    """Rows of a Parquet file. Offsets are row numbers; the fingerprint is the whole file's.

    Times come as `datetime` (with their zone where the column has one), to the microsecond. A column that
    holds lists or structs gives its values as they are: the parser turns them down where a plain value is
    wanted.
    """

    kind = "parquet"
    generation = 0

    def __init__(self, spec: Spec) -> None:
        if spec.follow:
            raise ConfigurationError(
                f"A Parquet file cannot be followed ({spec.path}): it is complete once it is written.",
                "Publish it with --no-follow, or write CSV or JSON lines.",
            )
        self._spec = spec
        with spec.path.open("rb") as file:
            self._fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            self._file = pq.ParquetFile(spec.path)
        except (pa.ArrowException, OSError):
            raise ConfigurationError(
                f"The source {spec.path} is not a readable Parquet file.",
                "Check the file, or set source.kind.",
            ) from None
        self.header = tuple(self._file.schema_arrow.names)
        self.columns = tuple(name for name in spec.columns if name in self.header)
        self.notices: list[str] = []
        self._next = 0
        self._rows = self._from(0)
        self._ready: list[Row] = []

    @property
    def size(self) -> int:
        return int(self._file.metadata.num_rows)

    def resume(self, position: Position) -> None:
        if position.fingerprint != self._fingerprint or position.offset > self.size:
            raise changed(self._spec.path, "is not the file of which rows were published already")
        self._rows = self._from(position.offset)

    def position(self, row: Row) -> Position:
        return Position(row.lines, row.offset, self._fingerprint)

    def raw(self, row: Row) -> bytes:
        cells = dict(zip(self.columns, row.cells or (), strict=True))
        return json.dumps(cells, default=str, ensure_ascii=False).encode("utf-8", "replace")

    def close(self) -> None:
        self._file.close()

    def read(self, limit: int) -> list[Row]:
        if not self._ready:
            self._ready = next(self._rows, [])
        rows, self._ready = self._ready[:limit], self._ready[limit:]
        return rows

    def _from(self, start: int) -> Iterator[list[Row]]:
        groups: list[int] = []
        before = 0
        for group in range(self._file.metadata.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            if groups or before + count > start:
                groups.append(group)
            else:
                before += count
        if not groups:
            return
        at = before
        columns = list(self.columns)
        for batch in self._file.iter_batches(BATCH, row_groups=groups, columns=columns, use_threads=False):
            skip = max(0, min(batch.num_rows, start - at))
            part = batch.slice(skip)
            first = at + skip
            at += batch.num_rows
            if part.num_rows:
                cells = [_values(part.column(name)) for name in columns]
                yield [
                    Row(number, number, number, row, b"")
                    for number, row in enumerate(zip(*cells, strict=True), start=first + 1)
                ]


def _values(column: Any) -> list[object]:
    """Plain Python values. Nanoseconds go to microseconds: `datetime` holds no more."""
    if pa.types.is_timestamp(column.type):
        zone, (times, by) = column.type.tz, MICROSECONDS[column.type.unit]
        counts = column.cast(pa.int64()).to_pylist()
        return [None if count is None else _moment(count * times // by, zone) for count in counts]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[object] = column.to_pylist()
    return values


def _moment(micro: int, zone: str | None) -> object:
    try:
        moment = datetime.fromtimestamp(micro // 1_000_000, UTC).replace(microsecond=micro % 1_000_000)
    except (ValueError, OverflowError, OSError):
        return "out of range"  # text that no time format reads
    return moment if zone else moment.replace(tzinfo=None)
