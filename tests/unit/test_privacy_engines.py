"""Every engine keeps the same rules: on the grid, replay-stable, dependent on unit, slot, field and value."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from schemas.errors import ContractError
from streams.privacy.engines import CategoryLaw, Engine, NumberLaw, engine
from streams.privacy.keys import KeyChain
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.privacy.prf import Prf
from streams.sharing import share
from tests.privacy_cases import DAY_MS, EPOCH, ROOT, START_MS, chain, contract, raw

ENGINES = ["exact", "diffprivlib"]
RULES = """
    person: pseudonym
    at: {time: 1min}
    place: public
    steps: {count: {min: 0, max: 20, per_unit: 20}}
    twice: {count: {min: 0, max: 20, per_unit: 20}}
    mood: {category: {members: [good], other: bad}}
"""
FIELDS = """
    person: {type: string}
    at: {type: timestamp}
    place: {type: string}
    steps: {type: int}
    twice: {type: int}
    mood: {type: string}
"""


def words(n: int, draw: int) -> np.ndarray:
    return np.random.default_rng([7, draw]).integers(0, 2**63, n)


@pytest.fixture(params=ENGINES)
def noise(request: pytest.FixtureRequest) -> Engine:
    return engine(request.param)


def test_numbers_stay_on_the_grid_and_follow_the_law(noise: Engine) -> None:
    n, law = 20_000, NumberLaw(30, 3, 10**9)
    index = np.tile(np.arange(31), n // 31 + 1)[:n]
    mechanism = noise.number(law)
    out = mechanism.noised(index, lambda draw: words(n, draw))
    assert out.dtype == np.int64
    assert (out.min(), out.max()) == (0, 30)
    assert (out == mechanism.noised(index, lambda draw: words(n, draw))).all()
    inner = np.abs(index - 15) < 3
    ratio = np.count_nonzero((out - index)[inner] == 0) / np.count_nonzero((out - index)[inner] == 3)
    assert 2.0 < ratio < 3.6  # e, three steps on: one sensitivity


def test_wide_numbers(noise: Engine) -> None:
    mechanism = noise.number(NumberLaw(4, 4, 10**9, 16))
    out = mechanism.noised(np.zeros(5_000, np.int64), lambda draw: words(5_000, draw))
    assert out.min() == -16
    assert 15 <= out.max() <= 20
    assert abs(float(out.mean())) < 0.6


def test_two_members(noise: Engine) -> None:
    index = np.array([0, 1] * 10_000)
    out = noise.category(CategoryLaw(2, 10**9)).noised(index, lambda draw: words(20_000, draw))
    assert set(out.tolist()) == {0, 1}
    assert abs(float((out == index).mean()) - 0.7311) < 0.01


def test_every_engine_says_what_it_keeps(noise: Engine) -> None:
    assert noise.guarantees.endswith(".")
    assert noise.limits.endswith(".")
    assert noise.number(NumberLaw(4, 4, 10**9)).facts["nano_epsilon"] == 10**9


def test_diffprivlib_limits() -> None:
    with pytest.raises(ContractError, match="two members"):
        engine("diffprivlib").category(CategoryLaw(3, 10**9))
    with pytest.raises(ContractError, match="no privacy engine"):
        engine("opendp")


def test_the_one_word_that_breaks_a_logarithm() -> None:
    """random() = 1/2 exactly would be log(0): the next word is drawn instead."""
    half = np.array([1 << 62])
    mechanism = engine("diffprivlib").number(NumberLaw(20, 1, 10**9))
    out = mechanism.noised(np.array([5]), lambda draw: half if draw == 0 else np.array([1 << 61]))
    assert 0 <= int(out[0]) <= 20
    extremes = np.array([0, 2**63 - 1, (1 << 62) + 1024, (1 << 62) - 1])
    out = mechanism.noised(np.full(4, 5), lambda _: extremes)
    assert ((out >= 0) & (out <= 20)).all()


def test_diffprivlib_is_loaded_only_when_used() -> None:
    code = (
        "import sys; from schemas.contract import load; from streams.privacy.plan import Plan; import streams.sharing;"
        "Plan.of(load('traffic.detector-counts')); assert 'diffprivlib' not in sys.modules, 1;"
        "Plan.of(load('traffic.detector-counts-diffprivlib')); assert 'diffprivlib' in sys.modules, 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Deaf(Prf):
    """A PRF that does not hear one part of its block."""

    part = "slot"

    def first_pass(self, tags: np.ndarray) -> np.ndarray:
        return super().first_pass(np.zeros_like(tags) if self.part == "tag" else tags)

    def words(
        self, first: np.ndarray, slots: np.ndarray, values: np.ndarray, field: int, draw: int
    ) -> np.ndarray:
        return super().words(
            first,
            np.zeros_like(slots) if self.part == "slot" else slots,
            np.zeros_like(values) if self.part == "value" else values,
            0 if self.part == "field" else field,
            draw,
        )


class DeafChain(KeyChain):
    part = "none"

    def prf(self, topic: str, major: int, epoch: int, c_digest: bytes) -> Prf:
        prf = Deaf(self.noise_key(topic, major, epoch, c_digest))
        prf.part = self.part
        return prf


def check_noise_is_fresh(part: str, name: str) -> None:
    """No part of an event's identity may leave the noise as it was."""
    of = contract(
        rules=RULES, fields=FIELDS, more=f"engine: {name}", held="{max: 1, of: [at], held_by: ledger}"
    )
    plan, keys = Plan.of(of), DeafChain.of_root(chain().population, DAY_MS, 0, EPOCH, ROOT)
    keys.part = part

    def shared(person: str = "p", minute: int = 0, steps: int = 10, day: int = 0) -> list[tuple[int, int]]:
        rows = [
            {
                "person": f"{person}{i}",
                "at": START_MS + day * DAY_MS + minute * 60_000,
                "steps": steps,
                "twice": steps,
            }
            for i in range(100)
        ]
        out = share(raw(of, rows), plan, keys, Ledger()).shared
        pairs = zip(out.column("steps").to_pylist(), out.column("twice").to_pylist(), strict=True)
        return [(a - steps, b - steps) for a, b in pairs]

    base = shared()
    assert shared() == base
    for other in (shared("q"), shared(minute=1), shared(day=1)):
        assert other != base
    # Clamping changes a difference too: compare where neither value nor bound hides the word.
    moved = shared(steps=11)
    free = [(a, b) for a, b in zip(base, moved, strict=True) if max(map(abs, (*a, *b))) < 8]
    assert any(a != b for a, b in free)
    assert any(a != b for a, b in base)


@pytest.mark.parametrize("name", ENGINES)
def test_noise_is_fresh(name: str) -> None:
    check_noise_is_fresh("none", name)


@pytest.mark.parametrize("part", ["slot", "value", "field", "tag"])
def test_a_prf_that_forgets_a_part_is_caught(part: str) -> None:
    with pytest.raises(AssertionError):
        check_noise_is_fresh(part, "exact")
