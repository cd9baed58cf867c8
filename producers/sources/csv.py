"""CSV with a header, after RFC 4180: quoted cells may hold delimiters, quotes and line feeds."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from producers.sources import Position, Row, Spec
from producers.sources.lines import Line, Lines
from schemas.errors import ConfigurationError

# A stray opening quote would swallow the rest of the file: after so many lines it costs its own line only.
LONGEST_RECORD = 100
_BOM = b"\xef\xbb\xbf"


class CsvSource:
    """Rows of a CSV file. Empty lines are skipped; a row with too many or too few cells is broken.

    When following, a record with an open quote waits for its end, for at most LONGEST_RECORD lines.
    """

    kind = "csv"

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._lines = Lines(spec.path, follow=spec.follow)
        self._waiting: list[Line] = []
        self._indices: list[int] = []
        self.columns: tuple[str, ...] = ()
        self.header: tuple[str, ...] = ()
        self.notices = self._lines.notices
        self._read_header()

    @property
    def generation(self) -> int:
        return self._lines.generation

    @property
    def size(self) -> int:
        return self._lines.size

    def resume(self, position: Position) -> None:
        self._waiting = []
        self._lines.resume(position)
        if position.offset == 0:  # the start of a file: its header comes first
            self.header = ()

    def position(self, row: Row) -> Position:
        return self._lines.position(row)

    def raw(self, row: Row) -> bytes:
        return row.raw

    def close(self) -> None:
        self._lines.close()

    def read(self, limit: int) -> list[Row]:
        if not self.header and not self._read_header():
            return []
        lines = self._waiting or self._lines.take(limit)
        if self._lines.renewed:
            self._waiting, self.header = lines, ()
            return self.read(limit)
        self._waiting = []
        rows: list[Row] = []
        at = 0
        width, delimiter, indices = len(self.header), self._spec.delimiter, self._indices
        while at < len(lines):
            number, offset, raw, reason = lines[at]
            if reason or b'"' in raw:
                used, row = self._quoted(lines, at)
                if row is None:
                    self._waiting = lines[at:]
                    break
                rows.append(row)
                at += used
                continue
            at += 1
            if not raw.strip():
                continue
            try:
                cells = raw.decode(self._spec.encoding).split(delimiter)
            except UnicodeDecodeError:
                rows.append(Row(number, number, offset, None, raw, "not-" + self._spec.encoding))
                continue
            if len(cells) == width:
                rows.append(Row(number, number, offset, [cells[i] for i in indices], raw))
            else:
                rows.append(Row(number, number, offset, None, raw, "wrong-number-of-columns"))
        if not rows and lines and not self._waiting:
            return self.read(limit)  # only empty lines
        return rows

    def _quoted(self, lines: list[Line], at: int) -> tuple[int, Row | None]:
        """How many lines the record at `at` takes, and its row; None when its end has not come yet."""
        first = lines[at]

        def broken(reason: str) -> tuple[int, Row]:
            return 1, Row(first.number, first.number, first.offset, None, first.raw, reason)

        if first.reason:
            return broken(first.reason)
        starved = False

        def texts() -> Iterator[str]:
            nonlocal starved
            for index in range(at, at + LONGEST_RECORD):
                if index == len(lines):
                    lines.extend(self._lines.take(1))
                if index == len(lines):
                    starved = True
                    return
                line = lines[index]
                if line.reason:
                    return
                try:
                    yield line.raw.decode(self._spec.encoding) + "\n"
                except UnicodeDecodeError:
                    return

        reader = csv.reader(texts(), delimiter=self._spec.delimiter, strict=True)
        try:
            cells = next(reader)
        except StopIteration:
            return broken("not-" + self._spec.encoding)
        except csv.Error as problem:
            if "unexpected end" not in str(problem):
                return broken("broken-quotes")
            if starved and self._spec.follow:
                return 0, None
            return broken("unclosed-quote")
        used = reader.line_num
        last = lines[at + used - 1]
        raw = b"\n".join(line.raw for line in lines[at : at + used])
        if len(cells) != len(self.header):
            return used, Row(first.number, last.number, last.offset, None, raw, "wrong-number-of-columns")
        return used, Row(first.number, last.number, last.offset, [cells[i] for i in self._indices], raw)

    def _read_header(self) -> bool:
        """Read the first line. False while a followed file is still empty."""
        lines = self._waiting or self._lines.take(1)
        self._lines.renewed, self._waiting = False, lines[1:]
        path = self._spec.path
        if not lines and self._spec.follow:
            return False
        if not lines:
            raise ConfigurationError(
                f"The source file {path} is empty.", "A CSV file begins with a line of names."
            )
        try:
            text = lines[0].raw.removeprefix(_BOM).decode(self._spec.encoding)
            names = next(csv.reader([text], delimiter=self._spec.delimiter, strict=True), [])
        except (UnicodeDecodeError, csv.Error):
            raise ConfigurationError(
                f"The first line of {path} is not a CSV header in {self._spec.encoding}.",
                "Set source.encoding or source.kind in the contract.",
            ) from None
        header = tuple(name.strip() for name in names)
        twice = sorted({name for name in self._spec.columns if header.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"The source file {path} has the column {twice[0]!r} more than once.", "Rename one of them."
            )
        columns = self.columns or tuple(name for name in self._spec.columns if name in header)
        gone = [name for name in columns if name not in header]
        if gone:
            raise ConfigurationError(
                f"The new {path} lacks the column {gone[0]!r}; it has: {', '.join(header)}.",
                "Write the header as before, or publish it under another name.",
            )
        self.header, self.columns = header, columns
        self._indices = [header.index(name) for name in columns]
        return True
