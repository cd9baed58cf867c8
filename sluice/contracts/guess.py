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
MOST = 0.9  # of the cells that are not empty: fewer make no type
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
    """`type`: string, int, float, bool or timestamp; `format` and `zoned` belong to timestamps.

    A timestamp is what most cells are, the other types are what all are; `numeric`: int or float, where most
    cells are numbers. Of `given` cells that are not empty `odd` are no times (where the column is a timestamp)
    or no numbers, the first in line `odd_line`; `off_grid` times lie beside the grid.
    """

    title: str
    name: str
    type: str
    distinct: int
    format: str = ""
    zoned: bool = False
    grid: str = ""
    numeric: str = ""
    given: int = 0
    odd: int = 0
    odd_line: int = 0
    off_grid: int = 0


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
    numbers: list[int] = []
    try:
        while len(cells) < SAMPLE and (rows := source.read(1_000)):
            cells += [row.cells for row in rows if row.cells is not None]
            numbers += [row.number for row in rows if row.cells is not None]
        order = source.columns
    finally:
        source.close()
    names: list[str] = []
    for title in order:
        names.append(field_name(title, names))
    return [
        _column(t, n, [row[i] for row in cells], numbers)
        for i, (t, n) in enumerate(zip(order, names, strict=True))
    ]


def field_name(title: str, taken: list[str]) -> str:
    """A field name made of a column's title: `% Observed` becomes `observed`."""
    word = re.sub(r"[^a-z0-9]+", "_", re.sub(r"\(.*?\)", "", title).lower()).strip("_") or "field"
    word = (word if word[0].isalpha() else f"c_{word}")[:60]
    return word if word not in taken else f"{word}_{len(taken) + 1}"


def _column(title: str, name: str, cells: list[object], lines: list[int]) -> Column:
    both = zip(cells, lines, strict=True)
    given = [(cell, line) for cell, line in both if cell is not None and str(cell).strip()]
    words = [str(cell).strip() for cell, _ in given]
    distinct = len(set(words))
    if words and all(isinstance(cell, bool) for cell, _ in given):
        return Column(title, name, "bool", distinct, given=len(words))
    format_ = _time_format(words)
    if format_:
        times = [_read(word, format_) for word in words]
        aware = sum(time is not None and time.tzinfo is not None for time in times)
        zoned = format_ == "iso8601" and aware >= MOST * len(words)
        fits = [time is not None and (not zoned or time.tzinfo is not None) for time in times]
        good = [time for time, fit in zip(times, fits, strict=True) if fit and time is not None]
        grid, off_grid = _grid(good)
        return Column(
            title, name, "timestamp", distinct, format_, zoned, grid, given=len(words), off_grid=off_grid,
            odd=fits.count(False), odd_line=_first(fits, given),
        )  # fmt: skip
    fits = [_is_float(word) for word in words]
    whole = [re.fullmatch(r"[-+]?\d{1,18}", word) is not None for word in words]
    numeric = ""
    if any(fits) and sum(fits) >= MOST * len(words):
        numeric = "int" if whole == fits else "float"
    type_ = numeric if numeric and all(fits) else "string"
    return Column(
        title, name, type_, distinct, numeric=numeric, given=len(words), odd=fits.count(False),
        odd_line=_first(fits, given),
    )  # fmt: skip


def _first(fits: list[bool], given: list[tuple[object, int]]) -> int:
    """The line of the first cell that does not fit, 0 where all do."""
    return next((line for fit, (_, line) in zip(fits, given, strict=True) if not fit), 0)


def _time_format(words: list[str]) -> str:
    """The format that reads most words, and no fewer than nearly all; of two, the one under which time runs
    straighter."""
    if not words or sum(map(_is_float, words)) >= MOST * len(words):
        return ""
    fitting = []
    for format_ in ("iso8601", *FORMATS):
        if times := _times(words, format_):
            fitting.append((-len(times), _span(times), format_))
    return min(fitting, default=(0, 0.0, ""))[2]


def _times(words: list[str], format_: str) -> list[datetime]:
    """Those that can be read, in order; empty as soon as too many cannot."""
    times: list[datetime] = []
    room = len(words) - MOST * len(words)
    for number, word in enumerate(words, 1):
        if (time := _read(word, format_)) is not None:
            times.append(time)
        elif number - len(times) > room:
            return []
    return times


def _span(times: list[datetime]) -> float:
    """Seconds travelled back and forth over all times."""
    return sum(abs(b.timestamp() - a.timestamp()) for a, b in pairwise(times))


def _read(word: str, format_: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(word) if format_ == "iso8601" else datetime.strptime(word, format_)
        time.timestamp()
    except (ValueError, OverflowError):
        return None
    return time


def _grid(times: list[datetime]) -> tuple[str, int]:
    """The coarsest usual grid on which most times lie, and how many lie beside it."""
    seconds = [time.hour * 3600 + time.minute * 60 + time.second for time in times]
    for step, word in sorted(GRIDS_S.items(), reverse=True):
        beside = sum(s % step != 0 for s in seconds)
        if len(times) - beside >= MOST * len(times):
            return word, beside
    return "1s", 0


def _is_float(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
