"""The `privacy:` section: who is protected, for how long, how much, and what happens to each field."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field as Setting
from pydantic import StringConstraints, model_validator

from schemas.event import FieldName
from schemas.rules import Category, Count, Exact, Number, Private, Rule
from schemas.units import DurationMs, InstantMs, Part

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=64)]


class Epoch(Part):
    """The time over which one unit's budget is counted: floor((event time - anchor) / length)."""

    length_ms: DurationMs = Setting(alias="length")
    anchor_ms: InstantMs = Setting(0, alias="anchor")
    from_ms: InstantMs | None = Setting(None, alias="from")

    def number(self, time_ms: int) -> int:
        return (time_ms - self.anchor_ms) // self.length_ms

    def oldest_open(self, clock_ms: int, keep_ms: int) -> int:
        """All epochs below it are closed at this clock: they ended more than `keep_ms` before it."""
        return self.number(clock_ms - keep_ms - 1)


class Contribution(Part):
    """At most `max` records (told apart by the fields `of`) of one unit in an epoch, and who enforces it."""

    max: Annotated[int, Setting(ge=1, le=1_000_000)]
    of: tuple[FieldName, ...] = ()
    held_by: Literal["ledger", "bounder", "assumed"]
    basis: str = ""
    attested_by: str = ""

    @model_validator(mode="after")
    def _attested(self) -> Contribution:
        if self.held_by == "assumed" and not (self.basis.strip() and self.attested_by.strip()):
            raise ValueError(
                "held_by: assumed needs basis (why no unit adds more) and attested_by (who vouches for it), "
                "since nothing in the data can enforce it"
            )
        return self


class Privacy(Part):
    """One promise. `epsilon` is all that the contract's topic shares about one unit in one epoch."""

    protects: Slug
    population: Annotated[str, StringConstraints(min_length=1, max_length=256)] = ""
    neighbours: Literal["values", "presence"] = "values"
    epoch: Epoch
    epsilon: Exact
    contribution: Contribution
    unit: tuple[FieldName, ...] = ()
    normalise: tuple[Literal["nfc", "trim", "lower", "upper"], ...] = ("nfc",)
    engine: Literal["exact", "diffprivlib"] = "exact"
    fields: dict[FieldName, Rule]

    @property
    def private_fields(self) -> dict[str, Count | Number | Category]:
        """The fields that are noised, in the order of the contract."""
        return {
            name: rule for name, rule in self.fields.items() if isinstance(rule, Count | Number | Category)
        }

    @model_validator(mode="after")
    def _split(self) -> Privacy:
        """Each record may spend epsilon / max; fields share it by weight; rounding goes down, never up."""
        private = [rule for rule in self.fields.values() if isinstance(rule, Private)]
        total = sum(rule.weight for rule in private)
        for rule in private:
            share = self.epsilon * Decimal(10**9) * rule.weight / (self.contribution.max * total)
            rule._nano_epsilon = max(0, int(share))
        return self
