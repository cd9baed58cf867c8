"""Cells to a typed event, as the contract says.

Never reject by value (docs/privacy.md): a cell that cannot be read becomes null, the share agent makes
its declared default of it, and the record is shared as any other. Only a broken key, time, unit or row makes
a dead letter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from producers import times
from producers.sources import Row, Source
from schemas.contract import Contract
from schemas.errors import ConfigurationError
from schemas.event import Field
from schemas.partition import normal, unit_bytes

LARGEST = 2**63 - 1
_TRUE, _FALSE = frozenset(("true", "t", "yes", "y", "1")), frozenset(("false", "f", "no", "n", "0"))


class Event(NamedTuple):
    """One event, not yet encoded. `hashed` decides the partition; `unreadable`: fields that became null."""

    row: Row
    key: bytes
    hashed: bytes
    time_ms: int
    record: dict[str, object]
    unreadable: tuple[str, ...]


class Broken(NamedTuple):
    """A row for the dead letters. `reason` is a kebab-case word, `field` a name of the contract or empty."""

    row: Row
    reason: str
    field: str


class UnreadableError(ValueError):
    """The cell is not of its type; what it holds is never repeated."""


def wanted(contract: Contract) -> tuple[str, ...]:
    """The source columns that the contract names, each once. Nothing else is ever read."""
    return tuple(dict.fromkeys(column(name, field) for name, field in contract.event.fields.items()))


def column(name: str, field: Field) -> str:
    return field.column or name


class Parser:
    """Turns the rows of one source into events. Raises ConfigurationError where the source lacks a column.

    A column may be missing where its field has a default, and in JSON lines where it may be null. An empty
    cell (and a missing one) takes the field's default, or is null.
    """

    def __init__(self, contract: Contract, source: Source) -> None:
        event, unit = contract.event, contract.privacy.unit
        self._key, self._time = event.key, event.time.field
        self._normalise = contract.privacy.normalise if unit else ()
        self._sure = {event.key, event.time.field, *unit}
        self._unit = unit or (event.key,)
        self._plan: list[tuple[str, int, Callable[[object], object], object]] = []
        read_time = times.reader(event.time)
        for name, field in event.fields.items():
            title = column(name, field)
            missing = title not in (source.header or source.columns)
            optional = field.default is not None or (source.kind == "jsonl" and name not in self._sure)
            if missing and not optional:
                raise missing_column(contract, name, title, source)
            index = source.columns.index(title) if title in source.columns else -1
            convert = read_time if field.type == "timestamp" else CONVERTERS[field.type]
            if contract.privacy.fields[name].kind in ("count", "number"):
                convert = NOISED[field.type]
            self._plan.append((name, index, convert, _default(field)))

    def parse(self, row: Row) -> Event | Broken:
        cells = row.cells
        if cells is None:
            return Broken(row, row.reason, "")
        record: dict[str, object] = {}
        unreadable: tuple[str, ...] = ()
        for name, index, convert, default in self._plan:
            cell = cells[index] if index >= 0 else None
            if cell is None or (cell.__class__ is str and not cell.strip()):
                value = default
            else:
                try:
                    value = convert(cell)
                except times.TimeProblemError as problem:
                    if name == self._time:
                        return Broken(row, problem.reason, name)
                    value = None
                except UnreadableError:
                    value = None
                if value is None:
                    if name in self._sure:
                        return Broken(row, self._word(name) + "-unreadable", name)
                    unreadable += (name,)
            if value is None and name in self._sure:
                return Broken(row, self._word(name) + "-missing", name)
            record[name] = value
        key = str(record[self._key]).encode()
        hashed = unit_bytes([normal(str(record[name]), self._normalise) for name in self._unit])
        return Event(row, key, hashed, record[self._time], record, unreadable)  # type: ignore[arg-type]

    def _word(self, name: str) -> str:
        return "time" if name == self._time else "key" if name == self._key else "unit"


def missing_column(contract: Contract, name: str, title: str, source: Source) -> ConfigurationError:
    """The error for a column that the file does not have; it lists those that it has."""
    has = ", ".join(repr(one) for one in source.header[:40]) + (", ..." if len(source.header) > 40 else "")
    return ConfigurationError(
        f"The source has no column {title!r}, which {contract.contract} names for its field {name!r}. "
        f"It has: {has}.",
        f"Set event.fields.{name}.column to one of these, give it a default, or check source.delimiter.",
    )


def _default(field: Field) -> object:
    if field.default is None:
        return None
    return float(field.default) if field.type == "float" else field.default


def _string(cell: object) -> str:
    text = cell if isinstance(cell, str) else _plain(cell)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half a surrogate pair, as JSON can spell it
            raise UnreadableError from None
    return text


def _plain(cell: object) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float):
        return str(cell)
    raise UnreadableError


def _int(cell: object) -> int:
    if isinstance(cell, bool):
        raise UnreadableError
    if isinstance(cell, int):
        value = cell
    else:
        try:
            if isinstance(cell, str):
                value = int(cell) if "_" not in cell else None  # type: ignore[assignment]
            else:
                value = _whole(_float(cell))
        except ValueError:
            value = _whole(_float(cell))
        if value is None:
            raise UnreadableError
    if not -LARGEST - 1 <= value <= LARGEST:
        raise UnreadableError
    return value


def _whole(value: float) -> int:
    """12.0 is 12; 12.5 is not a whole number. Past 2**53 a float says nothing exact."""
    if not math.isfinite(value) or value != math.floor(value) or abs(value) > 2**53:
        raise UnreadableError
    return int(value)


def _float(cell: object) -> float:
    """NaN and infinity are floats here: the share agent clamps or replaces them."""
    if isinstance(cell, bool):
        raise UnreadableError
    if isinstance(cell, str):
        if "_" in cell:  # Python reads 1_000, no data source means it
            raise UnreadableError
        try:
            return float(cell)
        except ValueError:
            raise UnreadableError from None
    if isinstance(cell, int | float):
        try:
            return float(cell)
        except OverflowError:
            raise UnreadableError from None
    try:
        return float(cell.__float__())  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError, OverflowError):  # Decimal passes, lists and dicts do not
        raise UnreadableError from None


def _bool(cell: object) -> bool:
    if isinstance(cell, bool):
        return cell
    word = str(cell).strip().lower() if isinstance(cell, str | int | float) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise UnreadableError


CONVERTERS: dict[str, Callable[[object], object]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
}


def _noised_int(cell: object) -> int:
    """On the line of the grid it will meet: floored, and at most LARGEST. Two cells that one unit tells apart
    must not become a bound and a default: 12 and 12.5, 2**63 - 1 and 2**63 stay neighbours."""
    try:
        return _int(cell)
    except UnreadableError:
        value = cell if isinstance(cell, int) and not isinstance(cell, bool) else _noised_float(cell)
    if value != value:  # NaN
        raise UnreadableError
    return math.floor(min(max(value, -LARGEST - 1), LARGEST))


def _noised_float(cell: object) -> float:
    """As `_float`; what no float can hold is infinite."""
    try:
        return _float(cell)
    except UnreadableError:
        if isinstance(cell, int) and not isinstance(cell, bool):
            return math.inf if cell > 0 else -math.inf
        raise


NOISED: dict[str, Callable[[object], object]] = {"int": _noised_int, "float": _noised_float}


def parse_all(parser: Parser, rows: Sequence[Row]) -> list[Event | Broken]:
    return [parser.parse(row) for row in rows]
