"""Hostile values through any mapping: columns agree with plain Python row by row, in any split, and nothing raises.

Input: one byte n, n bytes that spell a `map:` section, the rest values of rows.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from schemas import columns
from schemas.codec import Encoder
from schemas.contract import Contract
from schemas.mapping import Mapping, iso
from schemas.rulebook import refusals
from schemas.targets import Constant, ListOfOne, Nest, Operator, Rename, Scale, Table, Template
from schemas.text import read
from tests.fuzz.codec import plain, same
from tests.fuzz.contracts import TRIPS
from tests.fuzz.oracles import require

REST: dict[str, Any] = read(TRIPS, "trips")[0]  # read once: YAML takes longer than all the rest
FIELDS = ("zone", "at", "rider", "seen", "people", "metres", "speed", "why", "paid", "fare", "stops", "line")
NUMBERS = ("people", "metres", "speed", "fare", "stops", "at", "seen", "rider")
NAMES = ("a", "b", "at", "id", "a_b", "Event", "Trip", "type", "string", "place", "_x", "long")
PIECES = ("", "urn:", "{", "}", "käse", " ", ":", "{{", "\\", '"')
CONSTANTS = (0, -1, 1.5, True, "", "x", "ä", 1 << 62, (1 << 63) - 1, -(1 << 63), 1 << 63, 1e308, -0.0, None)
INTEGERS = (
    0,
    1,
    -1,
    1 << 31,
    (1 << 53) - 1,
    (1 << 53) + 1,
    (1 << 63) - 1,
    -(1 << 63),
    1_451_894_400_123,
    253_402_300_800_000,
)
FLOATS = (0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 1e16, 0.1)
TEXTS = ("work", "home", "else", "", "ä", "\0", "\u2028", "𝒳", "true", "a" * 300, "{zone}", '"', "\\")
WORDS: tuple[bytes, ...] = ()
mutate = None


class Bytes:
    """Choices out of bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def of(self, choices: tuple[Any, ...]) -> Any:
        return choices[self.byte() % len(choices)]

    def eight(self) -> bytes:
        return bytes(self.byte() for _ in range(8))


def run(data: bytes) -> None:
    if not data:
        return
    made = _contract(data[1 : 1 + data[0]])
    if made is None:
        return
    contract, mapping, encoder, parsed = made
    names, types = list(mapping._types), mapping._types
    given = Bytes(data[1 + data[0] :])
    rows: list[dict[str, Any]] = []
    while given.left > 0 and len(rows) < 12:
        rows.append({name: _value(given, types[name]) for name in names})
    batch = _batch(rows, types)
    whole = mapping.apply(batch)
    require(whole.schema == mapping.schema and whole.num_rows == len(rows), "other columns or rows")
    whole.validate(full=True)
    found = plain(whole)
    half = len(rows) // 2
    parts = [*plain(mapping.apply(batch.slice(0, half))), *plain(mapping.apply(batch.slice(half)))]
    require(same(parts, found), "a row depends on the others")
    expected = [
        {name: _made(operator, row, types) for name, operator in contract.targets.items()} for row in rows
    ]
    require(same(found, expected), "columns and plain Python disagree")
    for value, record in zip(encoder.encode(whole), expected, strict=True):
        stream = io.BytesIO(value[5:])
        require(
            same(fastavro.schemaless_reader(stream, parsed, None), record), "fastavro reads another record"
        )
        require(stream.read(1) == b"", "bytes after the record")
        view = mapping.json_view(record)
        text = json.dumps(view, allow_nan=False)
        require(json.loads(text) == view, "a view that JSON does not keep")
        require("type" in view, "NGSI JSON without a type")


@lru_cache(maxsize=256)
def _contract(spelled: bytes) -> tuple[Contract, Mapping, Encoder, Any] | None:
    """None where the contract is refused, which is the contract target's business."""
    choices = Bytes(spelled)
    section = {choices.of(NAMES): _spell(choices, 0) for _ in range(1 + choices.byte() % 6)}
    section |= {} if choices.byte() % 8 == 7 else {"when": "at"}
    try:
        contract = Contract.model_validate(
            {**REST, "shares": {"as": "smart-data-models/Trip", "map": section}}
        )
    except ValidationError:
        return None
    if refusals(contract):
        return None
    mapping = Mapping(contract)
    parsed = fastavro.parse_schema(columns.plain(mapping.avro_schema))
    return contract, mapping, Encoder(7, mapping.avro_schema), parsed


def _spell(choices: Bytes, depth: int) -> Any:
    """One operator as a contract spells it."""
    match choices.byte() % (7 if depth < 4 else 5):
        case 0:
            return choices.of(FIELDS)
        case 1:
            scale, offset = (
                struct.unpack("<d", choices.eight())[0] if choices.byte() % 2 else choices.of(FLOATS)
                for _ in "ab"
            )
            return {"from": choices.of(NUMBERS), "scale": _finite(scale), "offset": _finite(offset)}
        case 2:
            words = {choices.of(TEXTS) or "x": choices.of(TEXTS) for _ in range(1 + choices.byte() % 3)}
            return {"from": choices.of(FIELDS), "table": words, "else": choices.of(TEXTS)}
        case 3:
            return {"constant": choices.of(CONSTANTS)}
        case 4:
            pieces = [
                choices.of((*PIECES, *(f"{{{field}}}" for field in FIELDS)))
                for _ in range(1 + choices.byte() % 4)
            ]
            return "".join((*pieces, "{zone}"))
        case 5:
            return {
                "nest": {choices.of(NAMES): _spell(choices, depth + 1) for _ in range(1 + choices.byte() % 3)}
            }
        case _:
            return {"list": _spell(choices, depth + 1)}


def _finite(number: float) -> float:
    return number if math.isfinite(number) else 1.0


def _value(given: Bytes, type_: pa.DataType) -> Any:
    """A value of a privatized column, times as integers. Which columns may be null the batch says."""
    how = given.byte()
    if pa.types.is_string(type_):
        return given.of(TEXTS) if how % 2 else given.eight().decode("utf-8", "replace")
    if pa.types.is_boolean(type_):
        return bool(how & 1)
    if pa.types.is_floating(type_):
        return given.of(FLOATS) if how % 2 else struct.unpack("<d", given.eight())[0]
    return given.of(INTEGERS) if how % 2 else int.from_bytes(given.eight(), "little", signed=True)


def _batch(rows: list[dict[str, Any]], types: dict[str, pa.DataType]) -> pa.RecordBatch:
    """Columns of the rows. `fare`, `paid`, `stops`, `line` and `seen` are null in every third row, as raw events may
    have them."""
    for at, row in enumerate(rows):
        if at % 3 == 2:
            row |= dict.fromkeys(("fare", "paid", "stops", "line", "seen"))
    arrays = [
        pa.array([row[name] for row in rows], pa.int64() if pa.types.is_timestamp(type_) else type_).cast(
            type_
        )
        for name, type_ in types.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, list(types))


def _made(operator: Operator, row: dict[str, Any], types: dict[str, pa.DataType]) -> Any:
    """What an operator makes of one row, in plain Python."""
    if isinstance(operator, Rename):
        return row[operator.field]
    if isinstance(operator, Scale):
        value = row[operator.field]
        with np.errstate(all="ignore"):
            return (
                None
                if value is None
                else float(np.float64(value) * np.float64(operator.scale) + np.float64(operator.offset))
            )
    if isinstance(operator, Table):
        word = _word(row[operator.field], types[operator.field], pa.string())
        return None if word is None else operator.table.get(word, operator.otherwise)
    if isinstance(operator, Constant):
        return operator.constant
    if isinstance(operator, Template):
        words = [
            piece if at % 2 == 0 else _word(row[piece], types[piece], None) or ""
            for at, piece in enumerate(operator.pieces)
        ]
        return "".join(words)
    if isinstance(operator, Nest):
        return {name: _made(inner, row, types) for name, inner in operator.nest.items()}
    assert isinstance(operator, ListOfOne)
    return [_made(operator.item, row, types)]


def _word(value: Any, type_: pa.DataType, times: pa.DataType | None) -> str | None:
    """A value as text. Floats, and times where a table looks them up, as Arrow writes them: one at a time here."""
    kind: Callable[[pa.DataType], bool] = pa.types.is_timestamp
    if value is None or isinstance(value, str):
        return value
    if kind(type_):
        return (
            iso(value)
            if times is None
            else str(pa.array([value], pa.int64()).cast(type_).cast(times)[0].as_py())
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        str(value) if isinstance(value, int) else str(pa.array([value], type_).cast(pa.string())[0].as_py())
    )


def seeds() -> Iterator[tuple[str, bytes]]:
    maps = {
        "rename": b"\0\0\0",
        "scale": b"\1\2\1\0\2\0\1\4\0\4" + bytes(8),
        "table": b"\2\3\2\7\1\0\1\1\2\2\3" + bytes(8),
        "constant": b"\3\4\3\7\0\0",
        "template": b"\4\1\4\3\20\13\17\21" + bytes(4),
        "nest": b"\5\5\5\2\0\0\1\1\5\1\2\0\4\3\6\4\1" + bytes(12),
        "names": b"\1\0\5\0\1\5\0\0\0\4\4\5\0\0\0\4" + bytes(4),
        "list": b"\6\6\6\6\0\5" + bytes(6),
    }
    values = bytes(range(64)) * 3
    for name, spelled in maps.items():
        yield name, bytes([len(spelled)]) + spelled + values
