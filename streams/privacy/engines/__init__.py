"""Engines that noise an index on a public grid.

One small protocol, chosen per contract by `privacy.engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError

Int64 = NDArray[np.int64]
Draw = Callable[[int], Int64]  # draw number -> a uniform word 0 .. 2^63 - 1 per row, same at every replay
Facts = dict[str, int | str]


@dataclass(frozen=True, slots=True)
class NumberLaw:
    """index 0..range in, index -margin .. range + margin out; neighbours are at most `sensitivity` apart."""

    range: int
    sensitivity: int
    nano_epsilon: int
    margin: int = 0


@dataclass(frozen=True, slots=True)
class CategoryLaw:
    """index 0 .. members - 1 in and out; any two are neighbours."""

    members: int
    nano_epsilon: int


class Mechanism(Protocol):
    """Noise of one field. Deterministic given its words: a replay gives the same bytes."""

    @property
    def facts(self) -> Facts:
        """What fixes the noise, for the canonical privacy section."""

    def noised(self, index: Int64, words: Draw) -> Int64:
        """Noised indices; `index` is within the law's range, `words(draw)` has its shape."""


class Engine(Protocol):
    """Builds mechanisms at load. `guarantees` and `limits` are sentences that `contract check` prints."""

    name: str
    guarantees: str
    limits: str

    def number(self, law: NumberLaw) -> Mechanism:
        """Raises ContractError where it cannot keep the law."""

    def category(self, law: CategoryLaw) -> Mechanism:
        """Raises ContractError where it cannot keep the law."""


def engine(name: str) -> Engine:
    """The engine of that name; its library is imported here and nowhere else."""
    if name == "exact":
        from streams.privacy.engines.exact import Exact

        return Exact()
    if name == "diffprivlib":
        from streams.privacy.engines.diffprivlib import Diffprivlib

        return Diffprivlib()
    raise ContractError(f"There is no privacy engine {name!r}.", "Use exact or diffprivlib.")
