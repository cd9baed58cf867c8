"""CSV and JSON lines: rows, places, what is broken, growing files; each test on both where both can."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.sources import Row, Source, SourceChangedError, Spec, open_source
from producers.sources import lines as text_lines
from schemas.errors import ConfigurationError

Write = Callable[[Path, Sequence[tuple[str, int]]], None]


def write_csv(path: Path, rows: Sequence[tuple[str, int]], mode: str = "w") -> None:
    with path.open(mode) as file:
        if mode == "w":
            file.write("name,other,count\n")
        file.writelines(f"{name},x,{count}\n" for name, count in rows)


def write_jsonl(path: Path, rows: Sequence[tuple[str, int]], mode: str = "w") -> None:
    with path.open(mode) as file:
        file.writelines(json.dumps({"name": n, "other": "x", "count": c}) + "\n" for n, c in rows)


KINDS = [pytest.param("csv", write_csv, id="csv"), pytest.param("jsonl", write_jsonl, id="jsonl")]
ROWS = [(f"n{i}", i) for i in range(1000)]


def opened(
    kind: str, path: Path, *, follow: bool = False, columns: tuple[str, ...] = ("count", "name")
) -> Source:
    return open_source(Spec(kind, path, columns, follow))


def drain(source: Source, limit: int = 100) -> list[Row]:
    rows: list[Row] = []
    while got := source.read(limit):
        rows += got
    return rows


def cells(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return [(str(row.cells[1]), int(str(row.cells[0]))) for row in rows if row.cells is not None]


@pytest.mark.parametrize(("kind", "write"), KINDS)
def test_only_the_wanted_columns_in_the_wanted_order(kind: str, write: Write, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write(path, ROWS)
    source = opened(kind, path)
    assert source.columns == ("count", "name")
    assert set(source.header) == {"name", "other", "count"}
    assert cells(drain(source)) == ROWS


@pytest.mark.parametrize(("kind", "write"), KINDS)
def test_resumes_behind_any_row(kind: str, write: Write, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write(path, ROWS)
    rng = random.Random(4)
    seen: list[tuple[str, int]] = []
    position = None
    while len(seen) < len(ROWS):
        source = opened(kind, path)
        if position is not None:
            source.resume(position)
        rows = source.read(rng.randint(1, 200))
        took = rows[: rng.randint(1, len(rows))]
        seen += cells(took)
        position = source.position(took[-1])
        source.close()
    assert seen == ROWS
    assert position is not None
    assert position.offset == path.stat().st_size


@pytest.mark.parametrize(("kind", "write"), KINDS)
@pytest.mark.parametrize("change", ["edited", "truncated", "replaced"])
def test_a_changed_file_is_noticed(kind: str, write: Write, change: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write(path, ROWS)
    source = opened(kind, path)
    position = source.position(source.read(500)[-1])
    source.close()
    if change == "edited":
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"n77", b"n78"))
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    else:
        write(path, [(f"m{i}", i) for i in range(1000)])
    again = opened(kind, path)
    with pytest.raises(SourceChangedError, match="has changed") as caught:
        again.resume(position)
    assert "--from-start" in caught.value.remedy
    again.close()


@pytest.mark.parametrize(("kind", "write"), KINDS)
def test_follows_what_is_appended_and_waits_for_a_torn_line(kind: str, write: Write, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write(path, ROWS[:10])
    source = opened(kind, path, follow=True)
    assert cells(drain(source)) == ROWS[:10]
    whole = path.read_bytes()
    write(path, ROWS[:11])
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole)
    for end in range(1, len(line)):
        with path.open("ab") as file:
            file.write(line[end - 1 : end])
        assert source.read(10) == []
    with path.open("ab") as file:
        file.write(line[-1:])
    assert cells(source.read(10)) == [ROWS[10]]
    assert source.notices == []
    source.close()


@pytest.mark.parametrize(("kind", "write"), KINDS)
def test_a_rotated_file_is_read_to_its_end_then_the_new_one(kind: str, write: Write, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write(path, ROWS[:10])
    source = opened(kind, path, follow=True)
    assert len(drain(source)) == 10
    whole = path.read_bytes()
    write(path, ROWS[:12])
    tail = path.read_bytes()[len(whole) :]
    path.write_bytes(whole)
    path.rename(tmp_path / "f.1")
    with (tmp_path / "f.1").open("ab") as file:
        file.write(tail)
    old = [*source.read(10), *source.read(10)]
    assert cells(old) == ROWS[10:12]
    write(path, ROWS[20:25])
    rest = [*source.read(10), *source.read(10)]
    assert cells(rest) == ROWS[20:25]
    assert source.generation == 1
    assert "was rotated" in source.notices[0]
    assert source.position(rest[-1]).generation == 1
    source.close()


@pytest.mark.parametrize(("kind", "write"), KINDS)
def test_truncation_while_following_is_said(kind: str, write: Write, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write(path, ROWS[:50])
    source = opened(kind, path, follow=True)
    assert len(drain(source)) == 50
    write(path, ROWS[60:63])
    rest = [*source.read(10), *source.read(10)]
    assert cells(rest) == ROWS[60:63]
    assert "was truncated" in source.notices[0]
    source.close()


@pytest.mark.parametrize(("kind", "write"), KINDS)
def test_a_rewrite_that_is_longer_than_before_is_seen_too(kind: str, write: Write, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write(path, ROWS[:5])
    source = opened(kind, path, follow=True)
    assert len(drain(source)) == 5
    assert source.read(10) == []  # remembers how the file ended
    write(path, ROWS[100:140])
    rest = [*source.read(100), *source.read(100)]
    assert cells(rest) == ROWS[100:140]
    source.close()


@pytest.mark.parametrize(("kind", "write"), KINDS)
def test_a_very_long_line_costs_itself_only(
    kind: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "LONGEST_LINE", 1000)
    monkeypatch.setattr(text_lines, "CHUNK", 300)
    path = tmp_path / "f"
    write(path, ROWS[:3])
    with path.open("ab") as file:
        file.write(b"y" * 5000 + b"\n")
    end = path.stat().st_size
    raw = path.read_bytes()
    write(path, ROWS[3:6])
    more = path.read_bytes()
    path.write_bytes(raw + (more[more.index(b"\n") + 1 :] if kind == "csv" else more))
    source = opened(kind, path)
    rows = drain(source)
    assert cells(rows) == ROWS[:6]
    broken = [row for row in rows if row.cells is None]
    assert [row.reason for row in broken] == ["line-too-long"]
    assert broken[0].raw == b"y" * 1000
    assert broken[0].offset == end
    source.close()


def test_csv_structure(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(
        b"\xef\xbb\xbfname,other,count\r\n"
        b"a,x,1\r\n"
        b"\r\n"
        b'"b, ""b""","two\nlines",2\r\n'
        b"short,3\r\n"
        b"long,x,3,4\r\n"
        b'"junk"k,x,5\r\n'
        b'"unclosed,x,5\r\n'
        b"\xff\xfe,x,6\r\n"
        b"c,x,7"
    )
    source = opened("csv", path)
    rows = drain(source, 2)
    assert cells(rows) == [("a", 1), ('b, "b"', 2), ("c", 7)]
    assert [(row.number, row.reason) for row in rows if row.cells is None] == [
        (6, "wrong-number-of-columns"),
        (7, "wrong-number-of-columns"),
        (8, "broken-quotes"),
        (9, "unclosed-quote"),
        (10, "not-utf-8"),
    ]
    assert next(row.raw for row in rows if row.cells is None) == b"short,3"
    assert source.position(rows[-1]).offset == path.stat().st_size
    assert source.notices == ["f.csv ends without a line feed: its last line was taken as a whole row."]
    source.close()


def test_a_stray_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    body = [f"n{i},x,{i}" for i in range(500)]
    body[7] = '"stray,x,7'
    path.write_text("name,other,count\n" + "\n".join(body) + "\n")
    source = opened("csv", path)
    rows = drain(source)
    assert [row.number for row in rows if row.cells is None] == [9]
    assert len(cells(rows)) == 499
    source.close()


def test_a_followed_csv_may_begin_empty_and_may_tear_a_quoted_record(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("")
    source = opened("csv", path, follow=True)
    assert source.read(5) == []
    path.write_text('name,other,count\n"a\n')
    assert source.read(5) == []
    with path.open("a") as file:
        file.write('b",x,1\n')
    rows = source.read(5)
    assert cells(rows) == [("a\nb", 1)]
    assert (rows[0].number, rows[0].lines) == (2, 3)
    source.close()


def test_resume_at_the_start_skips_the_header(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    write_csv(path, ROWS[:3])
    source = opened("csv", path)
    source.resume(source.position(Row(0, 0, 0, None, b"")))
    assert cells(drain(source)) == ROWS[:3]
    source.close()


def test_csv_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        opened("csv", tmp_path / "none.csv")
    with pytest.raises(ConfigurationError, match="is not a file"):
        opened("csv", tmp_path)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        opened("csv", tmp_path / "empty.csv")
    (tmp_path / "twice.csv").write_text("name,name,count\n")
    with pytest.raises(ConfigurationError, match="more than once"):
        opened("csv", tmp_path / "twice.csv")
    (tmp_path / "utf16.csv").write_text("name,count\n", encoding="utf-16")
    with pytest.raises(ConfigurationError, match="not a CSV header"):
        opened("csv", tmp_path / "utf16.csv")


def test_jsonl_structure(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    lines = [
        b'\xef\xbb\xbf{"name": "a", "count": 1}',
        b"",
        b"[1, 2]",
        b'{"name": "b", "count": 2',
        b"[" * 100_000,
        b'{"name": "\xff"}',
        b'{"count": ' + b"9" * 5000 + b"}",
        b'{"count": null, "more": {"name": 1}}',
    ]
    path.write_bytes(b"\n".join(lines))
    source = opened("jsonl", path)
    rows = drain(source)
    assert [row.reason for row in rows] == [
        "",
        "not-an-object",
        "not-json",
        "not-json",
        "not-utf-8",
        "",
        "",
    ]
    assert rows[0].cells == [1, "a"]
    assert rows[-2].cells == [math.inf, None]  # a long number is no reason to reject the line
    assert rows[-1].cells == [None, None]
    source.close()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    table=st.lists(st.tuples(TEXT, TEXT, st.integers(0, 99)), min_size=1, max_size=30),
    limit=st.integers(1, 7),
)
def test_what_a_csv_writer_writes_is_read(
    table: list[tuple[str, str, int]], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "f.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "other", "count"])
        writer.writerows(table)
    source = opened("csv", path)
    assert cells(drain(source, limit)) == [(name, count) for name, _, count in table]
    source.close()
