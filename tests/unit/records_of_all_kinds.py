"""Twenty kinds of undecodable record, by hand: bytes that no library would write. Shared by several tests."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

FLAT: dict[str, Any] = {
    "type": "record",
    "name": "Raw",
    "namespace": "test.flat",
    "fields": [
        {"name": "key", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "count", "type": ["null", "long"], "default": None},
        {"name": "level", "type": ["null", "double"], "default": None},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
RICH: dict[str, Any] = {
    "type": "record",
    "name": "Rich",
    "namespace": "test.rich",
    "fields": [
        {"name": "key", "type": "string"},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}},
        {"name": "counts", "type": {"type": "array", "items": "long"}},
        {"name": "nothings", "type": {"type": "array", "items": "null"}},
        {"name": "either", "type": ["null", "string", "long"]},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
        {
            "name": "tree",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Tree",
                    "fields": [{"name": "next", "type": ["null", "Tree"]}],
                },
            ],
        },
        {"name": "last", "type": "string"},
    ],
}
FLAT_ID, RICH_ID, OTHER_ID, CLOCK_ID = 100_001, 100_002, 100_003, 100_004


def long(value: int) -> bytes:
    """Zigzag varint."""
    value = (value << 1) ^ (value >> 63) if value < 0 else value << 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(word: str) -> bytes:
    return long(len(word.encode())) + word.encode()


def framed(body: bytes, schema_id: int) -> bytes:
    return struct.pack(">bI", 0, schema_id) + body


def flat(key: str = "d-1", time: int = 1_451_606_400_000, count: int = 12, note: str = "ok") -> bytes:
    return (
        text(key)
        + long(time)
        + long(1)
        + long(count)
        + long(1)
        + struct.pack("<d", 1.5)
        + long(1)
        + text(note)
    )


def rich(
    colour: bytes = long(1),
    counts: bytes = long(2) + long(7) + long(-7) + long(0),
    nothings: bytes = long(3) + long(0),
    either: bytes = long(1) + text("x"),
    labels: bytes = long(1) + text("a") + text("b") + long(0),
    tree: bytes = long(1) + long(1) + long(0),
    last: bytes = text("end"),
) -> bytes:
    return text("d-1") + colour + counts + nothings + either + labels + tree + last


# kind -> (value, reason)
COMMON: dict[str, tuple[bytes | None, str]] = {
    "empty": (b"", "empty-value"),
    "1 byte": (b"\x00", "too-short"),
    "4 bytes": (b"\x00\x00\x01\x02", "too-short"),
    "wrong magic": (b"\x01" + framed(flat(), FLAT_ID)[1:], "wrong-magic"),
    "unknown id": (framed(flat(), 999_999), "unknown-schema-id"),
    "id of another subject": (framed(flat(), OTHER_ID), "unknown-schema-id"),
    "null value": (None, "null-value"),
    "JSON text": (json.dumps({"key": "d-1", "count": 12}).encode(), "wrong-magic"),
    "gzip bytes": (gzip.compress(flat(), mtime=0), "wrong-magic"),
}
IN_FLAT: dict[str, tuple[bytes | None, str]] = COMMON | {
    "truncated in the first field": (framed(flat()[:2], FLAT_ID), "length-beyond-end"),
    "truncated in the last field": (framed(flat()[:-1], FLAT_ID), "length-beyond-end"),
    "header only": (framed(b"", FLAT_ID), "truncated"),
    "trailing bytes": (framed(flat() + b"\x00", FLAT_ID), "trailing-bytes"),
    "negative length": (framed(long(-3) + flat()[1:], FLAT_ID), "negative-length"),
    "huge length": (framed(long(1 << 40) + flat()[1:], FLAT_ID), "length-beyond-end"),
    "union index out of range": (
        framed(text("d") + long(0) + long(2) + long(1), FLAT_ID),
        "union-index-out-of-range",
    ),
    "union index negative": (
        framed(text("d") + long(0) + long(-1) + long(1), FLAT_ID),
        "union-index-out-of-range",
    ),
    "invalid UTF-8": (framed(long(3) + b"\xff\xfe\xfd" + flat()[4:], FLAT_ID), "invalid-utf-8"),
    "varint overflow": (framed(text("d") + b"\xff" * 11, FLAT_ID), "varint-overflow"),
    "varint of 65 bits": (
        framed(text("d") + b"\xff" * 9 + b"\x02" + long(0) * 3, FLAT_ID),
        "varint-overflow",
    ),
}
DEEP = (long(1)) * 5_000 + long(0)
IN_RICH: dict[str, tuple[bytes | None, str]] = COMMON | {
    "truncated in the first field": (framed(rich()[:2], RICH_ID), "length-beyond-end"),
    "truncated in the last field": (framed(rich()[:-1], RICH_ID), "length-beyond-end"),
    "trailing bytes": (framed(rich() + b"x", RICH_ID), "trailing-bytes"),
    "negative length": (framed(rich(last=long(-1)), RICH_ID), "negative-length"),
    "huge length": (framed(rich(last=long(1 << 60)), RICH_ID), "length-beyond-end"),
    "huge block count": (framed(rich(counts=long(1 << 40)), RICH_ID), "block-count"),
    "negative block count of a wrong size": (
        framed(rich(counts=long(-1) + long(3) + long(7) + long(0)), RICH_ID), "block-size",
    ),
    "smallest block count": (framed(rich(counts=long(-(1 << 63)) + long(0)), RICH_ID), "block-count"),
    "zero-byte-element bomb": (framed(rich(nothings=long(20_000_000) + long(0)), RICH_ID), "block-count"),
    "zero-byte-element bomb in blocks": (
        framed(rich(nothings=(long(90_000)) * 200 + long(0)), RICH_ID), "block-count",
    ),
    "recursive bomb": (framed(rich(tree=DEEP), RICH_ID), "nested-too-deeply"),
    "union index out of range": (framed(rich(either=long(3)), RICH_ID), "union-index-out-of-range"),
    "union index negative": (framed(rich(either=long(-1) + text("x")), RICH_ID), "union-index-out-of-range"),
    "enum index out of range": (framed(rich(colour=long(2)), RICH_ID), "enum-index-out-of-range"),
    "enum index negative": (framed(rich(colour=long(-1)), RICH_ID), "enum-index-out-of-range"),
    "invalid UTF-8": (framed(rich(either=long(1) + long(1) + b"\xc0"), RICH_ID), "invalid-utf-8"),
    "varint overflow": (framed(rich(either=long(2) + b"\x80" * 12), RICH_ID), "varint-overflow"),
}  # fmt: skip
