"""A strict walk over the bytes of one Avro datum, before any library builds objects from them.

Why: 5 bytes (an array of null) make fastavro take 172 MiB, a recursive datum crashes the process, a union
index of -1 picks the last branch, `bool` takes any byte. The walk builds nothing, reads each byte once
and holds to limits; what it lets through, fastavro decodes, and exactly to the last byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 32  # nested records, arrays, maps; the datum's own nesting, since a schema may be recursive
MAX_VALUES = 100_000  # values in one datum; one costs Python about 100 bytes, so 10 MB at most
MIN_LONG = -(1 << 63)

Schema = Mapping[str, Any] | list[Any] | str
Walk = Callable[[bytes, int, "_Left"], int]


class Bad(Exception):  # noqa: N818 (a finding, not a failure)
    """This datum is not one of this schema; `reason` is a fixed word and holds nothing of the datum."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Left:
    """What one datum may still use."""

    __slots__ = ("depth", "values")

    def __init__(self) -> None:
        self.depth, self.values = MAX_DEPTH, MAX_VALUES

    def take(self, count: int) -> None:
        self.values -= count
        if self.values < 0:
            raise Bad("too-many-values")


class Guard:
    """`check(datum)` says why it cannot be decoded by this schema, or None. Costs about 5 us for four
    fields."""

    def __init__(self, schema: Schema) -> None:
        self._named: dict[str, Walk] = {}
        self._walk = self._compile(schema, "")

    def check(self, datum: bytes) -> str | None:
        try:
            end = self._walk(datum, 0, _Left())
        except Bad as bad:
            return bad.reason
        return None if end == len(datum) else "trailing-bytes"

    def _compile(self, schema: Any, space: str) -> Walk:
        if isinstance(schema, list):
            return _union([self._compile(branch, space) for branch in schema])
        if isinstance(schema, str):
            return _PRIMITIVES.get(schema) or self._reference(schema, space)
        kind = schema["type"]
        if isinstance(kind, dict | list):
            return self._compile(kind, space)
        if kind in ("record", "error", "enum", "fixed"):
            name = schema["name"]
            space = schema.get("namespace", name.rpartition(".")[0] or space)
            full = name if "." in name or not space else f"{space}.{name}"
            self._named[full] = walk = self._compile_named(kind, schema, space)
            return walk
        if kind in ("array", "map"):
            inner = self._compile(schema["items" if kind == "array" else "values"], space)
            return _blocks(
                inner if kind == "array" else lambda b, at, left: inner(b, _string(b, at, left), left)
            )
        return self._compile(kind, space)

    def _compile_named(self, kind: str, schema: Mapping[str, Any], space: str) -> Walk:
        if kind == "enum":
            return _enum(len(schema["symbols"]))
        if kind == "fixed":
            return _fixed(schema["size"])
        fields: list[Walk] = []
        full = schema["name"] if "." in schema["name"] or not space else f"{space}.{schema['name']}"
        self._named[full] = _record(fields)  # before its fields: a record may hold itself
        fields.extend(self._compile(field["type"], space) for field in schema["fields"])
        return self._named[full]

    def _reference(self, name: str, space: str) -> Walk:
        full = name if "." in name or not space else f"{space}.{name}"
        return self._named[full]


def _long(datum: bytes, at: int) -> tuple[int, int]:
    """One zigzag varint of at most 64 bits, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(datum):
            raise Bad("truncated")
        byte = datum[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise Bad("varint-overflow")
    if value >> 64:
        raise Bad("varint-overflow")
    return (value >> 1) ^ -(value & 1), at


def _walk_long(datum: bytes, at: int, left: _Left) -> int:
    left.take(1)
    return _long(datum, at)[1]


def _walk_int(datum: bytes, at: int, left: _Left) -> int:
    left.take(1)
    value, at = _long(datum, at)
    if not -(1 << 31) <= value < 1 << 31:
        raise Bad("varint-overflow")
    return at


def _length(datum: bytes, at: int) -> tuple[int, int]:
    length, at = _long(datum, at)
    if length < 0:
        raise Bad("negative-length")
    if length > len(datum) - at:
        raise Bad("length-beyond-end")
    return at, at + length


def _bytes(datum: bytes, at: int, left: _Left) -> int:
    left.take(1)
    return _length(datum, at)[1]


def _string(datum: bytes, at: int, left: _Left) -> int:
    left.take(1)
    start, end = _length(datum, at)
    text = datum[start:end]
    if not text.isascii():
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            raise Bad("invalid-utf-8") from None
    return end


def _null(datum: bytes, at: int, left: _Left) -> int:
    left.take(1)
    return at


def _boolean(datum: bytes, at: int, left: _Left) -> int:
    left.take(1)
    if at >= len(datum):
        raise Bad("truncated")
    if datum[at] > 1:
        raise Bad("boolean-out-of-range")
    return at + 1


def _fixed(size: int) -> Walk:
    def walk(datum: bytes, at: int, left: _Left) -> int:
        left.take(1)
        if at + size > len(datum):
            raise Bad("truncated")
        return at + size

    return walk


def _enum(symbols: int) -> Walk:
    def walk(datum: bytes, at: int, left: _Left) -> int:
        left.take(1)
        index, at = _long(datum, at)
        if not 0 <= index < symbols:
            raise Bad("enum-index-out-of-range")
        return at

    return walk


def _union(branches: list[Walk]) -> Walk:
    def walk(datum: bytes, at: int, left: _Left) -> int:
        index, at = _long(datum, at)
        if not 0 <= index < len(branches):
            raise Bad("union-index-out-of-range")
        return branches[index](datum, at, left)

    return walk


def _record(fields: list[Walk]) -> Walk:
    def walk(datum: bytes, at: int, left: _Left) -> int:
        left.take(1)
        left.depth -= 1
        if left.depth < 0:
            raise Bad("nested-too-deeply")
        for field in fields:
            at = field(datum, at, left)
        left.depth += 1
        return at

    return walk


def _blocks(item: Walk) -> Walk:
    def walk(datum: bytes, at: int, left: _Left) -> int:
        left.take(1)
        left.depth -= 1
        if left.depth < 0:
            raise Bad("nested-too-deeply")
        while True:
            count, at = _long(datum, at)
            if count == 0:
                left.depth += 1
                return at
            end = None
            if count < 0:  # the block's size in bytes follows
                if count == MIN_LONG:
                    raise Bad("block-count")
                count = -count
                at, end = _length(datum, at)
            if count > left.values:
                raise Bad("block-count")
            for _ in range(count):
                at = item(datum, at, left)
            if end is not None and at != end:
                raise Bad("block-size")

    return walk


_PRIMITIVES: dict[str, Walk] = {
    "null": _null,
    "boolean": _boolean,
    "int": _walk_int,
    "long": _walk_long,
    "float": _fixed(4),
    "double": _fixed(8),
    "bytes": _bytes,
    "string": _string,
}
