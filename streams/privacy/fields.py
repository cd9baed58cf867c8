"""What becomes of each field that is shared: one class per rule, one method, in the order of the contract."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.rules import Category, Count, Number, Pseudonym, Public, Time
from streams.privacy.draws import Draws
from streams.privacy.engines import CategoryLaw, Engine, Mechanism, NumberLaw
from streams.privacy.grid import MemberGrid, Notes, NumberGrid, integers
from streams.privacy.keys import KeyChain
from streams.privacy.units import Units, units

if TYPE_CHECKING:
    from schemas.event import Field
    from schemas.rules import Rule

TIMESTAMP = pa.timestamp("ms", tz="UTC")


class Projection(Protocol):
    """One shared field. `private` ones draw noise."""

    @property
    def name(self) -> str: ...

    @property
    def private(self) -> bool: ...

    @property
    def facts(self) -> dict[str, Any]:
        """Its part of the canonical privacy section: integers and text."""

    def project(self, column: pa.Array, draws: Draws, keys: KeyChain | None, notes: Notes) -> pa.Array:
        """The shared column for raw values of the rows that are shared. Never raises because of a value."""


@dataclass(frozen=True, slots=True)
class PublicField:
    name: str
    id: int
    private: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        return {"id": self.id, "kind": "public"}

    def project(self, column: pa.Array, draws: Draws, keys: KeyChain | None, notes: Notes) -> pa.Array:
        return column


@dataclass(frozen=True, slots=True)
class TimeField:
    """The start of the grid cell, timestamp(ms, UTC); null stays null."""

    name: str
    id: int
    grid_ms: int
    private: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        return {"id": self.id, "kind": "time", "grid_ms": self.grid_ms}

    def project(self, column: pa.Array, draws: Draws, keys: KeyChain | None, notes: Notes) -> pa.Array:
        start = integers(column) // self.grid_ms * self.grid_ms
        absent = None if not column.null_count else column.is_null().to_numpy(zero_copy_only=False)
        return pa.array(start, pa.int64(), mask=absent).cast(TIMESTAMP)


@dataclass(frozen=True, slots=True)
class PseudonymField:
    """HMAC-SHA256 under a key of its own per topic, field and epoch, 32 hex digits; null stays null."""

    name: str
    id: int
    topic: str
    private: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        return {"id": self.id, "kind": "pseudonym"}

    def project(self, column: pa.Array, draws: Draws, keys: KeyChain | None, notes: Notes) -> pa.Array:
        assert keys is not None
        words = np.empty((len(column), 2), np.uint64)
        known = self.name == draws.unit_field
        texts = Units([], np.empty(0, np.int64)) if known else units([column], ())
        for part in draws.epochs:
            key = keys.pseudonym_key(self.topic, self.id, part.epoch)
            names, ids = part.names, part.ids
            if not known:
                mine, back = np.unique(texts.codes[part.rows], return_inverse=True)
                names = keys.names(part.epoch, self.id)
                ids = names.ids(texts.pick(mine))[back]
            words[part.rows] = names.tags(key, ids)
        text = hex_strings(words)
        return text if not column.null_count else pc.if_else(column.is_null(), None, text)


@dataclass(frozen=True, slots=True)
class NumberField:
    """A count (int64 out) or a number (float64 out, the middle of its cell), noised on its grid."""

    name: str
    id: int
    kind: str
    grid: NumberGrid
    mechanism: Mechanism
    step: Decimal
    lower: Decimal
    middle: Decimal
    private: bool = True

    @property
    def facts(self) -> dict[str, Any]:
        some: dict[str, Any] = {"default": self.grid.default} if self.grid.default else {}
        if self.middle:
            some["middle"] = plain(self.middle)
        lower, step = plain(self.lower), plain(self.step)
        return {
            "id": self.id,
            "kind": self.kind,
            "lower": lower,
            "step": step,
            **some,
            **self.mechanism.facts,
        }

    def project(self, column: pa.Array, draws: Draws, keys: KeyChain | None, notes: Notes) -> pa.Array:
        index = self.grid.index(column, notes)
        cells = self.mechanism.noised(index, lambda draw: draws.words(index, self.id, draw)) + self.grid.lower
        if self.kind == "count":
            return pa.array(cells, pa.int64())
        return pa.array(cells * float(self.step) + float(self.middle), pa.float64())


@dataclass(frozen=True, slots=True)
class CategoryField:
    """One of the members, by randomized response."""

    name: str
    id: int
    grid: MemberGrid
    mechanism: Mechanism
    private: bool = True

    @property
    def facts(self) -> dict[str, Any]:
        members: list[str] = self.grid.members.to_pylist()
        return {
            "id": self.id,
            "kind": "category",
            "members": members,
            "other": self.grid.other,
            **self.mechanism.facts,
        }

    def project(self, column: pa.Array, draws: Draws, keys: KeyChain | None, notes: Notes) -> pa.Array:
        index = self.grid.index(column, notes)
        shared = self.mechanism.noised(index, lambda draw: draws.words(index, self.id, draw))
        return self.grid.members.take(pa.array(shared))


def projection(name: str, spec: Field, rule: Rule, topic: str, engine: Engine) -> Projection | None:
    """The projection of a field under its rule; None for a field that is dropped.

    Raises ContractError where the engine cannot keep the law.
    """
    if isinstance(rule, Public):
        return PublicField(name, spec.id)
    if isinstance(rule, Time):
        return TimeField(name, spec.id, rule.grid_ms)
    if isinstance(rule, Pseudonym):
        return PseudonymField(name, spec.id, topic)
    if isinstance(rule, Count | Number):
        law = NumberLaw(rule.range, rule.sensitivity, rule.nano_epsilon, rule.margin)
        grid = NumberGrid(
            name,
            float(rule.step),
            rule.lower_index,
            rule.range,
            rule.default_index,
            float(rule.min),
            float(rule.max),
        )
        mechanism = engine.number(law)
        return NumberField(name, spec.id, rule.kind, grid, mechanism, rule.step, rule.lower, rule.middle)
    if isinstance(rule, Category):
        members = pa.array(rule.members, pa.string())
        grid_of = MemberGrid(name, members, rule.members.index(rule.other))
        return CategoryField(
            name, spec.id, grid_of, engine.category(CategoryLaw(len(rule.members), rule.nano_epsilon))
        )
    return None


def plain(number: Decimal) -> str:
    """A decimal as text without exponent or idle zeros: 0.50 -> 0.5, 1E+2 -> 100."""
    text = format(number, "f")
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def hex_strings(words: NDArray[np.uint64]) -> pa.Array:
    """(n, 2) words in memory order as strings of 32 hex digits."""
    ends = np.arange(0, 32 * (len(words) + 1), 32, dtype=np.int32)
    text = words.tobytes().hex().encode()
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(ends), pa.py_buffer(text))
