"""What a source looks like: names and types of its columns, guessed. Bounds never are: fitted bounds leak."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from producers.sources import Spec, open_source
from schemas.errors import ConfigurationError

SAMPLE = 5_000
FORMATS = (
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%Y/%m/%d %H:%M",
)
GRIDS_S = {1: "1s", 60: "1min", 300: "5min", 900: "15min", 1800: "30min", 3600: "1h", 86_400: "1d"}


@dataclass(frozen=True, slots=True)
class Column:
    """`type`: string, int, float, bool or timestamp; `format` and `zoned` belong to timestamps."""

    title: str
    name: str
    type: str
    distinct: int
    format: str = ""
    zoned: bool = False
    grid: str = ""


def kind_of(path: Path) -> str:
    """csv, jsonl or parquet, by the file's suffix."""
    kinds = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise ConfigurationError(
            f"What kind of file {path.name} is cannot be told from its name.",
            "A source is a .csv, .jsonl or .parquet file; name its kind with --kind.",
        )
    return kind


def look(path: Path, kind: str, delimiter: str = ",") -> list[Column]:
    """The columns of the first rows. Raises ConfigurationError where the file cannot be read."""
    first = open_source(Spec(kind, path, (), delimiter=delimiter))
    try:
        titles = first.header or first.columns
    finally:
        first.close()
    if not titles:
        raise ConfigurationError(
            f"{path.name} has no columns.", "A source has a header line or named columns."
        )
    source = open_source(Spec(kind, path, tuple(titles), delimiter=delimiter))
    cells: list[Sequence[object]] = []
    try:
        while len(cells) < SAMPLE and (rows := source.read(1_000)):
            cells += [row.cells for row in rows if row.cells is not None]
        order = source.columns
    finally:
        source.close()
    names: list[str] = []
    for title in order:
        names.append(field_name(title, names))
    return [
        _column(t, n, [row[i] for row in cells]) for i, (t, n) in enumerate(zip(order, names, strict=True))
    ]


def field_name(title: str, taken: list[str]) -> str:
    """A field name made of a column's title: `% Observed` becomes `observed`."""
    word = re.sub(r"[^a-z0-9]+", "_", re.sub(r"\(.*?\)", "", title).lower()).strip("_") or "field"
    word = (word if word[0].isalpha() else f"c_{word}")[:60]
    return word if word not in taken else f"{word}_{len(taken) + 1}"


def _column(title: str, name: str, cells: list[object]) -> Column:
    given = [cell for cell in cells if cell is not None and str(cell).strip()]
    words = [str(cell).strip() for cell in given]
    distinct = len(set(words))
    if words and all(isinstance(cell, bool) for cell in given):
        return Column(title, name, "bool", distinct)
    format_ = _time_format(words)
    if format_:
        times = [_parse(word, format_) for word in words]
        zoned = format_ == "iso8601" and all(time.tzinfo is not None for time in times)
        return Column(title, name, "timestamp", distinct, format_, zoned, _grid(times))
    if words and all(re.fullmatch(r"[-+]?\d{1,18}", word) for word in words):
        return Column(title, name, "int", distinct)
    if words and all(_is_float(word) for word in words):
        return Column(title, name, "float", distinct)
    return Column(title, name, "string", distinct)


def _time_format(words: list[str]) -> str:
    """The format that reads every word; of two that do, the one under which time runs straighter."""
    if not words or all(_is_float(word) for word in words):
        return ""
    fitting = [(_span(words, format_), format_) for format_ in ("iso8601", *FORMATS)]
    return min(((span, format_) for span, format_ in fitting if span is not None), default=(0.0, ""))[1]


def _span(words: list[str], format_: str) -> float | None:
    """Seconds travelled back and forth over all words, None where one cannot be read."""
    try:
        times = [_parse(word, format_).timestamp() for word in words]
    except ValueError:
        return None
    return sum(abs(b - a) for a, b in pairwise(times))


def _parse(word: str, format_: str) -> datetime:
    return datetime.fromisoformat(word) if format_ == "iso8601" else datetime.strptime(word, format_)


def _grid(times: list[datetime]) -> str:
    """The coarsest usual grid on which every time lies."""
    seconds = [time.hour * 3600 + time.minute * 60 + time.second for time in times]
    return next(
        (word for step, word in sorted(GRIDS_S.items(), reverse=True) if not any(s % step for s in seconds)),
        "1s",
    )


def _is_float(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
