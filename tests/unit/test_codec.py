"""Values to columns and back: every good record arrives, every bad one is named, nothing raises."""

from __future__ import annotations

import datetime
import io
import subprocess
import sys
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from schemas import columns
from schemas.codec import CLOCK, Decoder, Encoder
from schemas.columnar import Columnar, trusted
from schemas.contract import load
from schemas.writer import RowWriter
from tests.unit import records_of_all_kinds as kinds

SCHEMAS = {
    "flat": (kinds.FLAT, kinds.FLAT_ID, kinds.IN_FLAT),
    "rich": (kinds.RICH, kinds.RICH_ID, kinds.IN_RICH),
}
GOOD = {"flat": kinds.framed(kinds.flat(), kinds.FLAT_ID), "rich": kinds.framed(kinds.rich(), kinds.RICH_ID)}


def clock(ms: int) -> bytes:
    return kinds.framed(kinds.long(ms), kinds.CLOCK_ID)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_kind_of_poison_is_found_among_good_records(schema: str) -> None:
    avro, id_, cases = SCHEMAS[schema]
    assert len(cases) >= 18
    decoder = Decoder({id_: avro}, kinds.CLOCK_ID)
    for kind, (value, reason) in cases.items():
        decoded = decoder.decode([GOOD[schema], value, clock(5), GOOD[schema]])
        assert [(p.row, p.reason) for p in decoded.poison] == [(1, reason)], kind
        assert decoded.rows.tolist() == [0, 3], kind
        assert decoded.clocks == [(2, 5)]
        assert decoded.batch.num_rows == 2
        assert decoded.batch.slice(0, 1).equals(decoded.batch.slice(1, 1))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_one_percent_of_poison_of_every_kind(schema: str) -> None:
    avro, id_, cases = SCHEMAS[schema]
    values: list[bytes | None] = [GOOD[schema]] * 10_000
    rows = np.random.default_rng(4).choice(len(values), 100, replace=False)
    for at, row in enumerate(rows):
        values[row] = list(cases.values())[at % len(cases)][0]
    decoded = Decoder({id_: avro}).decode(values)
    assert [p.row for p in decoded.poison] == sorted(rows.tolist())
    assert sorted([*decoded.rows.tolist(), *rows.tolist()]) == list(range(len(values)))


def test_nothing_but_poison() -> None:
    decoder = Decoder({kinds.FLAT_ID: kinds.FLAT})
    values = [value for value, _ in kinds.IN_FLAT.values()] * 20
    decoded = decoder.decode(values)
    assert len(decoded.poison) == len(values)
    assert decoded.batch.num_rows == 0
    assert decoded.batch.schema == decoder.schema
    assert decoder.decode([]).batch.num_rows == 0


def test_a_clock_record_that_is_none() -> None:
    decoder = Decoder({kinds.FLAT_ID: kinds.FLAT}, kinds.CLOCK_ID)
    decoded = decoder.decode([kinds.framed(b"", kinds.CLOCK_ID), clock(7)])
    assert decoded.clocks == [(1, 7)]
    assert [p.reason for p in decoded.poison] == ["truncated"]
    assert CLOCK["name"] == "Clock"


def test_an_overlong_number_is_still_a_number() -> None:
    body = kinds.text("d") + b"\x80\x80\x00" + kinds.long(0) * 3
    decoded = Decoder({kinds.FLAT_ID: kinds.FLAT}).decode([kinds.framed(body, kinds.FLAT_ID), GOOD["flat"]])
    assert decoded.poison == []
    assert decoded.rows.tolist() == [0, 1]
    assert decoded.batch.column("key").to_pylist() == ["d", "d-1"]


def test_times_that_no_calendar_has_are_decoded() -> None:
    value = kinds.framed(kinds.flat(time=(1 << 63) - 1), kinds.FLAT_ID)
    for values in ([value], [value, value + b"\x00"]):
        decoded = Decoder({kinds.FLAT_ID: kinds.FLAT}).decode(values)
        assert decoded.batch.column("time").cast(pa.int64()).to_pylist() == [(1 << 63) - 1]


def test_older_writers_resolve_to_the_current_columns() -> None:
    old = {**kinds.FLAT, "fields": kinds.FLAT["fields"][:3]}
    new, older = kinds.flat(key="new"), kinds.text("old") + kinds.long(5) + kinds.long(1) + kinds.long(3)
    decoder = Decoder({9: old, kinds.FLAT_ID: kinds.FLAT})
    decoded = decoder.decode(
        [
            kinds.framed(older, 9),
            kinds.framed(new, kinds.FLAT_ID),
            kinds.framed(older + b"x", 9),
            kinds.framed(older, 9),
        ]
    )
    assert decoded.batch.column("key").to_pylist() == ["old", "new", "old"]
    assert decoded.batch.column("note").to_pylist() == [None, "ok", None]
    assert decoded.rows.tolist() == [0, 1, 3]
    assert [(p.row, p.reason) for p in decoded.poison] == [(2, "trailing-bytes")]


@pytest.mark.parametrize("type_", ["bytes", {"type": "fixed", "name": "F", "size": 4}])
def test_schemas_that_pyruhvro_panics_on_go_another_way(type_: Any) -> None:
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "key", "type": "string"}, {"name": "b", "type": type_}],
    }
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"key": "k", "b": b"abcd"})
    decoded = Decoder({1: schema}).decode(
        [kinds.framed(out.getvalue(), 1), kinds.framed(out.getvalue()[:-1], 1)]
    )
    assert decoded.rows.tolist() == [0]
    assert len(decoded.poison) == 1
    assert not columns.flat(schema)


def test_bytes_are_written_row_by_row() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "b", "type": "bytes"}]}
    encoder = Encoder(1, schema)
    assert isinstance(encoder._writer, RowWriter)
    values = encoder.encode(pa.record_batch({"b": pa.array([b"ab"], pa.binary())}))
    assert values == [kinds.framed(b"\x04ab", 1)]


def test_contract_schemas_are_trusted_to_the_columnar_library() -> None:
    counts = load("traffic.detector-counts")
    assert columns.flat(counts.raw_schema)
    assert trusted(counts.raw_schema)
    assert isinstance(Encoder(1, counts.shared_schema)._writer, Columnar)
    assert Decoder({1: counts.raw_schema})._columnar is not None


def test_what_is_encoded_is_what_fastavro_reads() -> None:
    counts = load("traffic.detector-counts")
    when = datetime.datetime(2016, 1, 4, 8, tzinfo=datetime.UTC)
    batch = pa.record_batch(
        {
            "interval_start": pa.array([when.replace(tzinfo=None)], pa.timestamp("ms")),
            "detector": pa.array(["d-1"]),
            "observed_pct": pa.array([None], pa.int64()),
            "vehicles": pa.array([12], pa.int32()),
        }
    )
    (value,) = Encoder(7, counts.raw_schema).encode(batch)
    assert value[:5] == b"\x00\x00\x00\x00\x07"
    record = fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(counts.raw_schema), None)
    assert record == {"detector": "d-1", "interval_start": when, "vehicles": 12, "observed_pct": None}


def test_a_missing_key_is_an_error_of_the_program() -> None:
    encoder = Encoder(1, kinds.FLAT)
    columns_ = {field.name: pa.nulls(1, field.type) for field in encoder.schema}
    with pytest.raises(ValueError, match="column key holds nulls"):
        encoder.encode(pa.record_batch(columns_))
    assert encoder.encode(pa.record_batch({n: c.slice(0, 0) for n, c in columns_.items()})) == []


MEMORY = """
import resource, sys
from schemas.codec import Decoder
from tests.unit import records_of_all_kinds as kinds
decoders = {"flat": Decoder({kinds.FLAT_ID: kinds.FLAT}), "rich": Decoder({kinds.RICH_ID: kinds.RICH})}
for decoder, good, id_ in (("flat", kinds.flat(), kinds.FLAT_ID), ("rich", kinds.rich(), kinds.RICH_ID)):
    decoders[decoder].decode([kinds.framed(good, id_)] * 2000 + [b""])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for decoder, good, id_, cases in (
    ("flat", kinds.flat(), kinds.FLAT_ID, kinds.IN_FLAT), ("rich", kinds.rich(), kinds.RICH_ID, kinds.IN_RICH)
):
    for value, _ in cases.values():
        found = decoders[decoder].decode([kinds.framed(good, id_)] * 990 + [value] * 10)
        assert len(found.poison) == 10 and len(found.rows) == 990
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_no_kind_of_poison_takes_memory_or_the_process() -> None:
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "panicked" not in run.stderr
    assert int(run.stdout) <= 50 * 1024  # KiB, the bar of the issue; found: less than 5 MiB
