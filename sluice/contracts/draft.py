"""Five answers and the guessed columns to the text of a contract. Whatever was not asked for is dropped."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from os.path import relpath
from pathlib import Path

from schemas.errors import ConfigurationError
from schemas.rules import MAX_RANGE
from sluice.contracts.guess import Column

CELLS = 256  # of a line that is not whole numbers
CONSTANT = "-"


@dataclass(frozen=True, slots=True)
class Bounds:
    """A private column between public bounds; `per_unit`: the most one unit adds to an aggregate."""

    column: str
    low: Decimal
    high: Decimal
    per_unit: Decimal | None = None

    @classmethod
    def of(cls, text: str) -> Bounds:
        """`COLUMN:MIN:MAX` or `COLUMN:MIN:MAX:PER_UNIT`; the column may hold colons itself."""
        match = re.fullmatch(r"(.+?):([-+.\d]+):([-+.\d]+)(?::([-+.\d]+))?", text.strip())
        try:
            if match is None:
                raise InvalidOperation
            numbers = [Decimal(part) for part in match.groups()[1:] if part is not None]
        except InvalidOperation:
            raise ConfigurationError(
                "A private column is written COLUMN:MIN:MAX or COLUMN:MIN:MAX:PER_UNIT.",
                "Bounds are what can be, from knowledge of the thing, not what the data happens to hold.",
            ) from None
        return cls(match[1], numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else None)


@dataclass(frozen=True, slots=True)
class Answers:
    """`key`: a column, or `-` where the file is one series. `unit`: the column that names the protected
    one, or `-` where no column does; then `basis` and `attested_by` say who vouches for `most`.
    """

    name: str
    owner: str
    key: str
    time: str
    protects: str
    unit: str
    most: int
    private: tuple[Bounds, ...]
    public: tuple[str, ...] = ()
    basis: str = ""
    attested_by: str = ""
    epsilon: Decimal = Decimal(1)
    zone: str = ""
    grid: str = ""
    purpose: str = "research"
    region: tuple[str, ...] = field(default=("EU",))


def find(columns: Sequence[Column], wanted: str) -> Column:
    """A column by its title or its field name."""
    for column in columns:
        if wanted in (column.title, column.name):
            return column
    titles = ", ".join(repr(column.title) for column in columns)
    raise ConfigurationError("There is no such column in the source.", f"It has: {titles}.")


def numbers(column: Column) -> None:
    """Raises ConfigurationError unless nearly all cells are numbers. It names a line, never a cell."""
    if column.numeric:
        return
    where = (
        "It is a column of times." if column.type == "timestamp" else "It has no cells with anything in them."
    )
    if column.odd and column.type != "timestamp":
        where = f"{column.odd:,} of {column.given:,} cells looked at are none, the first in line {column.odd_line:,}."
    raise ConfigurationError(
        f"The column {column.title!r} does not hold numbers. {where}",
        "Only numbers have bounds: leave the column out, or mend the cells.",
    )


def times(column: Column) -> None:
    """Raises ConfigurationError unless nearly all cells are times in one known way of writing."""
    if column.type == "timestamp":
        return
    raise ConfigurationError(
        f"The column {column.title!r} does not hold times that can be read.",
        "Name another column, or write its times as ISO 8601, e.g. 2024-05-31T08:00:00Z.",
    )


def odd(answers: Answers, columns: Sequence[Column]) -> list[str]:
    """What did not fit the type of its column, one sentence a column; counts and lines, never a cell."""
    said = []
    time = find(columns, answers.time)
    looked = f"of {time.given:,} cells looked at in {time.title!r}"
    if time.odd:
        said.append(
            f"{time.odd:,} {looked} cannot be read as times like the others, the first in line "
            f"{time.odd_line:,}: such rows are rejected."
        )
    if time.off_grid and not answers.grid:
        said.append(f"{time.off_grid:,} {looked} lie beside the grid of {time.grid}, to which they are cut.")
    for column in (find(columns, one.column) for one in answers.private):
        if column.odd and column.numeric:
            said.append(
                f"{column.odd:,} of {column.given:,} cells looked at in {column.title!r} are no numbers, the first "
                f"in line {column.odd_line:,}: they are shared as the default, with noise like all others."
            )
    return said


def text(
    answers: Answers, columns: Sequence[Column], source: Path, kind: str, folder: Path, delimiter: str = ","
) -> str:
    """The YAML of a contract that lies in `folder`. `schemas.contract.parse` has the last word on it."""
    time = find(columns, answers.time)
    times(time)
    key = None if answers.key == CONSTANT else find(columns, answers.key)
    unit = None if answers.unit == CONSTANT else find(columns, answers.unit)
    bounds = {find(columns, one.column).name: one for one in answers.private}
    public = {find(columns, one).name for one in answers.public}
    key_name = key.name if key else _free("series", columns)
    fields = [] if key else [f"    {key_name}: {{type: string, default: {_quoted(answers.name)}}}"]
    rules = [] if key else [f"    {key_name}: public"]
    for column in columns:
        identifies = column is key or column is unit
        type_ = "timestamp" if column is time else _type(column, identifies, column.name in bounds)
        named = "" if column.name == column.title else f", column: {_quoted(column.title)}"
        fields.append(f"    {column.name}: {{type: {type_}{named}}}")
        rules.append(f"    {column.name}: {_rule(column, answers, bounds, public, time, key, unit)}")
    slot = {time.name, unit.name if unit else key_name}
    zone = "" if time.zoned else f", zone: {answers.zone or 'UTC'}"
    separator = "" if delimiter == "," else f", delimiter: {_quoted(delimiter)}"
    held = (
        f" {{max: {answers.most}, of: [{', '.join(sorted(slot))}], held_by: ledger}}"
        if unit
        else f"\n    max: {answers.most}\n    of: [{', '.join(sorted(slot))}]\n    held_by: assumed"
        f"\n    basis: {_quoted(answers.basis)}\n    attested_by: {_quoted(answers.attested_by)}"
    )
    lines = [
        f"contract: {answers.name}",
        "version: 1.0.0",
        f"owner: {_quoted(answers.owner)}",
        f"source: {{kind: {kind}, path: {_quoted(_relative(source, folder))}{separator}}}",
        "event:",
        f"  key: {key_name}",
        f"  time: {{field: {time.name}, format: {_quoted(time.format or 'iso8601')}{zone}}}",
        "  fields:",
        *fields,
        "privacy:",
        f"  protects: {answers.protects}",
        *([f"  unit: [{unit.name}]"] if unit else []),
        "  epoch: {length: day, from: 1970-01-01}   # from: first epoch with a key; needed for old data",
        f"  epsilon: {answers.epsilon}",
        f"  contribution:{held}",
        "  fields:",
        *rules,
        f"terms: {{purpose: [{answers.purpose}], for: 90d, price: 0 EUR, region: [{', '.join(answers.region)}]}}",
        "keep:  {raw: 7d, shared: 1y}",
    ]
    return "\n".join(lines) + "\n"


def _rule(
    column: Column,
    answers: Answers,
    bounds: dict[str, Bounds],
    public: set[str],
    time: Column,
    key: Column | None,
    unit: Column | None,
) -> str:
    if column is time:
        return f"{{time: {answers.grid or column.grid or '1min'}}}"
    if column is key:
        return "pseudonym" if column is unit else "public"
    if column.name in bounds and column is not unit:
        return _numeric(column, bounds[column.name], personal=unit is not None)
    return "public" if column.name in public else "drop"


def _numeric(column: Column, given: Bounds, personal: bool) -> str:
    """A count for whole numbers that units add up to, else a number on a grid of a power of two."""
    numbers(column)
    whole = column.numeric == "int"
    width = given.high - given.low
    if width <= 0:
        raise ConfigurationError(f"The bounds of {column.title!r} are no range.", "MIN is smaller than MAX.")
    if whole and not personal and given.per_unit is not None and width <= MAX_RANGE:
        return f"{{count: {{min: {given.low:f}, max: {given.high:f}, per_unit: {given.per_unit:f}}}}}"
    aim = max(width / MAX_RANGE, Decimal(1)) if whole else width / CELLS
    step = Fraction(2) ** math.ceil(math.log2(aim))
    low = Fraction(given.low) // step * step
    high = -(-Fraction(given.high) // step) * step
    extra = "" if personal or given.per_unit is None else f", per_unit: {given.per_unit:f}"
    return f"{{number: {{min: {_plain(low)}, max: {_plain(high)}, step: {_plain(step)}{extra}}}}}"


def _plain(value: Fraction) -> str:
    return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"


def _type(column: Column, identifies: bool, bounded: bool) -> str:
    """A number that only names something is a word. Where nearly all cells are numbers, bounds make the column
    one; shared as it is, or dropped, it keeps its words."""
    if bounded and not identifies:
        return column.numeric
    return "string" if identifies or column.type == "timestamp" else column.type


def _free(name: str, columns: Sequence[Column]) -> str:
    return name if all(column.name != name for column in columns) else f"{name}_"


def _relative(source: Path, folder: Path) -> str:
    return relpath(source.resolve(), folder.resolve())


def _quoted(value: str) -> str:
    """JSON text is YAML text."""
    return (
        value if re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) else json.dumps(value, ensure_ascii=False)
    )
