"""Arrays with one row per key that grow as keys appear: the state of every part of a learner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = NDArray[np.intp]


class Column(NamedTuple):
    """Shape and type of one row, and what a new row is filled with."""

    shape: tuple[int, ...]
    dtype: Any
    fill: Any  # a number, or an array of `shape`


class Keyed:
    """Named columns, `self[name]` is [capacity, ...]; rows below `count` are in use.

    Rows are never removed and never change places. Growing doubles the memory, so adding keys one by one
    is cheap; `snapshot` shows the used rows only, and nothing that is computed depends on the capacity.
    """

    def __init__(self, **columns: Column) -> None:
        self.columns = columns
        self.count = 0
        self._arrays = {name: self._fresh(column, 0) for name, column in columns.items()}

    @staticmethod
    def _fresh(column: Column, rows: int) -> Array:
        array = np.empty((rows, *column.shape), column.dtype)
        array[...] = column.fill
        return array

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def grow(self, count: int) -> None:
        """At least `count` rows in use; new ones hold their fill."""
        capacity = len(next(iter(self._arrays.values())))
        if count > capacity:
            for name, column in self.columns.items():
                more = self._fresh(column, max(count, 2 * capacity) - capacity)
                self._arrays[name] = np.concatenate([self._arrays[name], more])
        self.count = max(self.count, count)

    def snapshot(self, prefix: str) -> dict[str, Array]:
        """A copy of the rows in use, as `prefix.name`."""
        return {f"{prefix}.{name}": array[: self.count].copy() for name, array in self._arrays.items()}

    def restore(self, prefix: str, state: Mapping[str, Array]) -> None:
        """Take over what `snapshot` gave. Raises ValueError where shape or type differ."""
        for name, column in self.columns.items():
            array = np.array(state[f"{prefix}.{name}"], order="C", copy=True)
            if array.shape[1:] != column.shape or array.dtype != np.dtype(column.dtype):
                raise ValueError(f"{prefix}.{name} is {array.dtype}{list(array.shape)}, not of this task")
            self._arrays[name], self.count = array, len(array)
