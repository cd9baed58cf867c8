"""Alias tables (Vose's method on integers): one 63-bit word in, one outcome out, masses met exactly.

The layout is part of the noise, version "table/1": it fixes which word gives which outcome, so its SHA-256
stands in the canonical privacy section.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.privacy.masses import TOTAL

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Alias:
    """Columns of the table, 2^b cells.

    `threshold` u64 and `other` u32; a word's top b of 63 bits pick the cell.
    """

    threshold: NDArray[np.int64] = field(repr=False)
    other: NDArray[np.int64] = field(repr=False)
    shift: int

    @classmethod
    def of(cls, weights: Sequence[int]) -> Alias:
        """For two or more weights >= 0 that add up to 2^63. Outcome i has probability weights[i] / 2^63, exactly."""
        if len(weights) < 2 or min(weights) < 0 or sum(weights) != TOTAL:
            raise ValueError("the masses do not add up to 2^63")
        bits = (len(weights) - 1).bit_length()
        capacity = TOTAL >> bits
        left = [*weights, *[0] * ((1 << bits) - len(weights))]
        threshold, other = [capacity] * len(left), list(range(len(left)))
        small = [i for i, mass in enumerate(left) if mass < capacity]
        large = [i for i, mass in enumerate(left) if mass >= capacity]
        while small and large:
            thin, thick = small.pop(), large[-1]
            threshold[thin], other[thin] = left[thin], thick
            left[thick] -= capacity - left[thin]
            if left[thick] < capacity:
                small.append(large.pop())
        return cls(np.array(threshold, np.int64), np.array(other, np.int64), 63 - bits)

    def weights(self, outcomes: int) -> list[int]:
        """The masses that these columns really give: what is deployed is what was proved."""
        capacity = 1 << self.shift
        masses = [0] * len(self.threshold)
        for cell, (kept, other) in enumerate(zip(self.threshold.tolist(), self.other.tolist(), strict=True)):
            masses[cell] += kept
            masses[other] += capacity - kept
        if any(masses[outcomes:]):
            raise ValueError("an outcome beyond the last has mass")
        return masses[:outcomes]

    def digest(self) -> str:
        """SHA-256 over the cells in order, each u64 threshold, u32 alias, big-endian."""
        cells = np.empty(len(self.threshold), [("threshold", ">u8"), ("other", ">u4")])
        cells["threshold"], cells["other"] = self.threshold, self.other
        return hashlib.sha256(cells.tobytes()).hexdigest()

    def sample(self, words: Int64) -> Int64:
        """Outcomes 0..n-1 for uniform words 0 <= u < 2^63; shapes as given."""
        cell = words >> self.shift
        below: NDArray[Any] = (words & ((1 << self.shift) - 1)) < self.threshold[cell]
        return np.where(below, cell, self.other[cell])
