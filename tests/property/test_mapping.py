"""Mapping invariants: row by row and batch by batch are the same, and every operator agrees with plain
Python."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import EXAMPLES, parse
from schemas.mapping import Mapping, iso

COUNTS = (EXAMPLES / "traffic.detector-counts.yaml").read_text(encoding="utf-8")
START, END = COUNTS.index("  map:"), COUNTS.index("terms:")
MAP = """  map:
    id: "urn:{detector}:{interval_start}:{vehicles}"
    dateObserved: interval_start
    intensity: vehicles
    half: {from: vehicles, scale: 0.5, offset: -1}
    side: {from: detector, table: {a: north, b: south}, else: none}
    fixed: {constant: 7}
    place: {nest: {type: {constant: Point}, name: detector, at: interval_start}}
    flows: {list: {nest: {v: vehicles}}}
"""
MAPPING = Mapping(parse(COUNTS[:START] + MAP + COUNTS[END:], EXAMPLES))
ROW = st.fixed_dictionaries(
    {
        "detector": st.sampled_from(["a", "b", "c"]) | st.text(max_size=8),
        "interval_start": st.integers(-(1 << 62), 1 << 62) | st.integers(0, 1 << 41),
        "vehicles": st.integers(0, 256),
    }
)


def batch_of(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    types = {"detector": pa.string(), "interval_start": pa.int64(), "vehicles": pa.int64()}
    return pa.record_batch(
        {name: pa.array([row[name] for row in rows], type_) for name, type_ in types.items()}
    )


def in_python(row: dict[str, Any]) -> dict[str, Any]:
    when = iso(row["interval_start"])
    return {
        "id": f"urn:{row['detector']}:{when}:{row['vehicles']}",
        "type": "TrafficFlowObserved",
        "dateObserved": when,
        "intensity": row["vehicles"],
        "half": row["vehicles"] * 0.5 - 1,
        "side": {"a": "north", "b": "south"}.get(row["detector"], "none"),
        "fixed": 7,
        "place": {"type": "Point", "name": row["detector"], "at": when},
        "flows": [{"v": row["vehicles"]}],
    }


@given(st.lists(ROW, max_size=20), st.integers(1, 20))
@settings(max_examples=80, deadline=None)
def test_columns_agree_with_python_in_any_split(rows: list[dict[str, Any]], size: int) -> None:
    whole = MAPPING.apply(batch_of(rows))
    parts = [MAPPING.apply(batch_of(rows[at : at + size])) for at in range(0, len(rows), size)]
    assert [row for part in parts for row in plain(part)] == plain(whole)
    assert [MAPPING.json_view(record) for record in plain(whole)] == [in_python(row) for row in rows]


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with times as integers: a datetime cannot hold all of them."""
    point = pa.struct([("type", pa.string()), ("name", pa.string()), ("at", pa.int64())])
    columns = {
        "dateObserved": batch.column("dateObserved").cast(pa.int64()),
        "place": batch.column("place").cast(point),
    }
    names = batch.schema.names
    return pa.RecordBatch.from_arrays(  # type: ignore[no-any-return]
        [columns.get(name, batch.column(name)) for name in names], names
    ).to_pylist()
