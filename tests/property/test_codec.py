"""Codec invariants: what is written is read, whatever is read agrees with the oracle, nothing ever raises."""

from __future__ import annotations

import io
import math
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import columns
from schemas.codec import Decoder, Encoder
from schemas.guard import Guard
from tests.unit import records_of_all_kinds as kinds

LONG = st.integers(-(1 << 63), (1 << 63) - 1)
RECORD = st.fixed_dictionaries(
    {
        "key": st.text(max_size=20),
        "time": LONG,
        "count": st.none() | LONG,
        "level": st.none() | st.floats(),
        "note": st.none() | st.text(max_size=20),
    }
)
FLAT = fastavro.parse_schema(columns.plain(kinds.FLAT))
RICH = fastavro.parse_schema(kinds.RICH)
DECODER = Decoder({kinds.FLAT_ID: kinds.FLAT})
RICH_DECODER = Decoder({kinds.RICH_ID: kinds.RICH})


def oracle(body: bytes, schema: Any) -> Any:
    """fastavro's answer, or None where it raises or leaves bytes over."""
    stream = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, schema, None)
    except Exception:
        return None
    return record if stream.tell() == len(body) else None


def written(record: dict[str, Any], schema: Any = FLAT) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def same(a: Any, b: Any) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    times = batch.column("time").cast(pa.int64())
    return [*batch.set_column(batch.schema.names.index("time"), "time", times).to_pylist()]


@given(st.lists(RECORD, max_size=30))
@settings(max_examples=60, deadline=None)
def test_round_trip_and_oracle(records: list[dict[str, Any]]) -> None:
    schema = DECODER.schema
    arrays = [
        pa.array([r[f.name] for r in records], pa.int64() if pa.types.is_timestamp(f.type) else f.type).cast(
            f.type
        )
        for f in schema
    ]
    values = Encoder(kinds.FLAT_ID, kinds.FLAT).encode(pa.RecordBatch.from_arrays(arrays, schema=schema))
    assert values == [kinds.framed(written(record), kinds.FLAT_ID) for record in records]
    decoded = DECODER.decode(values)
    assert decoded.poison == []
    for found, record in zip(rows_of(decoded.batch), records, strict=True):
        assert all(same(found[name], record[name]) for name in record)


@given(st.lists(st.binary(max_size=40) | RECORD.map(written), max_size=12), st.data())
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_among_good_records(bodies: list[bytes], data: st.DataObject) -> None:
    mutated = []
    for body in bodies:
        if body and data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(body) - 1))
            body = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
        mutated.append(body)
    decoded = DECODER.decode([kinds.framed(body, kinds.FLAT_ID) for body in mutated])
    bad = {poison.row for poison in decoded.poison}
    assert sorted([*decoded.rows.tolist(), *bad]) == list(range(len(mutated)))
    found = dict(zip(decoded.rows.tolist(), rows_of(decoded.batch), strict=True))
    for row, body in enumerate(mutated):
        expected = oracle(body, FLAT)
        if row not in bad:
            assert expected is not None
            assert all(same(found[row][name], expected[name]) for name in expected)
        elif expected is not None:  # the guard is stricter than the oracle in two things only
            reason = Guard(kinds.FLAT).check(body)
            assert reason in ("union-index-out-of-range", "varint-overflow")


@given(st.binary(max_size=60), st.integers(0, 80), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_the_guard_lets_through_only_what_fastavro_reads(noise: bytes, at: int, byte: int) -> None:
    good = kinds.rich()
    for body in (noise, good[: at % len(good)] + bytes([byte]) + good[at % len(good) + 1 :]):
        if Guard(kinds.RICH).check(body) is None:
            assert oracle(body, RICH) is not None
        decoded = RICH_DECODER.decode([kinds.framed(body, kinds.RICH_ID)])
        assert len(decoded.rows) + len(decoded.poison) == 1


@given(st.lists(st.none() | st.binary(max_size=12), max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_values_at_all(values: list[bytes | None]) -> None:
    decoded = DECODER.decode(values)
    assert np.array_equal(sorted([*decoded.rows, *(p.row for p in decoded.poison)]), np.arange(len(values)))


@given(st.lists(RECORD, min_size=1, max_size=40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_split_of_a_log_decodes_to_the_same(records: list[dict[str, Any]], size: int) -> None:
    values = [
        kinds.framed(written(record) + b"\x00" * (i % 7 == 3), kinds.FLAT_ID)
        for i, record in enumerate(records)
    ]
    whole = DECODER.decode(values)
    parts = [DECODER.decode(values[at : at + size]) for at in range(0, len(values), size)]
    encode = Encoder(kinds.FLAT_ID, kinds.FLAT).encode  # bytes, since a NaN is not equal to itself
    assert [value for part in parts for value in encode(part.batch)] == encode(whole.batch)
    assert [p.reason for part in parts for p in part.poison] == [p.reason for p in whole.poison]
