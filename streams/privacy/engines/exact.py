"""The default engine: integer tables whose loss is computed when they load, sampled by alias tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from schemas.errors import ContractError
from streams.privacy import response
from streams.privacy.alias import Alias
from streams.privacy.engines import CategoryLaw, Draw, Facts, Int64, NumberLaw
from streams.privacy.masses import Masses

RAISE = "Raise epsilon, choose a coarser step or tighter bounds; `sluice contract check` shows the effect."


@dataclass(frozen=True, slots=True)
class ClampedLaplace:
    """out = clip(v + z, -B, R + B) with z from a proved table of range R + B; one word a value."""

    law: NumberLaw
    alias: Alias = field(repr=False)

    @property
    def facts(self) -> Facts:
        law = self.law
        wide: Facts = {"margin": law.margin} if law.margin else {}
        return {
            "mechanism": f"{'wide' if law.margin else 'clamped'}-discrete-laplace",
            "nano_epsilon": law.nano_epsilon,
            "range": law.range,
            "sensitivity": law.sensitivity,
            "table": self.alias.digest(),
            **wide,
        }

    def noised(self, index: Int64, words: Draw) -> Int64:
        z = self.alias.sample(words(0)) - (self.law.range + self.law.margin)
        out: Int64 = np.clip(index + z, -self.law.margin, self.law.range + self.law.margin)
        return out


@dataclass(frozen=True, slots=True)
class RandomizedResponse:
    """The member, moved on by a step from a proved table; one word a value."""

    law: CategoryLaw
    alias: Alias = field(repr=False)

    @property
    def facts(self) -> Facts:
        return {
            "mechanism": "randomized-response",
            "nano_epsilon": self.law.nano_epsilon,
            "size": self.law.members,
            "table": self.alias.digest(),
        }

    def noised(self, index: Int64, words: Draw) -> Int64:
        return (index + self.alias.sample(words(0))) % self.law.members


class Exact:
    """Loss at most epsilon, delta 0, whatever the data.

    Proved in integers for the very columns that are sampled.
    """

    name = "exact"
    guarantees = (
        "Integer tables: the loss of each deployed table is computed in whole numbers when it loads and is "
        "at most its epsilon, with delta 0 and no tolerance; a table that fails is refused."
    )
    limits = (
        "The noise is pseudo-random under the epoch's key: the promise is computational, until that key "
        "leaks."
    )

    def number(self, law: NumberLaw) -> ClampedLaplace:
        return ClampedLaplace(law, number_table(law.range + law.margin, law.sensitivity, law.nano_epsilon))

    def category(self, law: CategoryLaw) -> RandomizedResponse:
        return RandomizedResponse(law, category_table(law.members, law.nano_epsilon))


@lru_cache(maxsize=64)  # (65535, 65535, 1) takes 2 s to build, (256, 1, .5) 2 ms
def number_table(R: int, D: int, nano: int) -> Alias:
    """The proved table of z + R for z in -R..R. Raises ContractError where it cannot be proved."""
    try:
        masses = Masses.of(R, D, nano)
    except ValueError as problem:
        raise ContractError(f"{str(problem).capitalize()}.", RAISE) from None
    return proved(masses, nano)


def proved(masses: Masses, nano: int) -> Alias:
    """The alias table of masses that hold epsilon; raises ContractError for any that do not."""
    if not masses.loss_within(nano):
        raise ContractError(
            f"The noise table for range {masses.R} and sensitivity {masses.D} loses more than {nano} "
            "billionths of epsilon.",
            RAISE,
        )
    weights = masses.weights()
    alias = Alias.of(weights)
    if alias.weights(len(weights)) != weights:
        raise ContractError("The alias table does not give the proved masses.", "Report this: it is a bug.")
    return alias


@lru_cache(maxsize=64)
def category_table(members: int, nano: int) -> Alias:
    """The proved table of the step 0 .. members - 1."""
    try:
        steps = response.weights(members, nano)
    except ValueError as problem:
        raise ContractError(f"{str(problem).capitalize()}.", RAISE) from None
    alias = Alias.of(steps)
    if not response.loss_within(steps, nano) or alias.weights(members) != steps:
        raise ContractError(
            f"Randomized response among {members} members loses more than {nano} billionths of epsilon.",
            RAISE,
        )
    return alias
