"""Which row a 16-byte tag has: open addressing in numpy, no Python object a tag."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]


class TagIndex:
    """Rows 0, 1, 2 ... of distinct tags. The index needs no hash of its own: tags must be spread evenly over their
    last 8 bytes, as what HMAC or a mixing permutation makes is.
    """

    __slots__ = ("_head", "_index", "_tail", "size")
    COLUMNS: ClassVar[tuple[str, ...]] = ("_head", "_tail")  # grown together

    def __init__(self) -> None:
        self.size = 0
        self._head, self._tail = np.empty(0, np.uint64), np.empty(0, np.uint64)
        self._index = np.full(16, -1, np.int32)

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

    def append(self, tags: Words) -> Int64:
        """Row numbers of tags (n, 2) that are distinct and not there yet."""
        rows = np.arange(self.size, self.size + len(tags))
        self._reserve(self.size + len(tags))
        self._head[rows], self._tail[rows] = tags[:, 0], tags[:, 1]
        self.size += len(tags)
        self._enter(rows)
        return rows

    def _reserve(self, size: int) -> None:
        if size > len(self._head):
            room = max(256, size + size // 4)
            for name in self.COLUMNS:
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
