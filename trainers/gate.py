"""The gate before a release: publish only what is not worse than seasonal-naive and than the champion.

Pure. All errors are on shared (noised) labels of one recent window, because a trainer has no others: the
noise adds the same amount to everybody's error, so the order stays right while the levels are too high.

Every comparison is made on the same labels, one by one: a window of other keys or other hours is another
task. Two questions, since either can go wrong alone. Is the *learner* good: its own forecasts, issued before each
label came, against seasonal-naive, and against the frozen champion on the labels since its release? Is the
*artefact* good: the very graph that would be published, run over the window? It has learned those labels (the
seasonal-naive expert holds them as they are), so this figure is no measure of skill; it finds graphs that do not
do what the learner does: a broken export, damaged weights. The champion has learned part of the window too,
which is why the learner meets it on the newer labels only: a frozen model on labels that it knows would beat
every honest forecast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.02  # of the other's MAE; over one day of 5-minute counts two equal models differ by about 1 %
LEAST = 48  # labels; below this the window says nothing and nothing is published


@dataclass(frozen=True, slots=True)
class Known:
    """MAE of the candidate's graph and of the champion's over the `count` labels of keys that both know."""

    count: int
    artefact: float
    champion: float


@dataclass(frozen=True, slots=True)
class Fresh:
    """MAE of learner and champion over those `count` of them that came after the champion's release."""

    count: int
    learner: float
    champion: float


@dataclass(frozen=True, slots=True)
class Scores:
    """MAE of each over the same `count` labels. `known` and `fresh` are None before the first release."""

    count: int
    learner: float
    artefact: float
    seasonal_naive: float
    known: Known | None = None
    fresh: Fresh | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`publish`, and why: one sentence per test, passed or failed, in a fixed order."""

    publish: bool
    reasons: tuple[str, ...]


def judge(scores: Scores, tolerance: float = TOLERANCE, least: int = LEAST) -> Verdict:
    """Publish iff learner and artefact are finite and at most `tolerance` worse than their rivals.

    With fewer than `least` labels nothing is published. A comparison with the champion on fewer than `least`
    is left out: right after its release there are few newer ones, and where all its keys have gone silent there
    are none at all, and never again.
    """
    if scores.count < least:
        return Verdict(False, (f"refused: {scores.count} labels in the window, {least} needed",))
    pairs = [
        ("learner", scores.learner, "seasonal-naive", scores.seasonal_naive),
        ("artefact", scores.artefact, "seasonal-naive", scores.seasonal_naive),
    ]
    if scores.known is not None and scores.known.count >= least:
        pairs.append(("artefact", scores.known.artefact, "the champion", scores.known.champion))
    if scores.fresh is not None and scores.fresh.count >= least:
        newer = f"the champion on {scores.fresh.count} newer labels"
        pairs.append(("learner", scores.fresh.learner, newer, scores.fresh.champion))
    tests = [_test(*pair, tolerance) for pair in pairs]
    return Verdict(all(passed for passed, _ in tests), tuple(reason for _, reason in tests))


def mae(forecasts: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Mean absolute error of float64[N] forecasts; NaN where any of them is not a number, or N is 0."""
    return float(np.abs(forecasts - labels).mean()) if len(labels) else math.nan


def _test(name: str, own: float, rival: str, other: float, tolerance: float) -> tuple[bool, str]:
    if not math.isfinite(own):
        return False, f"refused: {name} gives no finite error, against {rival}"
    if not math.isfinite(other):  # a rival that is not a number beats nobody
        return True, f"passed: {name} MAE {own:.4f}, {rival} gives no finite error"
    passed = own <= other * (1 + tolerance)
    word, sign = ("passed", "<=") if passed else ("refused", ">")
    return passed, f"{word}: {name} MAE {own:.4f} {sign} {rival} {other:.4f} + {tolerance:.1%}"
