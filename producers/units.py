"""Which partition an event goes to: Kafka's own hash of its key, or of its privacy unit if it has one."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

_WORDS: dict[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "trim": str.strip,
    "lower": str.lower,
    "upper": str.upper,
}


def unit_bytes(values: Sequence[str], normalise: Sequence[str]) -> bytes:
    """What is hashed: one field as it is once normalised, several each with its length before it.

    Two spellings of one unit must not come to two partitions: each would have its own ledger row. A key in
    normal form hashes as Kafka's own partitioners hash it.
    """
    parts = []
    for text in values:
        for word in normalise:
            text = _WORDS[word](text)
        parts.append(text.encode())
    if len(parts) == 1:
        return parts[0]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit hash, as its Java clients and librdkafka's `murmur2` compute it, unsigned."""
    length, m = len(data), 0x5BD1E995
    h = (0x9747B28C ^ length) & 0xFFFFFFFF
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & 0xFFFFFFFF
        k ^= k >> 24
        h = (h * m & 0xFFFFFFFF) ^ (k * m & 0xFFFFFFFF)
    if length & 3:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & 0xFFFFFFFF
    h ^= h >> 13
    h = h * m & 0xFFFFFFFF
    return h ^ (h >> 15)


@lru_cache(8_192)
def partition(data: bytes, count: int) -> int:
    """The partition of 0..count-1 that Kafka's default partitioner chooses for this key."""
    return (murmur2(data) & 0x7FFFFFFF) % count if count > 1 else 0
