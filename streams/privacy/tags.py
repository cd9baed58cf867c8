"""Who a unit is, under a key: tag = HMAC-SHA256(key, lp(unit fields))[:16], cached within a bound.

A tag costs 1.2 us, a hit .06 us, another key's tag of the same units .02 us. A cache belongs to one epoch and
goes with it; it is emptied when full, so that a flood of new units costs time and never memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import islice, repeat

import numpy as np
import pyarrow as pa

from streams.privacy.grid import lengths, padded
from streams.privacy.index import Int64, TagIndex, Words
from streams.privacy.words import lp

Units = Sequence[str] | Sequence[tuple[str, ...]]
SHORT = 15  # bytes of a short text; its length is the 16th
LIMIT = 1 << 17  # about 22 MB of text and entries, and 2 MB a key


class Names:
    """Units by number, and their tags under any key, one column a key.

    Numbers from `ids` are good until the next call of `ids`. The same unit always has the same tag.
    """

    __slots__ = ("_columns", "_ids", "_limit", "_numbers", "_short")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._ids: dict[str | tuple[str, ...], int] = {}
        self._columns: dict[bytes, tuple[Words, int]] = {}
        self._short = TagIndex()  # short texts by their own bytes: a quarter of a dict's look-up
        self._numbers = np.empty(0, np.int64)  # row there -> number

    def ids(self, units: Units, short: Words | None = None) -> Int64:
        """Numbers of units that are text, or tuples of text for several fields. Holds at most `limit` units
        besides the ones of this call. `short`: `shorts` of the same units, which must then be distinct."""
        known = self._ids
        if len(known) >= self._limit:
            known.clear()
            self._columns.clear()
            self._short, self._numbers = TagIndex(), np.empty(0, np.int64)
        if short is None:
            found = np.fromiter(map(known.get, units, repeat(-1)), np.int64, len(units))
        else:
            rows = self._short.find(short)
            found = np.where(rows < 0, -1, self._numbers[rows]) if self._short.size else rows
        new = np.flatnonzero(found < 0)
        for i in new.tolist():
            found[i] = known.setdefault(units[i], len(known))
        if short is not None and len(new):
            self._short.append(short[new])
            self._numbers = np.concatenate([self._numbers, found[new]])
        return found

    def tags(self, key: bytes, ids: Int64) -> Words:
        """(n, 2) words in memory order."""
        column, filled = self._columns.get(key, (np.empty((0, 2), np.uint64), 0))
        if filled < len(self._ids):
            joined = b"".join(map(tagger(key), islice(self._ids, filled, None)))
            size = len(self._ids)
            if size > len(column):
                column = np.concatenate([column[:filled], np.empty((size + size // 2, 2), np.uint64)])
            column[filled:size] = np.frombuffer(joined, np.uint64).reshape(-1, 2)
            self._columns[key] = column, size
        return column[ids]


def shorts(texts: pa.StringArray) -> Words | None:
    """(n, 2) words that stand for texts of at most 15 bytes, one to one; None where one is longer, or null.

    Bytes, padding and length, put through a permutation (Feistel rounds) that spreads them for `TagIndex`.
    """
    if texts.null_count or not len(texts):
        return None
    long = lengths(texts)
    if long.max() > SHORT:
        return None
    packed = padded(texts, SHORT + 1)
    packed[:, SHORT] = long
    words = packed.view(np.uint64)
    words[:, 1] ^= _mixed(words[:, 0])
    words[:, 0] ^= _mixed(words[:, 1])
    words[:, 1] ^= _mixed(words[:, 0])
    return words


def _mixed(words: Words) -> Words:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def tagger(key: bytes) -> Callable[[str | tuple[str, ...]], bytes]:
    """The function that makes a unit's tag: HMAC-SHA256 of RFC 2104, its two key blocks hashed once and copied.

    `hmac.digest` looks OpenSSL's algorithm up anew in every call: .8 us of 1.9.
    """
    block = (sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner, outer = (sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))

    def tag(unit: str | tuple[str, ...]) -> bytes:
        """16 bytes for one unit."""
        first, second = inner.copy(), outer.copy()
        if isinstance(unit, str):
            text = unit.encode()
            first.update(len(text).to_bytes(4, "big") + text)  # lp, unrolled
        else:
            first.update(lp(*(part.encode() for part in unit)))
        second.update(first.digest())
        return second.digest()[:16]

    return tag
