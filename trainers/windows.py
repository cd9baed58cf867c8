"""The last shared values of every key, on the grid of slots: what a forecast sees, and what a release
carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Column, Keyed, Rows

NEVER = np.iinfo(np.int64).min // 2  # slot of a key without an observation; differences to it do not overflow


class Gone(NamedTuple):
    """Values that left the window at one place: at most one per key."""

    rows: Rows
    slots: NDArray[np.int64]
    values: NDArray[np.float64]


class Windows(Keyed):
    """`values` float64 [K, context + held_out], oldest first, NaN where nothing came; `slot` int64 [K] of
    the last one.
    """

    def __init__(self, context: int, held_out: int) -> None:
        self.context, self.length = context, context + held_out
        super().__init__(
            values=Column((self.length,), np.float64, np.nan),
            slot=Column((), np.int64, NEVER),
        )
        self._places = np.arange(self.length)

    def push(self, rows: Rows, slots: NDArray[np.int64], values: NDArray[np.float64]) -> Iterator[Gone]:
        """Append one value for each of `rows` (each key once, slots later than its last), and yield what
        leaves, oldest first.
        """
        before = self["slot"][rows]
        gaps = np.minimum(slots - before, self.length)
        old = self["values"][rows]
        source = self._places + gaps[:, None]
        inside = np.minimum(source, self.length - 1)
        new = np.where(source < self.length, np.take_along_axis(old, inside, axis=1), np.nan)
        new[:, -1] = values
        self["values"][rows] = new
        self["slot"][rows] = slots
        for place in range(int(gaps.max(initial=0))):
            leaves = (gaps > place) & np.isfinite(old[:, place])
            if leaves.any():
                slot = before[leaves] - (self.length - 1 - place)
                yield Gone(rows[leaves], slot, old[leaves, place])

    def contexts(self, rows: Rows, back: NDArray[np.int64] | int = 0) -> NDArray[np.float64]:
        """float64 [N, context]: the values up to `back` slots (int, or int64 [N]; 0 <= back <= held_out)
        before the key's last.
        """
        if isinstance(back, int):
            end = self.length - back
            return np.ascontiguousarray(self["values"][rows, end - self.context : end])
        first = self.length - self.context - back
        values: NDArray[np.float64] = self["values"][
            rows[:, None], first[:, None] + self._places[: self.context]
        ]
        return values
