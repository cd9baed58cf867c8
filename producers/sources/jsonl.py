"""JSON Lines: one object a line."""

from __future__ import annotations

import json

from producers.sources import Position, Row, Spec
from producers.sources.lines import Line, Lines

# As in CSV, a mistyped column should stop the run at once; but any single line may leave a key out.
LINES_FOR_HEADER = 100


class JsonlSource:
    """Rows of a JSON Lines file, in UTF-8. Empty lines are skipped; a missing key is a None cell.

    Nested values come as they are: the parser turns them down where a plain value is wanted.
    """

    kind = "jsonl"

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._lines = Lines(spec.path, follow=spec.follow)
        self.notices = self._lines.notices
        self.columns = spec.columns
        self._waiting = self._lines.take(LINES_FOR_HEADER)
        names: dict[str, None] = {}
        for line in self._waiting:
            found = _object(line)
            if isinstance(found, dict):
                names.update(dict.fromkeys(found))
        self.header = tuple(names)

    @property
    def generation(self) -> int:
        return self._lines.generation

    @property
    def size(self) -> int:
        return self._lines.size

    def resume(self, position: Position) -> None:
        self._waiting = []
        self._lines.resume(position)

    def position(self, row: Row) -> Position:
        return self._lines.position(row)

    def raw(self, row: Row) -> bytes:
        return row.raw

    def close(self) -> None:
        self._lines.close()

    def read(self, limit: int) -> list[Row]:
        lines = self._waiting[:limit] or self._lines.take(limit)
        self._waiting = self._waiting[limit:]
        rows: list[Row] = []
        for line in lines:
            if not line.raw.strip():
                continue
            found = _object(line)
            if isinstance(found, dict):
                cells = [found.get(name) for name in self.columns]
                rows.append(Row(line.number, line.number, line.offset, cells, line.raw))
            else:
                rows.append(Row(line.number, line.number, line.offset, None, line.raw, found))
        if not rows and lines:
            return self.read(limit)
        return rows


def _object(line: Line) -> dict[str, object] | str:
    """The object on this line, or the reason why it is none."""
    if line.reason:
        return line.reason
    raw = line.raw.removeprefix(b"\xef\xbb\xbf") if line.number == 1 else line.raw
    try:
        found = json.loads(raw.decode(), parse_int=_integer)
    except UnicodeDecodeError:
        return "not-utf-8"
    except (ValueError, RecursionError):
        return "not-json"
    return found if isinstance(found, dict) else "not-an-object"


def _integer(digits: str) -> int | float:
    """Python reads no number of more than 4,300 digits; the line must not be rejected for its value."""
    return int(digits) if len(digits) <= 640 else float(digits)
