"""The `shares:` section: how privatized fields become the target model, and its Avro types. Pure, no Arrow.

Operators: a bare field name renames; text with `{field}` is a template; `{from:, scale:, offset:}`,
`{from:, table:, else:}`, `{constant:}`, `{nest: {...}}`, `{list: ...}` (a list of one).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, StringConstraints, Tag, field_validator, model_validator
from pydantic import Field as Setting

from schemas.event import FieldName, fits_64_bits
from schemas.units import Part

_HOLE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
Attribute = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class Rename(Part):
    op: Literal["rename"] = "rename"
    field: FieldName


class Scale(Part):
    """field * scale + offset, as a double."""

    op: Literal["scale"] = "scale"
    field: FieldName = Setting(alias="from")
    scale: float = Setting(1.0, allow_inf_nan=False)
    offset: float = Setting(0.0, allow_inf_nan=False)


class Table(Part):
    """One word for another; `else` for what the table does not list."""

    op: Literal["table"] = "table"
    field: FieldName = Setting(alias="from")
    table: Annotated[dict[str, str], Setting(min_length=1)]
    otherwise: str = Setting(alias="else")


class Constant(Part):
    op: Literal["constant"] = "constant"
    constant: str | bool | int | float

    @field_validator("constant")
    @classmethod
    def _sayable(cls, constant: str | bool | int | float) -> str | bool | int | float:
        if not fits_64_bits(constant):
            raise ValueError("a constant that is not finite, or longer than 64 bits")
        return constant


class Template(Part):
    op: Literal["template"] = "template"
    text: Annotated[str, StringConstraints(max_length=1000)]

    @property
    def pieces(self) -> tuple[str, ...]:
        """Literal text at even positions, field names at odd ones."""
        return tuple(_HOLE.split(self.text))

    @model_validator(mode="after")
    def _closed(self) -> Template:
        if any("{" in piece or "}" in piece for piece in self.pieces[::2]):
            raise ValueError("a template's braces hold one field name each, as in {detector}")
        return self


class Nest(Part):
    op: Literal["nest"] = "nest"
    nest: Annotated[dict[Attribute, Operator], Setting(min_length=1)]


class ListOfOne(Part):
    op: Literal["list"] = "list"
    item: Operator = Setting(alias="list")


def _spelled(value: Any) -> Any:
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        return {"op": "template", "text": value} if "{" in value else {"op": "rename", "field": value}
    if isinstance(value, dict) and "op" not in value:
        for name, key in (("table", "table"), ("constant", "constant"), ("nest", "nest"), ("list", "list")):
            if key in value:
                return {"op": name, **value}
        if "from" in value:
            return {"op": "scale", **value}
    raise ValueError(
        "an operator is a field name, a template with {field}, {from:, scale:, offset:}, "
        "{from:, table:, else:}, {constant:}, {nest:} or {list:}"
    )


def _op(value: Any) -> Any:
    return value.get("op") if isinstance(value, dict) else getattr(value, "op", None)


Operator = Annotated[
    Annotated[Rename, Tag("rename")]
    | Annotated[Scale, Tag("scale")]
    | Annotated[Table, Tag("table")]
    | Annotated[Constant, Tag("constant")]
    | Annotated[Template, Tag("template")]
    | Annotated[Nest, Tag("nest")]
    | Annotated[ListOfOne, Tag("list")],
    Discriminator(_op),
    BeforeValidator(_spelled),
]


class Shares(Part):
    """The target model and the way there. Without `map` every shared field keeps its own name."""

    as_: str = Setting("plain", alias="as", pattern=r"^(plain|[a-z][a-z0-9-]*/[A-Za-z][A-Za-z0-9]*)$")
    map: Annotated[dict[Attribute, Operator], Setting(min_length=1)] | None = None

    @property
    def model(self) -> str:
        """Name of the target record, e.g. TrafficFlowObserved."""
        return "Event" if self.as_ == "plain" else self.as_.split("/")[1]


def fields_of(operator: Operator) -> tuple[str, ...]:
    """Every field that an operator reads."""
    if isinstance(operator, Rename | Scale | Table):
        return (operator.field,)
    if isinstance(operator, Template):
        return operator.pieces[1::2]
    if isinstance(operator, Nest):
        return tuple(name for inner in operator.nest.values() for name in fields_of(inner))
    if isinstance(operator, ListOfOne):
        return fields_of(operator.item)
    return ()


def scaled(operator: Operator) -> Iterator[str]:
    """Every field that an operator computes with."""
    if isinstance(operator, Scale):
        yield operator.field
    elif isinstance(operator, Nest):
        for inner in operator.nest.values():
            yield from scaled(inner)
    elif isinstance(operator, ListOfOne):
        yield from scaled(operator.item)


def records_of(operator: Operator, name: str) -> Iterator[str]:
    """Names of the Avro records that `avro_type` makes of an operator."""
    if isinstance(operator, Nest):
        yield name
        for key, inner in operator.nest.items():
            yield from records_of(inner, f"{name}_{key}")
    elif isinstance(operator, ListOfOne):
        yield from records_of(operator.item, f"{name}_item")


def avro_type(operator: Operator, fields: dict[str, Any], name: str) -> Any:
    """Avro type of what an operator makes; `fields` holds the Avro types of the privatized fields."""
    if isinstance(operator, Rename):
        return fields[operator.field]
    if isinstance(operator, Scale):
        return ["null", "double"] if isinstance(fields[operator.field], list) else "double"
    if isinstance(operator, Table):
        return ["null", "string"] if isinstance(fields[operator.field], list) else "string"
    if isinstance(operator, Constant):
        kinds = {bool: "boolean", int: "long", float: "double", str: "string"}
        return kinds[type(operator.constant)]
    if isinstance(operator, Nest):
        inner = [avro_field(key, avro_type(op, fields, f"{name}_{key}")) for key, op in operator.nest.items()]
        return {"type": "record", "name": name, "fields": inner}
    if isinstance(operator, ListOfOne):
        return {"type": "array", "items": avro_type(operator.item, fields, f"{name}_item")}
    return "string"


def avro_field(name: str, type_: Any) -> dict[str, Any]:
    """One Avro field; what may be missing is missing by default, so that a reader's schema can grow."""
    return {"name": name, "type": type_, **({"default": None} if isinstance(type_, list) else {})}
