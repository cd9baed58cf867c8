"""What counts as a schema, when two are the same, and when one may follow another. Pure.

Compatibility is decided by the reader/writer checker of Apache Avro's Python library ("Schema Resolution" of
the Avro specification 1.12); this file only says who is the reader.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.name import Names
from avro.schema import make_avsc_object

from sluice.stack.registry_replies import invalid_schema

LEVELS = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)
DEFAULT_LEVEL = "BACKWARD"
# The library compares every record with every other one in a union, and copies a list for each field: 512 records
# took 9 s, 7,000 fields 22, 1,500 records minutes, in which nobody else is answered. Within these: 2 s at worst. The
# largest contract (200 fields) needs half.
MOST_TYPES, MOST_NAMES = 2_000, 64
_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


@dataclass(frozen=True, slots=True)
class Reference:
    """`name` in a schema stands for the schema of `subject` at `version`."""

    name: str
    subject: str
    version: int

    def shown(self) -> dict[str, str | int]:
        """As records and answers have it."""
        return {"name": self.name, "subject": self.subject, "version": self.version}


@dataclass(frozen=True, slots=True)
class Schema:
    """One schema as it is stored: `text` is compact JSON, attributes in the order in which they came."""

    text: str
    references: tuple[Reference, ...] = ()
    kind: str = "AVRO"

    @property
    def identity(self) -> str:
        """Hex SHA-256; equal iff the schemas are the same but for blanks and the order of attributes."""
        try:
            meaning: Any = _fold(json.loads(self.text)) if self.kind == "AVRO" else self.text
        except (ValueError, RecursionError):  # from another registry's log
            meaning = self.text
        refers = sorted((r.name, r.subject, r.version) for r in self.references)
        return hashlib.sha256(json.dumps([self.kind, meaning, refers], sort_keys=True).encode()).hexdigest()


Resolved = tuple[Schema, Sequence[str]]  # with the texts of all its references, those that others need first


def read(text: str, references: tuple[Reference, ...] = (), resolved: Sequence[str] = ()) -> Schema:
    """The schema that `text` is; `resolved`: see Resolved.

    Raises Refused (42201) for what is no JSON or no Avro schema.
    """
    try:
        tree = json.loads(text, parse_constant=_no_constant)
        compact = json.dumps(tree, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        compact.encode()  # lone surrogates end here
    except (ValueError, RecursionError):
        raise invalid_schema("not valid JSON.") from None
    _avro(tree, resolved)
    return Schema(compact, references)


def differences(new: Resolved, earlier: Sequence[Resolved], level: str) -> list[str]:
    """Why `new` may not follow `earlier` (oldest first) under `level`; empty when it may."""
    if level == "NONE" or not earlier:
        return []
    compared = earlier if level.endswith("_TRANSITIVE") else earlier[-1:]
    direction = level.removesuffix("_TRANSITIVE")
    found: list[str] = []
    for old in reversed(compared):
        if direction in ("BACKWARD", "FULL"):
            found += _cannot_read(new, old, "the new schema cannot read data written with the old one")
        if direction in ("FORWARD", "FULL"):
            found += _cannot_read(old, new, "the old schema cannot read data written with the new one")
        if found:
            break
    return found


def _cannot_read(reader: Resolved, writer: Resolved, meaning: str) -> list[str]:
    texts = [(schema.text, resolved) for schema, resolved in (reader, writer)]
    mine, theirs = (_avro(json.loads(text), resolved) for text, resolved in texts)
    try:
        checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
        result = checker.get_compatibility(mine, theirs)
    except (AvroException, RecursionError):
        return [f"{meaning}: the checker does not know one of the types"]
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    kinds = ", ".join(sorted({kind.value for kind in result.incompatibilities})) or "incompatible"
    where, why = (", ".join(sorted(found)) for found in (result.locations, result.messages))
    return [f"{meaning}: {kinds} at {where} ({why})"]


def _avro(tree: Any, resolved: Sequence[str]) -> Any:
    """Avro's own object of the schema. Raises Refused where Avro does not take it, or where it is too large."""
    names = Names(validate_names=True)
    try:
        _check_size([tree, *(json.loads(text) for text in resolved)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown logical type is ignored, as the specification says
            for text in resolved:
                make_avsc_object(json.loads(text), names)
            return make_avsc_object(tree, names)
    except AvroException as problem:
        raise invalid_schema(f"{type(problem).__name__}: {problem}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise invalid_schema(f"not an Avro schema ({type(problem).__name__}).") from None


def _check_size(trees: list[Any]) -> None:
    """Counts what stands where a type may stand, and names among it. Raises Refused."""
    types, names = 0, 0
    while trees:
        tree = trees.pop()
        types += 1
        if isinstance(tree, list):
            trees += tree
        elif isinstance(tree, dict):
            names += "name" in tree
            fields = tree.get("fields")
            trees += [tree[part] for part in ("type", "items", "values") if part in tree]
            trees += [field.get("type") for field in fields or () if isinstance(field, dict)]
        if types > MOST_TYPES or names > MOST_NAMES:
            raise invalid_schema(f"larger than {MOST_TYPES} types or {MOST_NAMES} named ones.")


def _fold(tree: Any) -> Any:
    """`{"type": "string"}` is `"string"`: the only two spellings that writers mix in practice."""
    if isinstance(tree, dict):
        if tree.keys() == {"type"} and tree["type"] in _PRIMITIVES:
            return tree["type"]
        return {name: value if name == "default" else _fold(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_fold(item) for item in tree]
    return tree


def _no_constant(name: str) -> Any:
    raise ValueError(name)
