"""Ledger rows of one epoch in numpy columns: no Python object a unit.

A row is tag (16 bytes), hi slot, mask of the 64 slots up to hi (bit 0 is hi itself), used. Rows are found by
tag through an open-addressing index. With its part of it a unit takes 44 to 70 bytes; a dict entry alone
would take 171.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]
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


class EpochRows:
    """Rows of one epoch. Tags are uniform (they come from HMAC), so the index needs no hash of its own."""

    __slots__ = ("_head", "_hi", "_index", "_mask", "_tail", "_used", "size", "spent")

    def __init__(self) -> None:
        self.size = 0
        self.spent = 0  # sum of `used`: events shared in this epoch
        self._head, self._tail = np.empty(0, np.uint64), np.empty(0, np.uint64)
        self._hi, self._mask = np.empty(0, np.int64), np.empty(0, np.uint64)
        self._used = np.empty(0, np.uint32)
        self._index = np.full(16, -1, np.int32)

    @property
    def nbytes(self) -> int:
        columns = (self._head, self._tail, self._hi, self._mask, self._used, self._index)
        return sum(column.nbytes for column in columns)

    def find(self, tags: Words) -> Int64:
        """Row numbers of tags (n, 2); -1 where there is none."""
        head, tail = tags[:, 0], tags[:, 1]
        wrap = np.int64(len(self._index) - 1)
        place = (tail & np.uint64(wrap)).view(np.int64)
        rows = self._index[place].astype(np.int64)
        if not self.size:
            return rows
        miss = np.flatnonzero((rows >= 0) & ((self._tail[rows] != tail) | (self._head[rows] != head)))
        while len(miss):
            place[miss] = (place[miss] + 1) & wrap
            found = self._index[place[miss]].astype(np.int64)
            rows[miss] = found
            wrong = (found >= 0) & ((self._tail[found] != tail[miss]) | (self._head[found] != head[miss]))
            miss = miss[wrong]
        return rows

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
        count = int(np.count_nonzero(new))
        if count:
            rows = rows.copy()
            rows[new] = np.arange(self.size, self.size + count)
            self._reserve(self.size + count)
            fresh = rows[new]
            self._head[fresh], self._tail[fresh] = tags[new, 0], tags[new, 1]
            self._used[fresh] = 0
            self.size += count
            self._enter(fresh)
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

    def _reserve(self, size: int) -> None:
        if size > len(self._hi):
            room = max(256, size + size // 4)
            for name in ("_head", "_tail", "_hi", "_mask", "_used"):
                old = getattr(self, name)
                grown = np.empty(room, old.dtype)
                grown[: self.size] = old[: self.size]
                setattr(self, name, grown)
        if 2 * size > len(self._index):
            self._index = np.full(1 << (2 * size - 1).bit_length(), -1, np.int32)
            self._enter(np.arange(self.size))

    def _enter(self, rows: Int64) -> None:
        wrap = np.int64(len(self._index) - 1)
        place = (self._tail[rows] & np.uint64(wrap)).view(np.int64)
        while len(rows):
            free = self._index[place] < 0
            self._index[place[free]] = rows[free]  # of several rows at one place the last one stays
            left = self._index[place] != rows
            rows, place = rows[left], (place[left] + 1) & wrap


def pack(tags: Words, states: States) -> NDArray[np.void]:
    """36 bytes a row: tag, i64 hi, u64 mask, u32 used, big-endian."""
    packed = np.empty(len(tags), ROW)
    packed["tag"], packed["hi"] = tags, states.hi
    packed["mask"], packed["used"] = states.mask, states.used
    return packed


def unpack(packed: NDArray[np.void]) -> tuple[Words, States]:
    hi, mask = packed["hi"].astype(np.int64), packed["mask"].astype(np.uint64)
    return packed["tag"].astype(np.uint64), States(hi, mask, packed["used"].astype(np.int64))
