"""The loss of every table, exactly: against the reference builder, brute force in fractions, and weakened tables."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from schemas.errors import ContractError
from streams.privacy import response
from streams.privacy.alias import Alias
from streams.privacy.engines import CategoryLaw, NumberLaw
from streams.privacy.engines.exact import Exact, proved
from streams.privacy.masses import BITS, TOTAL, Masses, exp_bounds, holds

LOADED = [(150, 1, 10**9), (1024, 1, 2 * 10**9), (65_535, 1, 10**7), (256, 1, 5 * 10**8), (100, 100, 10**9)]


def reference(R: int, D: int, nano: int) -> tuple[list[int], int, int]:
    """docs/privacy.md, with its plain bisection."""
    one = 1 << BITS
    h = exp_bounds(nano)[1]
    with localcontext() as context:
        context.prec = 70
        first, low = [one], one
        for k in range(1, min(D, R)):
            low = min(low, max(h, int((Decimal(-nano * k) / (10**9 * D)).exp() * one) + 1))
            first.append(low)

    def grow(centre: int) -> tuple[list[int], int, int]:
        m = [-(-centre * f // one) for f in first]
        for k in range(len(m), R):
            m.append(-(-m[k - D] * h // one))
        fold = -(-sum(m[R - D :]) * h // (one - h))
        return m, fold, 2 * (sum(m) + fold) - m[0]

    a, b = 1, TOTAL
    while b - a > 1:
        c = (a + b) // 2
        a, b = (c, b) if grow(c)[2] <= TOTAL else (a, c)
    m, fold, total = grow(a)
    return m, fold + (TOTAL - total) // 2, fold - (total - TOTAL) // 2


def brute(masses: Masses, margin: int = 0) -> Fraction:
    """Largest ratio over all v, v', o of out = clip(v + z, -B, R + B), straight from the definition."""
    top = masses.R - margin
    law = dict(zip(range(-masses.R, masses.R + 1), masses.weights(), strict=True))
    chance: dict[int, dict[int, int]] = {}
    for v in range(top + 1):
        chance[v] = dict.fromkeys(range(-margin, masses.R + 1), 0)
        for z, mass in law.items():
            chance[v][min(max(v + z, -margin), masses.R)] += mass
    worst = Fraction(1)
    for v in range(top + 1):
        for w in range(max(0, v - masses.D), min(top, v + masses.D) + 1):
            for o, mass in chance[v].items():
                if mass:
                    assert chance[w][o], "an outcome that rules a value out"
                    worst = max(worst, Fraction(mass, chance[w][o]))
    return worst


def cases(count: int, largest: int) -> list[tuple[int, int, int]]:
    rng = random.Random(11)
    nanos = [1, 1000, 10**6, 10**8, 5 * 10**8, 10**9, 2 * 10**9, 10**10, 43 * 10**9, 10**11]
    found = []
    for _ in range(count):
        R = rng.randint(1, largest)
        found.append((R, rng.randint(1, R), rng.choice([*nanos, rng.randint(1, 4 * 10**9)])))
    return found


@pytest.mark.parametrize(("R", "D", "nano"), LOADED)
def test_loss_is_within_epsilon_exactly(R: int, D: int, nano: int) -> None:
    masses = Masses.of(R, D, nano)
    top, bottom = masses.worst()
    assert holds(top, bottom, nano)
    assert not holds(
        top * 10**6 + top * 3, bottom * 10**6, nano
    )  # and the bound is used to the last part in a million
    assert min(masses.half) > 0


def test_loss_equals_brute_force() -> None:
    for R, D, nano in cases(120, 14):
        masses = Masses.of(R, D, nano)
        assert brute(masses) == Fraction(*masses.worst())
        assert masses.loss_within(nano)


def test_wide_output_loses_no_more_than_its_table() -> None:
    for R, margin, D in [(5, 3, 1), (4, 8, 4), (7, 1, 3)]:
        masses = Masses.of(R + margin, D, 10**9)
        assert brute(masses, margin) <= Fraction(*masses.worst())


def test_builder_equals_the_reference() -> None:
    for R, D, nano in [*cases(60, 60), (1024, 1, 2 * 10**9)]:
        masses = Masses.of(R, D, nano)
        assert (list(masses.half), masses.left, masses.right) == reference(R, D, nano)


@pytest.mark.parametrize("change", ["ratio", "fold", "zero", "sum", "order"])
def test_a_weak_table_is_flagged(change: str) -> None:
    """Each mutation of a good table must be refused: none of them may ever be deployed."""
    flagged = 0
    for R, D, nano in cases(80, 30):
        good = Masses.of(R, D, nano)
        half = list(good.half)
        if change == "ratio":  # 5 % more epsilon than promised
            bad = Masses.of(R, D, nano + nano // 20 + 1)
        elif change == "fold":
            taken = good.right // 2
            bad = replace(good, right=good.right - taken, left=good.left + taken)
            if Fraction(*bad.worst()) == Fraction(*good.worst()):
                continue
        elif change == "zero":
            bad = replace(good, right=0, left=good.left + good.right)
        elif change == "sum":
            bad = replace(good, left=good.left + 1)
        else:
            if R < 2 or half[0] == half[-1]:
                continue
            bad = replace(good, half=(*half[1:], half[0]))
        if change == "ratio" and not 10**4 <= nano <= 10**10:
            continue  # 5 % of a few billionths is nothing; past e^43 no ratio of 63-bit masses can grow
        assert not bad.loss_within(nano), (R, D, nano)
        with pytest.raises(ContractError):
            proved(bad, nano)
        flagged += 1
    assert flagged >= 30


def test_rounding_to_nearest_would_die() -> None:
    """The counts contract with masses rounded to nearest: most are 0 and the loss is infinite."""
    weights = [round(TOTAL * float(np.tanh(0.5)) * float(np.exp(-k))) for k in range(150)]
    assert weights.count(0) > 100
    bad = Masses(150, 1, tuple(weights), 0, TOTAL - 2 * sum(weights) + weights[0])
    assert not bad.loss_within(10**9)


def test_exp_bounds_enclose() -> None:
    with localcontext() as context:
        context.prec = 120
        for nano in (1, 10**7, 5 * 10**8, 10**9, 7 * 10**9, 60 * 10**9):
            lo, hi, up_lo, up_hi = exp_bounds(nano)
            x = Decimal(nano) / 10**9
            assert lo <= (-x).exp() * 2**BITS <= hi
            assert up_lo <= x.exp() * 2**BITS <= up_hi
            assert hi - lo < 1 << 40


def test_alias_columns_give_the_masses() -> None:
    rng = random.Random(2)
    for size in [*range(2, 20), 301]:
        cuts = sorted(rng.randint(0, TOTAL) for _ in range(size - 1))
        weights = [b - a for a, b in zip([0, *cuts], [*cuts, TOTAL], strict=True)]
        assert Alias.of(weights).weights(size) == weights
    with pytest.raises(ValueError, match="2\\^63"):
        Alias.of([TOTAL - 2, 1])


def test_alias_sampling_follows_its_columns() -> None:
    alias = Alias.of(Masses.of(5, 2, 10**9).weights())
    size = 1 << alias.shift
    for cell in range(len(alias.threshold)):
        kept = int(alias.threshold[cell])
        edge = np.array([cell * size, cell * size + max(kept - 1, 0), cell * size + min(kept, size - 1)])
        found = alias.sample(edge.astype(np.int64))
        expected = [cell if int(u) % size < kept else int(alias.other[cell]) for u in edge]
        assert found.tolist() == expected


@pytest.mark.parametrize("k", [2, 3, 10, 1024])
@pytest.mark.parametrize("nano", [1, 10**7, 10**9, 3 * 10**9, 20 * 10**9])
def test_randomized_response(k: int, nano: int) -> None:
    steps = response.weights(k, nano)
    assert sum(steps) == TOTAL
    assert response.loss_within(steps, nano)
    weak = [steps[0] + (k - 1) * (steps[1] // 20), *[steps[1] - steps[1] // 20] * (k - 1)]
    assert nano < 10**8 or not response.loss_within(weak, nano)


def chi_square(observed: np.ndarray, weights: list[int]) -> tuple[float, int]:
    expected = np.array([w / TOTAL for w in weights]) * observed.sum()
    common = expected >= 8
    rest = expected[~common].sum()
    stat = float((((observed - expected) ** 2) / expected)[common].sum())
    if rest >= 8:
        stat += float((observed[~common].sum() - rest) ** 2 / rest)
    return stat, int(common.sum()) - 1 + int(rest >= 8)


def sampled(n: int, *, with_slot: bool = True) -> np.ndarray:
    from streams.privacy.prf import Prf

    prf = Prf(bytes(range(32)))
    tags = np.repeat(np.arange(n // 100, dtype=np.uint64), 100)
    first = prf.first_pass(np.stack([tags, tags], axis=1))
    slots = np.tile(np.arange(100), n // 100) if with_slot else np.zeros(n, np.int64)
    return prf.words(first, slots, np.full(n, 42), 1, 0)


@pytest.mark.parametrize(
    "weights",
    [Masses.of(150, 1, 10**9).weights(), Masses.of(20, 20, 10**9).weights(), response.weights(5, 10**9)],
    ids=["count", "reading", "category"],
)
def test_samples_follow_the_masses(weights: list[int]) -> None:
    """Chi-square with a fixed key: deterministic. Beyond 5 standard deviations something is wrong."""
    observed = np.bincount(Alias.of(weights).sample(sampled(200_000)), minlength=len(weights))
    stat, free = chi_square(observed, weights)
    assert abs(stat - free) < 5 * (2 * free) ** 0.5
    stuck = np.bincount(Alias.of(weights).sample(sampled(200_000, with_slot=False)), minlength=len(weights))
    stat, free = chi_square(stuck, weights)
    assert (
        stat - free > 5 * (2 * free) ** 0.5
    )  # a word without its slot repeats itself, and this test sees it


def test_mechanisms_stay_on_the_grid() -> None:
    index = np.arange(0, 21).repeat(500)
    top, bottom = np.full(len(index), TOTAL - 1), np.zeros(len(index), np.int64)
    for margin in (0, 80):
        mechanism = Exact().number(NumberLaw(20, 20, 10**9, margin))
        for words in (top, bottom, sampled(len(index) // 100 * 100)):
            out = mechanism.noised(index[: len(words)], lambda _, words=words: words)  # type: ignore[misc]
            assert out.min() >= -margin
            assert out.max() <= 20 + margin
    choice = Exact().category(CategoryLaw(3, 10**9))
    out = choice.noised(np.zeros(1000, np.int64), lambda _: sampled(1000))
    assert set(out.tolist()) == {0, 1, 2}


def test_what_has_no_table_is_refused() -> None:
    for law in (
        NumberLaw(65_536, 1, 10**9),
        NumberLaw(10, 11, 10**9),
        NumberLaw(10, 0, 10**9),
        NumberLaw(10, 1, 0),
    ):
        with pytest.raises(ContractError, match="No table"):
            Exact().number(law)
    with pytest.raises(ContractError, match="No randomized response"):
        Exact().category(CategoryLaw(1, 10**9))
