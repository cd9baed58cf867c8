"""Owner-side scores against the truth. Only an owner has it: nothing here feeds a trainer, a gate or a metric.

Protocol: a forecast counts once, for the slot it was issued for, if that slot is at or after `first_slot` and
the truth of it and of the slot before is known; errors are absolute, in the target's unit, averaged over all
counted forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sluice.reconcile import Place, source_rows

if TYPE_CHECKING:
    from schemas.contract import Contract
    from trainers.serving import Model
    from trainers.spec import TaskSpec

Truth = Mapping[Place, float]


@dataclass(frozen=True, slots=True)
class Issued:
    """One forecast as the trainer issued it: made after `target - 1`, before `target` was seen."""

    key: str
    target: int
    value: float
    low: float
    high: float
    experts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Mean absolute errors over `count` forecasts; `coverage` is the part of truths inside [low, high]."""

    count: int
    mae: float
    mae_persistence: float
    mae_experts: dict[str, float]
    coverage: float


def truth_of(contract: Contract, field: str) -> dict[Place, float]:
    """The source file's values of `field` by key and slot; cells that are no number are left out."""
    column = contract.event.fields[field].column or field
    found = {}
    for place, row in source_rows(contract):
        try:
            value = float(row[column])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            found[place] = value
    return found


def score(issued: Iterable[Issued], truth: Truth, names: Sequence[str], first_slot: int) -> Score:
    """Scores forecasts against the truth; persistence is scored on the same slots, from the truth itself."""
    counted = [one for one in issued if _counts(one.key, one.target, truth, first_slot)]
    labels = np.array([truth[one.key, one.target] for one in counted])
    before = np.array([truth[one.key, one.target - 1] for one in counted])
    values = np.array([one.value for one in counted])
    experts = np.array([one.experts for one in counted]).reshape(len(counted), len(names))
    inside = [one.low <= label <= one.high for one, label in zip(counted, labels.tolist(), strict=True)]
    return Score(
        count=len(counted),
        mae=_mae(values, labels),
        mae_persistence=_mae(before, labels),
        mae_experts={name: _mae(experts[:, i], labels) for i, name in enumerate(names)},
        coverage=float(np.mean(inside)) if inside else float("nan"),
    )


def score_frozen(
    model: Model, shared: Mapping[Place, float], truth: Truth, context: int, first_slot: int
) -> Score:
    """One release run over the shared values without any update; only its context of `context` slots moves."""
    issued: list[Issued] = []
    for row, key in enumerate(model.keys):
        slots = sorted(slot for known, slot in shared if known == key)
        series = np.full(slots[-1] - slots[0] + 1 + context, np.nan, np.float32)  # NaN: no value came
        for slot in slots:
            series[slot - slots[0] + context] = shared[key, slot]
        ends = np.array([slot for slot in slots if _counts(key, slot + 1, truth, first_slot)])
        windows = np.lib.stride_tricks.sliding_window_view(series, context)[ends - slots[0] + 1]
        feed: dict[str, NDArray[Any]] = {"row": np.full(len(ends), row), "slot": ends, "values": windows}
        values, quantiles, experts = model.graph.run(feed)
        issued += [
            Issued(key, int(end) + 1, float(value), float(bounds[0]), float(bounds[-1]), tuple(parts))
            for end, value, bounds, parts in zip(ends, values, quantiles, experts.tolist(), strict=True)
        ]
    return score(issued, truth, model.manifest.experts, first_slot)


def without_noise(
    spec: TaskSpec, bounds: tuple[float, float], truth: Truth, seed: int, first_slot: int
) -> Score:
    """The same learner, by the same code, fed with the truth: what the noise costs is the difference."""
    from trainers.learner import Learner
    from trainers.spec import EXPERTS, Public

    learner = Learner(spec, Public(*bounds), seed)
    places = sorted(truth, key=lambda place: (place[1], place[0]))
    keys = [key for key, _ in places]
    values = np.array([truth[place] for place in places])
    out = learner.step(keys, np.array([slot for _, slot in places]), values)
    issued = [
        Issued(key, int(target), float(value), float(bounds[0]), float(bounds[-1]), tuple(parts))
        for key, target, value, bounds, parts, learned in zip(
            keys, out.target, out.value, out.quantiles, out.experts.tolist(), out.learned, strict=True
        )
        if learned
    ]
    return score(issued, truth, EXPERTS, first_slot)


def _counts(key: str, target: int, truth: Truth, first_slot: int) -> bool:
    return target >= first_slot and (key, target) in truth and (key, target - 1) in truth


def _mae(forecasts: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    return float(np.abs(forecasts - labels).mean()) if len(labels) else float("nan")
