"""Ledger rows of one epoch in numpy columns: no Python object a unit.

A row is tag (16 bytes), hi slot, mask of the 64 slots up to hi (bit 0 is hi itself), used. Rows are found by
tag through an open-addressing index. With its part of it a unit takes 44 to 70 bytes; a dict entry alone
would take 171.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.privacy.index import Int64, TagIndex, Words

NEVER = -(1 << 62)  # hi slot of a unit without a row: below any slot, and slot - NEVER fits into i64

ROW = np.dtype([("tag", np.uint64, (2,)), ("hi", ">i8"), ("mask", ">u8"), ("used", ">u4")])


@dataclass(frozen=True, slots=True)
class States:
    """What the ledger knows about some units: hi slot, mask, used; one entry a unit."""

    hi: Int64 = field(repr=False)
    mask: Words = field(repr=False)
    used: Int64 = field(repr=False)

    def pick(self, units: Int64) -> States:
        return States(self.hi[units], self.mask[units], self.used[units])


class EpochRows(TagIndex):
    """Rows of one epoch, found by tag."""

    __slots__ = ("_hi", "_mask", "_used", "spent")
    COLUMNS = ("_head", "_tail", "_hi", "_mask", "_used")

    def __init__(self) -> None:
        super().__init__()
        self.spent = 0  # sum of `used`: events shared in this epoch
        self._hi, self._mask = np.empty(0, np.int64), np.empty(0, np.uint64)
        self._used = np.empty(0, np.uint32)

    @property
    def nbytes(self) -> int:
        columns = (self._head, self._tail, self._hi, self._mask, self._used, self._index)
        return sum(column.nbytes for column in columns)

    def states(self, rows: Int64) -> States:
        """States behind row numbers from `find`; units without a row have never shared."""
        if not self.size:
            n = len(rows)
            return States(np.full(n, NEVER), np.zeros(n, np.uint64), np.zeros(n, np.int64))
        new = rows < 0
        hi, mask = self._hi[rows], self._mask[rows]
        used = self._used[rows].astype(np.int64)
        if new.any():
            hi[new], mask[new], used[new] = NEVER, 0, 0
        return States(hi, mask, used)

    def put(self, tags: Words, rows: Int64, states: States) -> None:
        """Set the states of distinct tags; `rows` from `find` with nothing put in between, -1 appends."""
        new = rows < 0
        if new.any():
            rows = rows.copy()
            rows[new] = fresh = self.append(tags[new])
            self._used[fresh] = 0
        self.spent += int(states.used.sum() - self._used[rows].sum(dtype=np.int64))
        self._hi[rows], self._mask[rows], self._used[rows] = states.hi, states.mask, states.used

    def packed(self, first: int = 0, last: int = 256) -> NDArray[np.void]:
        """Rows (dtype ROW) whose tag's first byte is in first .. last - 1, sorted by tag."""
        buckets = self._head[: self.size].view(np.uint8)[::8]
        if (first, last) == (0, 256):
            rows = np.arange(self.size)
        else:
            rows = np.flatnonzero((buckets >= first) & (buckets < last))
        big = np.dtype(">u8")
        order = np.lexsort((self._tail[rows].view(big), self._head[rows].view(big)))
        rows = rows[order]
        tags = np.stack([self._head[rows], self._tail[rows]], axis=1)
        return pack(tags, self.states(rows))


def pack(tags: Words, states: States) -> NDArray[np.void]:
    """36 bytes a row: tag, i64 hi, u64 mask, u32 used, big-endian."""
    packed = np.empty(len(tags), ROW)
    packed["tag"], packed["hi"] = tags, states.hi
    packed["mask"], packed["used"] = states.mask, states.used
    return packed


def unpack(packed: NDArray[np.void]) -> tuple[Words, States]:
    hi, mask = packed["hi"].astype(np.int64), packed["mask"].astype(np.uint64)
    return packed["tag"].astype(np.uint64), States(hi, mask, packed["used"].astype(np.int64))
