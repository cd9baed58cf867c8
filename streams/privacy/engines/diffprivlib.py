"""diffprivlib as an engine: GeometricTruncated and Binary on the integer grid, replay-stable.

Its float mechanisms are never used: they fall to a precision attack and take NaN. The mechanisms get their
randomness from a `secrets.SystemRandom` whose words come from our keyed noise, so a replay gives the same
bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from diffprivlib.mechanisms import Binary, GeometricTruncated

from schemas.errors import ContractError
from streams.privacy.engines import CategoryLaw, Draw, Facts, Int64, NumberLaw

HALF = 1 << 52  # of 2^53: the one uniform for which GeometricTruncated takes the logarithm of 0


class KeyedRandom(secrets.SystemRandom):
    """Uniforms from given 63-bit words, one row at a time; diffprivlib takes it as `random_state`."""

    def __init__(self) -> None:
        super().__init__()
        self._words: Iterator[int] = iter(())

    def begin(self, words: Iterator[int]) -> None:
        """The words of the next value, as many as it asks for."""
        self._words = words

    def random(self) -> float:
        """In [0, 1), 53 bits, never exactly one half."""
        while True:
            top = next(self._words) >> 10
            if top != HALF:
                return top * 2.0**-53

    def getrandbits(self, k: int, /) -> int:
        got = 0
        for _ in range(-(-k // 63)):
            got = got << 63 | next(self._words)
        return got >> (-k % 63)


@dataclass(frozen=True, slots=True)
class _Keyed:
    """Calls one mechanism row by row: about 17 us a value."""

    facts: Facts
    mechanism: Any = field(repr=False)
    random: KeyedRandom = field(repr=False)
    inward: Any = int
    outward: Any = int

    def noised(self, index: Int64, words: Draw) -> Int64:
        draws = [words(0)]

        def row(i: int) -> Iterator[int]:
            draw = 0
            while True:
                if draw == len(draws):
                    draws.append(words(draw))
                yield int(draws[draw][i])
                draw += 1

        out = np.empty_like(index)
        for i, value in enumerate(index.tolist()):
            self.random.begin(row(i))
            out[i] = self.outward(self.mechanism.randomise(self.inward(value)))
        return out


class Diffprivlib:
    """IBM's library; epsilon as it claims it, not proved by us."""

    name = "diffprivlib"
    guarantees = (
        "Noise by diffprivlib's GeometricTruncated and Binary on the public grid, with keyed randomness: the "
        "same record gives the same bytes at every replay, and the ledger shares each slot once."
    )
    limits = (
        "Epsilon is what diffprivlib claims in real arithmetic and is not proved at load: it computes in "
        "doubles from 53-bit uniforms, so an outcome less likely than 2^-53 never occurs, and where epsilon "
        "x range / sensitivity exceeds 36 some outcome rules a value out (an infinite loss, with a chance "
        "below 2^-52). Categories have two members. A value takes 17 us, with `exact`, which is proved, 0.02."
    )

    def number(self, law: NumberLaw) -> _Keyed:
        random = KeyedRandom()
        mechanism = GeometricTruncated(
            epsilon=law.nano_epsilon * 1e-9,
            sensitivity=law.sensitivity,
            lower=-law.margin,
            upper=law.range + law.margin,
            random_state=random,
        )
        facts: Facts = {
            "mechanism": "geometric-truncated",
            "nano_epsilon": law.nano_epsilon,
            "range": law.range,
            "sensitivity": law.sensitivity,
            "margin": law.margin,
            "library": f"diffprivlib {version('diffprivlib')}",
        }
        return _Keyed(facts, mechanism, random)

    def category(self, law: CategoryLaw) -> _Keyed:
        if law.members != 2:
            raise ContractError(
                f"The engine diffprivlib noises categories of two members, not of {law.members}.",
                "Use engine: exact.",
            )
        random = KeyedRandom()
        mechanism = Binary(epsilon=law.nano_epsilon * 1e-9, value0="0", value1="1", random_state=random)
        facts: Facts = {
            "mechanism": "binary",
            "nano_epsilon": law.nano_epsilon,
            "size": 2,
            "library": f"diffprivlib {version('diffprivlib')}",
        }
        return _Keyed(facts, mechanism, random, inward=str, outward=int)
