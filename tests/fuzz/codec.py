"""Hostile Avro: the fast path (Arrow) and fastavro agree on every datum, and no datum disturbs its neighbours.

Input: one byte that chooses the schema, one that says how (0 alone and in a batch, 1 and 2 alone, 3 without a frame
of ours), then the datum.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import columns
from schemas.codec import Decoder, Encoder
from schemas.contract import EXAMPLES
from schemas.guard import Guard
from tests.fuzz.contracts import contract
from tests.fuzz.oracles import require
from tests.unit import records_of_all_kinds as kinds

CLOCK = 77
# Words that say why a record is poison: fixed, and all there are.
REASONS = frozenset(
    ("null-value", "empty-value", "too-short", "wrong-magic", "unknown-schema-id", "truncated", "varint-overflow",
     "negative-length", "length-beyond-end", "invalid-utf-8", "boolean-out-of-range", "enum-index-out-of-range",
     "union-index-out-of-range", "nested-too-deeply", "too-many-values", "block-count", "block-size",
     "trailing-bytes", "not-of-the-readers-schema")
)  # fmt: skip
# Where fastavro takes what Avro's specification does not allow, or what would cost too much.
STRICTER = frozenset(
    ("union-index-out-of-range", "varint-overflow", "boolean-out-of-range", "enum-index-out-of-range", "block-size",
     "block-count", "too-many-values", "nested-too-deeply")
)  # fmt: skip
# Where arrays may be, only behind these has the guard seen all that fastavro would read: no bomb is left.
SAFE = frozenset(("trailing-bytes", "truncated", "invalid-utf-8"))


@dataclass(frozen=True)
class Case:
    """One schema as a topic has it. `writer` differs from `reader` where the record is of an older version."""

    name: str
    id: int
    writer: Mapping[str, Any]
    reader: Mapping[str, Any]
    good: bytes
    decoder: Decoder
    encoder: Encoder
    guard: Guard
    parsed: tuple[Any, Any]  # fastavro's
    flat: bool


def case(name: str, writer: Mapping[str, Any], good: bytes, reader: Mapping[str, Any] | None = None) -> Case:
    reader = reader or writer
    id_ = 100 + len(name)
    decoder = Decoder({id_: writer, 9: reader} if reader is not writer else {id_: writer}, CLOCK)
    parsed = tuple(fastavro.parse_schema(columns.plain(schema)) for schema in (writer, reader))
    return Case(
        name, id_, writer, reader, good, decoder, Encoder(9, reader), Guard(writer),
        (parsed[0], parsed[1]), columns.flat(writer),
    )  # fmt: skip


def written(schema: Mapping[str, Any], record: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(columns.plain(schema)), record)
    return out.getvalue()


COUNTS = contract("counts")
TRIPS = contract("trips")
COUNT = {"detector": "d-401190", "interval_start": 1_451_894_400_000, "vehicles": 41, "observed_pct": 100}
TARGET = {"id": "urn:ngsi-ld:T:d", "dateObserved": 1_451_894_400_000, "intensity": 41}
TRIP = {
    "zone": "käse", "at": 1_451_894_400_000, "rider": -7, "seen": None, "people": 2, "metres": 1.5, "speed": math.inf,
    "why": "work", "paid": True, "fare": None, "stops": 1 << 40, "line": "", "secret": "s",
}  # fmt: skip
SHARED = {
    "at": 5, "id": "urn:z:1", "half": 0.25, "how": "w", "fixed": 7,
    "place": {"type": "Point", "name": "z", "when": 5, "more": {"paid": False, "fare": 2.5}},
    "flows": [{"v": 3, "w": [4]}, {"v": 5, "w": []}], "line": None,
}  # fmt: skip
OLD = {**kinds.FLAT, "fields": kinds.FLAT["fields"][:3]}
OLDER = {"key": "k", "time": 3, "count": 4}
CASES = (
    case("counts", COUNTS.raw_schema, written(COUNTS.raw_schema, COUNT)),
    case("target", COUNTS.shared_schema, written(COUNTS.shared_schema, TARGET)),
    case("trips of all types", TRIPS.raw_schema, written(TRIPS.raw_schema, TRIP)),
    case("trips nested", TRIPS.shared_schema, written(TRIPS.shared_schema, SHARED)),
    case("flat", kinds.FLAT, kinds.flat()),
    case("rich", kinds.RICH, kinds.rich()),
    case("an older writer", OLD, written(OLD, OLDER), kinds.FLAT),
)
WORDS = (
    b"\x00", b"\x01", b"\x02", b"\x7f", b"\x80\x00", b"\x80\x80\x00", b"\xff" * 9 + b"\x01",
    b"\xfe" + b"\xff" * 8 + b"\x01", b"\xff" * 9 + b"\x02", b"\x00\x00\x00\x00\x00\x00\xf0\x7f",
    b"\x00\x00\x00\x00\x00\x00\xf8\x7f", b"\xc3\xa4", b"\xed\xa0\x80",
)  # fmt: skip
mutate = None


def run(data: bytes) -> None:
    if len(data) < 2:
        return
    chosen = CASES[data[0] % len(CASES)]
    body = data[2:]
    if data[1] % 4 == 3:  # no frame of ours at all
        _count(chosen, [chosen_value(chosen), body, chosen_value(chosen)])
        return
    _agree(chosen, body, chosen.guard.check(body))
    if data[1] % 4:
        return
    good, values = chosen_value(chosen), [kinds.framed(body, chosen.id)]
    values += [kinds.framed(body + b"\0", chosen.id), kinds.framed(body[:-1], chosen.id)]
    clock = kinds.framed(kinds.long(5), CLOCK)
    _neighbours(chosen, [good, *values, clock, good, *values[::-1], good])


def chosen_value(chosen: Case) -> bytes:
    return kinds.framed(chosen.good, chosen.id)


def _agree(chosen: Case, body: bytes, reason: str | None) -> None:
    """The decoder alone against fastavro alone."""
    decoded = chosen.decoder.decode([kinds.framed(body, chosen.id)])
    require(len(decoded.rows) + len(decoded.poison) == 1, "a datum is neither good nor poison")
    if decoded.poison:
        said = decoded.poison[0].reason
        require(said in REASONS, "a reason that is none of the fixed words")
        require(reason is None or reason == said, "the guard and the decoder give different reasons")
        if chosen.flat or reason in SAFE:
            read, left = oracle(chosen, body)
            require(read is None or left > 0 or said in STRICTER, "fastavro reads what is called poison")
            whole = read is not None and left > 0
            require(whole == (said == "trailing-bytes") or said in STRICTER, "poison under a wrong word")
        return
    require(reason is None, "the decoder takes what the guard refuses")
    expected, left = oracle(chosen, body)
    require(expected is not None and left == 0, "fastavro does not read what is called good")
    found = plain(decoded.batch)[0]
    for field in decoded.batch.schema:
        if columns.arrow_type(_type(chosen.reader, field.name)) is not None:
            require(same(found[field.name], expected[field.name]), "the two decoders read different values")
    if chosen.reader is chosen.writer and columns.nested(chosen.writer):
        again = chosen.encoder.encode(decoded.batch)[0][5:]
        require(again == fast_bytes(chosen, expected), "encoded again, it is not what fastavro writes")
        require(same(oracle(chosen, again), (expected, 0)), "encoded again, it reads differently")


def _neighbours(chosen: Case, values: list[bytes]) -> None:
    """A batch is what its records are one by one."""
    decoded = _count(chosen, values)
    each = {value: chosen.decoder.decode([value]) for value in set(values)}
    alone = [each[value] for value in values]
    for row, one in enumerate(alone):
        require((row in decoded.rows) == bool(len(one.rows)), "good or poison depends on the neighbours")
    batches = [one.batch for one in alone if len(one.rows)]
    require(
        repr(plain(decoded.batch)) == repr([plain(batch)[0] for batch in batches]),
        "a value depends on the neighbours",
    )
    bad = {poison.row: poison.reason for poison in decoded.poison}
    for row, one in enumerate(alone):
        require(not one.poison or bad[row] == one.poison[0].reason, "a reason depends on the neighbours")
    require((4, 5) in decoded.clocks, "a clock record is gone")


def _count(chosen: Case, values: list[bytes]) -> Any:
    """Every value is in exactly one of rows, clocks and poison; the good first and last record are there."""
    decoded = chosen.decoder.decode(values)
    rows = [*decoded.rows.tolist(), *(row for row, _ in decoded.clocks), *(p.row for p in decoded.poison)]
    require(sorted(rows) == list(range(len(values))), "a value is lost or counted twice")
    require(bool(np.all(np.diff(decoded.rows) > 0)), "rows are not in log order")
    require(decoded.batch.num_rows == len(decoded.rows), "rows and columns disagree")
    require(decoded.batch.schema == chosen.decoder.schema, "other columns than the schema's")
    require({0, len(values) - 1} <= set(decoded.rows.tolist()), "a good neighbour is gone")
    decoded.batch.validate(full=True)
    return decoded


def oracle(chosen: Case, body: bytes) -> tuple[Any, int]:
    """fastavro's record, or None where it raises; and how many bytes it leaves over."""
    stream = io.BytesIO(body)
    writer, reader = chosen.parsed
    try:
        record = fastavro.schemaless_reader(
            stream, writer, reader if chosen.reader is not chosen.writer else None
        )
    except Exception:
        return None, 0
    return record, len(body) - stream.tell()


def fast_bytes(chosen: Case, record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, chosen.parsed[0], record)
    return out.getvalue()


def same(a: Any, b: Any) -> bool:
    """Equal, with NaN equal to NaN and -0.0 not equal to 0.0."""
    return repr(a) == repr(b)


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows, with times as integers: a datetime cannot hold all of them."""
    return pa.RecordBatch.from_arrays(  # type: ignore[no-any-return]
        [column.cast(integers(column.type)) for column in batch.columns], batch.schema.names
    ).to_pylist()


def integers(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.int64()
    if pa.types.is_list(type_):
        return pa.list_(integers(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, integers(field.type)) for field in type_])
    return type_


def _type(schema: Mapping[str, Any], name: str) -> Any:
    return next(field["type"] for field in schema["fields"] if field["name"] == name)


def seeds() -> Iterator[tuple[str, bytes]]:
    for at, chosen in enumerate(CASES):
        yield chosen.name, bytes([at, 0]) + chosen.good
    table = pq.read_table(EXAMPLES / COUNTS.source.path)
    for row in table.slice(0, 3).to_pylist():
        vehicles = row["Lane 1 Flow (Veh/5 Minutes)"]
        event = {**COUNT, "vehicles": int(vehicles), "observed_pct": int(row["% Observed"])}
        yield f"sample {vehicles}", b"\0\0" + written(COUNTS.raw_schema, event)
    for at, cases in ((4, kinds.IN_FLAT), (5, kinds.IN_RICH)):
        for word, (value, _) in cases.items():
            if value and len(value) < 200 and cases is not kinds.COMMON and word not in kinds.COMMON:
                yield f"{CASES[at].name} {word}", bytes([at, 0]) + value[5:]
    for depth in (40, 2000):
        yield f"rich {depth} deep", b"\5\1" + kinds.rich(tree=kinds.long(1) * depth + kinds.long(0))
    for word, (value, _) in kinds.COMMON.items():
        if value and word != "gzip bytes":  # which depend on zlib's version
            yield word, b"\x04\x03" + value
