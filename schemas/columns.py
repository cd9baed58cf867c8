"""Avro types as Arrow types, and which schemas the columnar library may be trusted with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

PRIMITIVES = {
    "string": pa.string(),
    "long": pa.int64(),
    "int": pa.int32(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
}
COLUMNAR = frozenset(("string", "long", "double", "boolean"))


def nullable(type_: Any) -> tuple[Any, bool]:
    """The type behind `["null", T]`, and whether it was such a union."""
    if isinstance(type_, list) and len(type_) == 2 and type_[0] == "null":
        return type_[1], True
    return type_, False


def plain(type_: Any) -> Any:
    """The schema without logical types and foreign attributes: values stay integers, whatever they hold."""
    if isinstance(type_, list):
        return [plain(branch) for branch in type_]
    if not isinstance(type_, Mapping):
        return type_
    kind = type_["type"]
    if isinstance(kind, list | Mapping):
        return plain(kind)
    kept: dict[str, Any] = {"type": kind}
    for key in ("name", "namespace", "symbols", "size"):
        if key in type_:
            kept[key] = type_[key]
    for key in ("items", "values"):
        if key in type_:
            kept[key] = plain(type_[key])
    if "fields" in type_:
        kept["fields"] = [
            {
                "name": f["name"],
                "type": plain(f["type"]),
                **({"default": f["default"]} if "default" in f else {}),
            }
            for f in type_["fields"]
        ]
    return kept if len(kept) > 1 else kind


def arrow_type(type_: Any) -> pa.DataType | None:
    """Arrow's type for an Avro type, None where there is none that we use (unions, maps, recursion,
    names)."""
    type_, _ = nullable(type_)
    if isinstance(type_, str):
        return PRIMITIVES.get(type_)
    if not isinstance(type_, Mapping):
        return None
    if type_.get("logicalType") == "timestamp-millis":
        return pa.timestamp("ms")
    kind = type_["type"]
    if kind == "enum":
        return pa.string()
    if kind == "array":
        item = arrow_type(type_["items"])
        return None if item is None else pa.list_(item)
    if kind == "record":
        return _struct(type_)
    return arrow_type(kind) if isinstance(kind, str) and kind in PRIMITIVES else None


def _struct(record: Mapping[str, Any]) -> pa.DataType | None:
    inner = [(field["name"], arrow_type(field["type"])) for field in record["fields"]]
    return None if any(type_ is None for _, type_ in inner) else pa.struct(inner)


def flat(schema: Any) -> bool:
    """A record of primitives, each maybe nullable: what the contract language can say about a raw event.

    Only these go to pyruhvro for decoding: it panics on bytes, fixed, uuid and decimal, and recursion or
    block counts in hostile bytes are nothing to try on native code.
    """
    return (
        isinstance(schema, Mapping)
        and schema.get("type") == "record"
        and all(_columnar(nullable(field["type"])[0]) for field in schema["fields"])
    )


def nested(schema: Any) -> bool:
    """The same with records and arrays in it: what a mapping can make, so what pyruhvro may encode."""
    type_, _ = nullable(schema)
    if isinstance(type_, Mapping) and type_["type"] == "record":
        return all(nested(field["type"]) for field in type_["fields"])
    if isinstance(type_, Mapping) and type_["type"] == "array":
        return nested(type_["items"])
    return _columnar(type_)


def _columnar(type_: Any) -> bool:
    if isinstance(type_, Mapping):
        return type_["type"] == "long" and type_.get("logicalType") in (None, "timestamp-millis")
    return type_ in COLUMNAR


def arrow_schema(record: Mapping[str, Any]) -> pa.Schema:
    """Columns of a record. A field that Arrow cannot type becomes JSON text (no contract can say such a
    field)."""
    return pa.schema(
        pa.field(field["name"], arrow_type(field["type"]) or pa.string(), nullable(field["type"])[1])
        for field in record["fields"]
    )


def trim(type_: Any) -> Any:
    """The schema without foreign attributes, logical types kept: what the columnar library is asked to
    read."""
    if isinstance(type_, list):
        return [trim(branch) for branch in type_]
    if not isinstance(type_, Mapping):
        return type_
    kept = {
        key: type_[key] for key in ("type", "name", "namespace", "logicalType", "default") if key in type_
    }
    kept["type"] = trim(kept["type"])
    if "items" in type_:
        kept["items"] = trim(type_["items"])
    if "fields" in type_:
        kept["fields"] = [trim(field) for field in type_["fields"]]
    return kept
