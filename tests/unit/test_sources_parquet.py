"""Parquet: only the wanted columns, resumed at any row, noticed when changed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producers.sources import Row, SourceChangedError, Spec, open_source
from producers.sources.parquet import ParquetSource
from schemas.errors import ConfigurationError

SAMPLE = Path(__file__).parents[2] / "producers" / "samples" / "pems.parquet"


def table(rows: int = 1000) -> pa.Table:
    return pa.table(
        {
            "name": [f"n{i}" for i in range(rows)],
            "secret": ["s"] * rows,
            "count": list(range(rows)),
        }
    )


def opened(path: Path, *columns: str) -> ParquetSource:
    source = open_source(Spec("parquet", path, columns or ("count", "name")))
    assert isinstance(source, ParquetSource)
    return source


def drain(source: ParquetSource, limit: int = 64) -> list[Row]:
    rows: list[Row] = []
    while got := source.read(limit):
        rows += got
    return rows


def test_rows_of_the_wanted_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(table(), path, row_group_size=300)
    source = opened(path)
    rows = drain(source)
    assert [row.cells for row in rows] == [(i, f"n{i}") for i in range(1000)]
    assert [row.number for row in rows] == list(range(1, 1001))
    assert json.loads(source.raw(rows[3])) == {"count": 3, "name": "n3"}
    source.close()


@pytest.mark.parametrize("at", [1, 299, 300, 301, 600, 999, 1000])
def test_resumes_behind_any_row(tmp_path: Path, at: int) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(table(), path, row_group_size=300)
    source = opened(path)
    position = source.position(drain(source)[at - 1])
    again = opened(path)
    again.resume(position)
    assert [row.number for row in drain(again)] == list(range(at + 1, 1001))


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(table(), path)
    source = opened(path)
    position = source.position(source.read(5)[-1])
    pq.write_table(table(1001), path)
    with pytest.raises(SourceChangedError):
        opened(path).resume(position)


def test_cannot_be_followed_and_must_be_parquet(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(ConfigurationError, match="not a readable Parquet"):
        opened(path)
    with pytest.raises(ConfigurationError, match="cannot be followed"):
        open_source(Spec("parquet", path, ("a",), follow=True))


def test_times_and_odd_types(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    moment = datetime(2016, 1, 4, 8, 5, 0, 250_000)
    pq.write_table(
        pa.table(
            {
                "naive": pa.array([moment, None], pa.timestamp("ns")),
                "aware": pa.array([moment, None], pa.timestamp("ms", tz="America/Los_Angeles")),
                "far": pa.array([2**62, -(2**62)], pa.int64()).cast(pa.timestamp("ms")),
                "day": pa.array([date(2016, 1, 4), None]),
                "kind": pa.array(["a", "b"]).dictionary_encode(),
                "list": pa.array([[1], None]),
            }
        ),
        path,
    )
    source = opened(path, "naive", "aware", "far", "day", "kind", "list")
    first, second = drain(source)
    assert first.cells == (moment, moment.replace(tzinfo=UTC), "out of range", date(2016, 1, 4), "a", [1])
    assert second.cells == (None, None, "out of range", None, "b", None)


def test_the_shipped_sample_is_what_provenance_says() -> None:
    source = opened(SAMPLE, "5 Minutes", "Lane 1 Flow (Veh/5 Minutes)")
    rows = drain(source)
    assert len(rows) == 12_096
    assert rows[0].cells == ("04/01/2016 0:00", 12)
    assert not source.header[0].startswith("\ufeff")
    provenance = SAMPLE.with_name("PROVENANCE.md").read_text()
    assert source.position(rows[0]).fingerprint in provenance
    assert SAMPLE.stat().st_size < 100_000
