"""Rows out of a file, each with the place where it ends, so that publishing can stop and go on anywhere.

One small protocol for every kind. A source reads only the columns it was asked for; it knows nothing of
types, Kafka or contracts. A row whose structure is broken is a row too: it has a reason instead of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from schemas.errors import ConfigurationError, FatalError


class Row(NamedTuple):
    """One row. `number`: its first line (Parquet: row), from 1; `lines`, `offset`: where the next one begins.

    `cells` follow `Source.columns`; None when the structure is broken, and `reason` then says why in a short
    kebab-case word. `raw` holds the original bytes without the line's end (Parquet: empty, see `Source.raw`).
    """

    number: int
    lines: int
    offset: int
    cells: Sequence[object] | None
    raw: bytes
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was read. `offset`: bytes (Parquet: rows); `lines`: lines (rows) before it.

    `fingerprint`: SHA-256, in hex, of every byte before the offset (Parquet: of the whole file), so that any
    change in what was read already is noticed. `generation` counts the files that stood under this name:
    rotations, truncations.
    """

    lines: int
    offset: int
    fingerprint: str
    generation: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Position:
        """Raises KeyError or ValueError where it is not what `as_json` wrote."""
        return cls(int(data["lines"]), int(data["offset"]), str(data["fingerprint"]), int(data["generation"]))


class SourceChangedError(FatalError):
    """The file is not the one whose beginning was published, or shorter."""


class Source(Protocol):
    """Rows of one file. Not safe for threads; `close` may be called twice, and may never be called.

    `columns` are the asked ones that the file has; `header` is every column of the file (JSONL: the keys of
    its first lines; empty when there is no line yet). `size` is the file's extent now, in the unit of
    `Position.offset`.
    """

    kind: str
    columns: tuple[str, ...]
    header: tuple[str, ...]
    notices: list[str]

    @property
    def generation(self) -> int:
        """How many files of this name came before; see Position."""

    @property
    def size(self) -> int: ...

    def resume(self, position: Position) -> None:
        """Go on behind `position`; once, before `read`. Raises SourceChangedError where the file differs."""

    def read(self, limit: int) -> list[Row]:
        """The next rows, at most `limit`. Empty: the end, or, when following, nothing new for now.

        When following, a rotated or truncated file is only left in a call after one that returned nothing:
        commit what was read before asking again. A notice then says what happened.
        """

    def position(self, row: Row) -> Position:
        """The place right behind `row`. Rows may be left out, but must come in the order they were read."""

    def raw(self, row: Row) -> bytes:
        """What a dead letter holds: the row's original bytes (Parquet: the asked cells as JSON)."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Spec:
    """What to open: `kind` is csv, jsonl or parquet; `columns` are the wanted ones, nothing else is read."""

    kind: str
    path: Path
    columns: tuple[str, ...]
    follow: bool = False
    delimiter: str = ","
    encoding: str = "utf-8"


def open_source(spec: Spec) -> Source:
    """The source of this kind. Raises ConfigurationError where the file is missing or is not of this kind."""
    if not spec.path.exists():
        raise ConfigurationError(
            f"The source file {spec.path} does not exist.",
            "Set source.path in the contract (relative to the contract's folder), or name one with --source.",
        )
    if not spec.path.is_file():
        raise ConfigurationError(f"The source {spec.path} is not a file.", "Name one file with --source.")
    if spec.kind == "csv":
        from producers.sources.csv import CsvSource

        return CsvSource(spec)
    if spec.kind == "jsonl":
        from producers.sources.jsonl import JsonlSource

        return JsonlSource(spec)
    if spec.kind == "parquet":
        from producers.sources.parquet import ParquetSource  # pyarrow: only where a Parquet file is read

        return ParquetSource(spec)
    raise ConfigurationError(f"No source of kind {spec.kind!r}.", "Use csv, jsonl or parquet.")
