"""Raw columns onto public grids.

Never rejects by value: whatever does not fit is clamped or becomes the default.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Notes = Counter[str]


def integers(column: pa.Array, missing: int = 0) -> Int64:
    """int64 of an integer, boolean or timestamp(ms) column, nulls as `missing`."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
    if column.type != pa.int64():
        column = column.cast(pa.int64(), safe=False)
    if column.null_count:
        column = column.fill_null(missing)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.int64)


def lengths(texts: pa.StringArray) -> Int64:
    """UTF-8 bytes of each text. No nulls."""
    return np.diff(_ends(texts)).astype(np.int64)


def padded(texts: pa.StringArray, width: int) -> NDArray[np.uint8]:
    """(n, width) bytes: each text, of at most `width` bytes, and zeros behind it. No nulls."""
    ends, long = _ends(texts), lengths(texts)
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]]
    found = np.zeros((len(texts), width), np.uint8)
    if len(long) and (long == long[0]).all():  # as most identifiers are
        found[:, : long[0]] = data.reshape(len(texts), -1)
    else:
        found[np.arange(width) < long[:, None]] = data
    return found


def _ends(texts: pa.StringArray) -> NDArray[np.int32]:
    """Where each text begins in the array's bytes, and where the last one ends."""
    return np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, offset=4 * texts.offset)


def present(column: pa.Array) -> NDArray[np.bool_] | None:
    """Which values are not null; None where all are there."""
    if not column.null_count:
        return None
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)


@dataclass(frozen=True, slots=True)
class NumberGrid:
    """index = floor(x / step) - lower, clipped to 0..range; null and NaN become `default`.

    `step` is a power of two for floats (then x / step is exact) and whole for integers; `lower` is in steps,
    `low` and `high` are the declared bounds, for the notes only.
    """

    name: str
    step: float
    lower: int
    range: int
    default: int
    low: float
    high: float

    def index(self, column: pa.Array, notes: Notes) -> Int64:
        if pa.types.is_floating(column.type):
            index = self._floats(column, notes)
        else:
            index = self._whole(column, notes)
        there = present(column)
        if there is not None:
            index[~there] = self.default
            notes[f"{self.name}.null"] += int(column.null_count)
        return index

    def _whole(self, column: pa.Array, notes: Notes) -> Int64:
        x = integers(column, int(self.low))
        step = int(self.step)
        cells = x if step == 1 else x // step
        index = np.clip(cells, self.lower, self.lower + self.range) - self.lower
        if len(x) and (x.min() < self.low or x.max() > self.high):
            notes[f"{self.name}.below"] += int(np.count_nonzero(x < self.low))
            notes[f"{self.name}.above"] += int(np.count_nonzero(x > self.high))
        return index

    def _floats(self, column: pa.Array, notes: Notes) -> Int64:
        filled = column.fill_null(self.low) if column.null_count else column
        x = np.asarray(filled.to_numpy(zero_copy_only=False), np.float64)
        nan, infinite = np.isnan(x), np.isinf(x)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            cells = np.clip(np.floor(x / self.step), self.lower, self.lower + self.range)
        cells[nan] = self.lower
        index = cells.astype(np.int64) - self.lower
        index[nan] = self.default
        finite = ~(nan | infinite)
        for what, rows in (
            ("nan", nan),
            ("infinite", infinite),
            ("below", finite & (x < self.low)),
            ("above", finite & (x > self.high)),
        ):
            if rows.any():
                notes[f"{self.name}.{what}"] += int(np.count_nonzero(rows))
        return index


@dataclass(frozen=True, slots=True)
class MemberGrid:
    """index of the member; null and unknown become `other`."""

    name: str
    members: pa.Array = field(repr=False)
    other: int

    def index(self, column: pa.Array, notes: Notes) -> Int64:
        found = pc.index_in(column.cast(pa.string()), value_set=self.members)
        unknown = found.null_count - column.null_count
        if unknown:
            notes[f"{self.name}.unknown"] += int(unknown)
        if column.null_count:
            notes[f"{self.name}.null"] += int(column.null_count)
        return np.array(found.fill_null(self.other).to_numpy(zero_copy_only=False), np.int64)
