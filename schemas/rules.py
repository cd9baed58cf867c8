"""What happens to one field on its way out: one class per rule, numbers already in grid steps.

A field without a rule is refused when the contract loads: nothing passes by default.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, PrivateAttr, Tag, model_validator
from pydantic import Field as Setting

from schemas.units import DurationMs, Part

LARGEST, FINEST = Decimal(10**12), Decimal("1e-12")  # so that decimal arithmetic with 28 digits stays exact
MAX_RANGE = 65_535  # the proof of docs/privacy.md holds for 1 <= D <= R <= 65535


def _number(value: Any) -> Any:
    """Decimals from the text of a number, so that 0.1 is a tenth; booleans and text are refused."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("not a number")
    exact = Decimal(str(value))
    if not exact.is_finite() or abs(exact) > LARGEST or exact != exact.quantize(FINEST):
        raise ValueError("not a number between -10^12 and 10^12 with at most 12 decimals")
    return exact


Exact = Annotated[Decimal, BeforeValidator(_number), Setting(allow_inf_nan=False)]


class Public(Part):
    """Shared as it is. `because` says why it tells nothing about the unit, and silences the warning."""

    kind: Literal["public"] = "public"
    because: str = ""


class Drop(Part):
    """Stays in raw; not even its name leaves."""

    kind: Literal["drop"] = "drop"


class Time(Part):
    """A public time, floored to its grid (milliseconds, UTC). The event time's grid makes the slots."""

    kind: Literal["time"] = "time"
    grid_ms: DurationMs


class Pseudonym(Part):
    """A keyed hash, new in every epoch, with its own label per topic and field."""

    kind: Literal["pseudonym"] = "pseudonym"


class Private(Part):
    """A rule that noises. `weight` is this field's part of a record's budget."""

    private: ClassVar[bool] = True
    weight: Annotated[int, Setting(ge=1, le=1000)] = 1
    _nano_epsilon: int = PrivateAttr(0)
    _integral: bool = PrivateAttr(True)

    @property
    def nano_epsilon(self) -> int:
        """Budget of one value of this field, in billionths."""
        return self._nano_epsilon


class Numeric(Private):
    """A number on a public grid: index = floor(x / step) - lower_index, clipped to 0..range.

    Shared value = lower + index * step + middle. `output: clamp` clips the noised index to 0..range; `wide`
    to -margin..range + margin, from a table built with range + margin.
    """

    min: Exact
    max: Exact
    output: Literal["clamp", "wide"] = "clamp"
    wide_by: Annotated[int, Setting(ge=1, le=MAX_RANGE)] | None = None
    missing: Exact | None = Setting(None, alias="default")
    metric: bool = False

    @property
    def step(self) -> Decimal:
        """Width of a grid cell, in the field's unit."""
        return Decimal(1)

    @property
    def lower(self) -> Decimal:
        """The lower bound, a multiple of the step, in the field's unit."""
        return self.min

    @property
    def lower_index(self) -> int:
        return int((self.min / self.step).to_integral_value(ROUND_FLOOR))

    @property
    def middle(self) -> Decimal:
        """From a cell's lower edge to the value shared for it: the mean of what can lie in the cell."""
        return (self.step - 1) / 2 if self._integral else self.step / 2

    @property
    def range(self) -> int:
        """R: the largest index. Whole numbers reach `max` itself; on a line the last cell ends there."""
        cells = int((self.max / self.step).to_integral_value(ROUND_FLOOR)) - self.lower_index
        return cells if self._integral else cells - 1

    @property
    def sensitivity(self) -> int:
        """D: by how many steps one unit can move one value."""
        raise NotImplementedError

    @property
    def margin(self) -> int:
        """B of `output: wide`, in steps; 0 when clamped. Default: 4 times the noise's scale D / epsilon."""
        if self.output == "clamp":
            return 0
        return self.wide_by or -(-4 * self.sensitivity * 10**9 // max(self.nano_epsilon, 1))

    @property
    def default(self) -> Decimal:
        """What a missing value becomes before noise, in the field's unit; `min` unless declared."""
        return self.min if self.missing is None else self.missing

    @property
    def default_index(self) -> int:
        index = int((self.default / self.step).to_integral_value(ROUND_FLOOR)) - self.lower_index
        return min(max(index, 0), self.range)

    @property
    def bounds(self) -> tuple[Decimal, Decimal]:
        """Smallest and largest value that can be shared."""
        low = self.lower + self.middle
        return low - self.margin * self.step, low + (self.range + self.margin) * self.step

    @model_validator(mode="after")
    def _on_the_grid(self) -> Numeric:
        if not self.min < self.max:
            raise ValueError("min must be smaller than max")
        if self.min % self.step or self.max % self.step:
            raise ValueError("min and max must be multiples of the step")
        if self.wide_by is not None and self.output != "wide":
            raise ValueError("wide_by belongs to output: wide")
        if self.missing is not None and not self.min <= self.missing <= self.max:
            raise ValueError("the default must lie between min and max")
        return self


class Count(Numeric):
    """A whole number of units, step 1: one unit adds at most `per_unit` to one value."""

    kind: Literal["count"] = "count"
    per_unit: Annotated[int, Setting(ge=1)] = 1

    @property
    def sensitivity(self) -> int:
        return self.per_unit

    @model_validator(mode="after")
    def _whole(self) -> Count:
        if self.min % 1 or self.max % 1:
            raise ValueError("a count has whole bounds")
        return self


class Number(Numeric):
    """A reading. Without `per_unit` (aggregates) or `sensitivity` (metric) one unit can move all of it."""

    kind: Literal["number"] = "number"
    grid: Exact = Setting(Decimal(1), alias="step", gt=0)
    per_unit: Exact | None = Setting(None, gt=0)
    distance: Exact | None = Setting(None, alias="sensitivity", gt=0)

    @property
    def step(self) -> Decimal:
        return self.grid

    @property
    def sensitivity(self) -> int:
        moved = self.per_unit if self.per_unit is not None else self.distance
        if moved is None:
            return self.range
        return int((moved / self.step).to_integral_value(ROUND_CEILING))  # a floor moves by at most that

    @model_validator(mode="after")
    def _one_bound(self) -> Number:
        if self.per_unit is not None and self.distance is not None:
            raise ValueError("per_unit and sensitivity exclude each other")
        return self


class Category(Private):
    """One of `members`, by k-ary randomized response; `other`, for what is not listed, is one too."""

    kind: Literal["category"] = "category"
    members: Annotated[
        tuple[Annotated[str, Setting(min_length=1, max_length=256)], ...], Setting(min_length=1)
    ]
    other: Annotated[str, Setting(min_length=1, max_length=256)]

    @model_validator(mode="before")
    @classmethod
    def _with_other(cls, data: Any) -> Any:
        if (
            isinstance(data, dict)
            and isinstance(data.get("members"), list)
            and isinstance(data.get("other"), str)
        ):
            members = data["members"]
            return {**data, "members": members if data["other"] in members else [*members, data["other"]]}
        return data

    @model_validator(mode="after")
    def _distinct(self) -> Category:
        if len(set(self.members)) != len(self.members) or not 2 <= len(self.members) <= 1024:
            raise ValueError("needs 2 to 1024 members, `other` included, each listed once")
        return self


_CLASSES = {
    "public": Public,
    "drop": Drop,
    "time": Time,
    "pseudonym": Pseudonym,
    "count": Count,
    "number": Number,
    "category": Category,
}


def _spelled(value: Any) -> Any:
    """`public`, `{time: 5min}` and `{count: {...}}` all become `{kind: ..., ...}`."""
    if value in ("public", "drop", "pseudonym"):
        return {"kind": value}
    if isinstance(value, Part):
        return value
    if isinstance(value, dict) and len(value) == 1:
        (kind, inner) = next(iter(value.items()))
        if kind == "time" and isinstance(inner, str):
            return {"kind": kind, "grid_ms": inner}
        if kind in _CLASSES and isinstance(inner, dict) and "kind" not in inner:
            return {"kind": kind, **inner}
    raise ValueError(
        "a rule is one of public, drop, pseudonym, {time: 5min}, {count: {...}}, {number: {...}}, "
        "{category: {...}}"
    )


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


Rule = Annotated[
    Annotated[Public, Tag("public")]
    | Annotated[Drop, Tag("drop")]
    | Annotated[Time, Tag("time")]
    | Annotated[Pseudonym, Tag("pseudonym")]
    | Annotated[Count, Tag("count")]
    | Annotated[Number, Tag("number")]
    | Annotated[Category, Tag("category")],
    Discriminator(_kind),
    BeforeValidator(_spelled),
]
