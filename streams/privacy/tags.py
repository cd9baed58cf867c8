"""Who a unit is, under a key: tag = HMAC-SHA256(k_unit, lp(unit fields))[:16], cached within a bound.

A tag costs 1.3 us, a hit .06 us. The cache belongs to one epoch and goes with it; it is emptied when full,
so that a flood of new units costs time and never memory.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from hmac import digest as hmac_digest
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from streams.privacy.words import lp

Words = NDArray[np.uint64]
LIMIT = 1 << 17  # about 22 MB of text and entries


class Tags:
    """Tags of one epoch's unit key. Hits never change a tag: the same text always gives the same 16 bytes."""

    __slots__ = ("_found", "_key", "_limit", "_tags")

    def __init__(self, key: bytes, limit: int = LIMIT) -> None:
        self._key, self._limit = key, limit
        self._found: dict[Hashable, int] = {}
        self._tags = np.empty((1024, 2), np.uint64)

    def of(self, units: Sequence[str] | Sequence[tuple[str, ...]]) -> Words:
        """(n, 2) words in memory order for units that are text, or tuples of text for several fields."""
        n = len(units)
        found = np.fromiter(map(self._found.get, units, repeat(-1)), np.int64, n)
        missing = np.flatnonzero(found < 0)
        if not len(missing):
            return self._tags[found]
        joined = b"".join(map(self._tag, [units[i] for i in missing.tolist()]))
        fresh = np.frombuffer(joined, np.uint64).reshape(-1, 2)
        out = np.empty((n, 2), np.uint64)
        known = found >= 0
        out[known] = self._tags[found[known]]
        out[missing] = fresh
        self._remember([units[i] for i in missing.tolist()], fresh)
        return out

    def _tag(self, unit: str | tuple[str, ...]) -> bytes:
        if isinstance(unit, str):
            text = unit.encode()
            return hmac_digest(self._key, len(text).to_bytes(4, "big") + text, "sha256")[:16]  # lp, unrolled
        return hmac_digest(self._key, lp(*(part.encode() for part in unit)), "sha256")[:16]

    def _remember(self, units: Sequence[Hashable], tags: Words) -> None:
        if len(self._found) + len(units) > self._limit:
            self._found.clear()
        start = len(self._found)
        units, tags = units[: self._limit], tags[: self._limit]
        while start + len(units) > len(self._tags):
            self._tags = np.concatenate([self._tags, np.empty_like(self._tags)])
        self._tags[start : start + len(units)] = tags
        self._found.update(zip(units, range(start, start + len(units)), strict=True))
