"""Who a privacy unit is, spelled one way, and in which partition of the raw topic it lives.

Producer and share agent must agree to the byte: a unit in two partitions, or under two spellings, would have
two ledger rows, and its slots would be shared twice. So the producer partitions by `unit_bytes`, and the
agent, which trusts no producer, rejects what lies in another partition than `partition` says.
"""

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


def normal(text: str, words: Sequence[str]) -> str:
    """The text after each word in turn, and composed again at the end: changing case can decompose it."""
    if text.isascii():  # composed already, and stays so
        for word in words:
            text = _WORDS[word](text) if word != "nfc" else text
        return text
    for word in words:
        text = _WORDS[word](text)
    return _WORDS["nfc"](text) if "nfc" in words else text


def unit_bytes(texts: Sequence[str]) -> bytes:
    """What is hashed: one field as it is, several each with its length before it.

    Of normal texts. A unit of one field then lives where Kafka's own partitioners put its key.
    """
    parts = [text.encode() for text in texts]
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


@lru_cache(1 << 17)
def partition(data: bytes, count: int) -> int:
    """The partition of 0..count-1 that Kafka's default partitioner chooses for this key."""
    return (murmur2(data) & 0x7FFFFFFF) % count if count > 1 else 0
