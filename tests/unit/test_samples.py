"""Windows, profile and inputs against plain dictionaries and loops."""

from __future__ import annotations

import numpy as np
import pytest

from tests.learner_streams import PUBLIC, Stream, small
from trainers.learner import Learner
from trainers.samples import EXTRA, Sampler
from trainers.seasons import Seasons
from trainers.windows import Windows


def test_windows_hold_the_last_slots_and_yield_each_value_once_in_order() -> None:
    rng = np.random.default_rng(0)
    windows = Windows(6, 4)
    windows.grow(2)
    seen: dict[tuple[int, int], float] = {}
    gone: list[tuple[int, int, float]] = []
    at = np.array([50, 60])
    for _ in range(300):
        rows = np.flatnonzero(rng.random(2) < 0.7)
        at[rows] += rng.choice([1, 1, 1, 3, 25], len(rows))
        values = rng.normal(size=len(rows))
        for parts in windows.push(rows, at[rows], values):
            gone += list(zip(parts.rows.tolist(), parts.slots.tolist(), parts.values.tolist(), strict=True))
        seen |= {(int(r), int(at[r])): float(v) for r, v in zip(rows, values, strict=True)}
        for row in rows.tolist():
            expected = [seen.get((row, int(at[row]) - age), np.nan) for age in range(9, -1, -1)]
            np.testing.assert_array_equal(windows["values"][row], expected)
    held = {(r, int(at[r]) - age) for r in range(2) for age in range(10)} & seen.keys()
    assert {(r, s): v for r, s, v in gone} == {place: v for place, v in seen.items() if place not in held}
    assert len(gone) == len({(r, s) for r, s, _ in gone})
    for row in range(2):
        slots = [s for r, s, _ in gone if r == row]
        assert slots == sorted(slots)


def test_contexts_of_the_past_are_what_contexts_were() -> None:
    windows = Windows(5, 4)
    windows.grow(1)
    row, then = np.array([0]), {}
    for slot in range(100, 130):
        list(windows.push(row, np.array([slot]), np.array([slot * 1.0])))
        then[slot] = windows.contexts(row)
    for back in range(5):
        np.testing.assert_array_equal(windows.contexts(row, back), then[129 - back])


def test_a_value_enters_the_profile_only_after_it_left_the_window() -> None:
    stream = Stream(500, keys=1, seed=1)
    learners = Learner(small(), PUBLIC, 1), Learner(small(), PUBLIC, 1)
    at = 300
    stream.feed(learners[0], stop=at)
    stream.values[at - 1] = 0.0 if stream.values[at - 1] > 100 else 256.0
    stream.feed(learners[1], stop=at)
    tables = ("day", "week", "day_mean", "week_mean")
    for number in range(at, len(stream)):
        length = learners[0].windows.length
        inside = learners[0].windows["slot"][0] - stream.slots[at - 1] < length
        equal = all(
            learners[0].profile[name].tobytes() == learners[1].profile[name].tobytes() for name in tables
        )
        assert equal == inside
        for learner in learners:
            stream.feed(learner, start=number, stop=number + 1)
        if not inside:
            break
    else:
        pytest.fail("it never left")


def test_inputs_equal_the_formulas_written_as_loops() -> None:
    spec = small()
    learner = Learner(spec, PUBLIC, 1)
    stream = Stream(700, keys=3, seed=6)
    stream.feed(learner)
    seasons, unit, lags = learner.seasons, PUBLIC.unit, spec.autoregression.lags
    rows = np.arange(3)
    contexts, slots = learner.windows.contexts(rows), learner.windows["slot"][rows]
    found = learner.sampler.inputs(learner.profile, rows, contexts, slots)
    assert found.x.shape == (3, lags + 2 + EXTRA)
    for row in range(3):
        values, last = contexts[row], int(slots[row])
        level = np.nanmean(values)

        def usual(slot: int, row: int = row, level: float = level) -> float:
            there = float(learner.profile["day"][row, seasons.day(np.array([slot]))[0]])
            return level if np.isnan(there) else there

        def weekday(slot: int, row: int = row) -> float:
            return float(learner.profile["week"][row, seasons.week(np.array([slot]))[0]])

        ages = range(spec.context)
        deviation = [values[-1 - age] - usual(last - age) for age in ages]
        expected = [0.0 if np.isnan(deviation[age]) else deviation[age] for age in range(lags)]
        for half in spec.autoregression.half_lives:
            kept = [(0.5 ** (age / half), deviation[age]) for age in ages if not np.isnan(deviation[age])]
            expected.append(sum(w * d for w, d in kept) / sum(w for w, _ in kept))
        base = usual(last + 1)
        expected += [weekday(last + 1), weekday(last), base - usual(last), base - usual(last - 1), base / 8]
        angle = 2 * np.pi * seasons.day(np.array([last + 1]))[0] / 24
        clock = [np.sin(angle) / 4, np.cos(angle) / 4, np.sin(2 * angle) / 4, np.cos(2 * angle) / 4]
        np.testing.assert_allclose(found.x[row], [*(np.array(expected) / unit), *clock, 0.5], atol=1e-12)
        assert found.base[row] == base


def test_inputs_are_of_order_one_for_any_bounds() -> None:
    """Scaled by public bounds alone: a stream at twice the range, with twice the bounds, has the same
    inputs.
    """
    from trainers.spec import Public

    stream = Stream(400, keys=1, seed=6)
    one, two = Learner(small(), Public(0, 256), 1), Learner(small(), Public(0, 512), 1)
    stream.feed(one)
    stream.values *= 2
    stream.feed(two)
    np.testing.assert_allclose(one.standing["x"][0], two.standing["x"][0], atol=1e-6)
    assert np.abs(one.standing["x"][0]).max() < 10


def test_before_any_profile_deviations_are_from_the_windows_mean() -> None:
    spec = small()
    sampler, learner = Sampler(spec, PUBLIC, Seasons.of(spec)), Learner(spec, PUBLIC, 1)
    learner.step(["k"] * 3, np.array([10, 11, 12]), np.array([10.0, 20.0, 60.0]))
    found = sampler.inputs(
        learner.profile, np.array([0]), learner.windows.contexts(np.array([0])), np.array([12])
    )
    assert found.base[0] == 30
    np.testing.assert_allclose(found.x[0, :5] * PUBLIC.unit, [30, -10, -20, 0, 0])
