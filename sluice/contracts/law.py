"""How strong the noise of one field is, in the field's own unit: from the masses of the deployed law, no
estimate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from schemas.rules import Category, Count, Number


@dataclass(frozen=True, slots=True)
class Strength:
    """Of a numeric field. `bias`: mean of what is shared minus the truth, at the lower bound, the middle
    and the upper bound. `on_bounds`: share of outputs that lie on a bound, for the same three. `spread`:
    standard deviation of the noise before clipping.
    """

    spread: float
    bias: tuple[float, float, float]
    on_bounds: tuple[float, float, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def strength(rule: Count | Number) -> Strength:
    """From the clamped discrete Laplace law with R + margin; another engine's law differs in the last
    digits."""
    from streams.privacy.masses import TOTAL, Masses

    reach = rule.range + rule.margin
    weights = np.array([float(w) for w in Masses.of(reach, rule.sensitivity, rule.nano_epsilon).weights()])
    weights /= float(TOTAL)
    z = np.arange(-reach, reach + 1)
    bias, on_bounds = [], []
    for value in (0, rule.range // 2, rule.range):
        out = np.clip(value + z, -rule.margin, reach)
        bias.append(float(weights @ out - value) * float(rule.step))
        on_bounds.append(float(weights[(out == -rule.margin) | (out == reach)].sum()))
    spread = float(np.sqrt(weights @ (z.astype(float) ** 2))) * float(rule.step)
    low, middle, high = bias
    at_low, at_middle, at_high = on_bounds
    return Strength(spread, (low, middle, high), (at_low, at_middle, at_high))


def kept(rule: Category) -> float:
    """Chance that randomized response shares the true member."""
    odds = float(np.exp(rule.nano_epsilon * 1e-9))
    return odds / (odds + len(rule.members) - 1)
