"""The noise words of one batch: which key and which tag stands behind each row."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.privacy.prf import Prf
from streams.privacy.tags import Names

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EpochDraws:
    """Rows of one epoch among those that are shared.

    Their positions, their units as numbers of `names`, and the PRF's first pass over their tags.
    """

    epoch: int
    rows: Int64 = field(repr=False)
    names: Names = field(repr=False)
    ids: Int64 = field(repr=False)
    prf: Prf = field(repr=False)
    first: NDArray[np.uint64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Draws:
    """Words for the `len(slots)` rows that are shared; `epochs` covers every row once.

    `unit_field` is the field whose raw texts the units' names are, "" where there is no such field.
    """

    slots: Int64 = field(repr=False)
    epochs: tuple[EpochDraws, ...]
    unit_field: str = ""

    def words(self, values: Int64, field: int, draw: int) -> Int64:
        """u in 0 .. 2^63 - 1 per row, for a value index, a field id and a draw number."""
        if len(self.epochs) == 1:
            only = self.epochs[0]
            return only.prf.words(only.first, self.slots, values, field, draw)
        out = np.empty(len(self.slots), np.int64)
        for part in self.epochs:
            rows = part.rows
            out[rows] = part.prf.words(part.first, self.slots[rows], values[rows], field, draw)
        return out
