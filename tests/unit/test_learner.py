"""What a learner promises: it predicts before it learns, nothing comes back from the future, and a replay
is exact.
"""

from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.learner_streams import PUBLIC, Stream, same, small, states_differ
from trainers.learner import Learner
from trainers.spec import EXPERTS, Public
from trainers.windows import NEVER


def test_a_permuted_future_changes_no_past_forecast() -> None:
    stream = Stream(600, keys=3, seed=1)
    whole = stream.feed(Learner(small(), PUBLIC, 5))
    for cut in (1, 40, 300, 590):
        other = Stream(600, keys=3, seed=1)
        order = np.random.default_rng(cut).permutation(np.arange(cut, 600))
        other.values[cut:] = stream.values[order]
        changed = other.feed(Learner(small(), PUBLIC, 5))
        assert same(whole, changed, upto=cut)
        assert not same(whole, changed)


def test_no_input_of_a_forecast_knows_its_label() -> None:
    """Change one label only: the forecast issued for it, and its inputs, stay as they were."""
    stream = Stream(400, keys=1, seed=2)
    for at in (50, 200, 399):
        learners = Learner(small(), PUBLIC, 5), Learner(small(), PUBLIC, 5)
        stream.feed(learners[0], stop=at)
        stream.feed(learners[1], stop=at)
        label = stream.values[at : at + 1]
        first = learners[0].step(["key-0"], stream.slots[at : at + 1], label)
        second = learners[1].step(["key-0"], stream.slots[at : at + 1], 256 - label)
        assert first.issued_value.tobytes() == second.issued_value.tobytes()
        assert first.value[0] != second.value[0] or not first.scored[0]


def test_replay_from_state_is_bit_identical() -> None:
    stream = Stream(900, keys=4, seed=3)
    whole = Learner(small(), PUBLIC, 7)
    forecasts = stream.feed(whole)
    for cut in (0, 1, 5, 333, 899):
        first = Learner(small(), PUBLIC, 7)
        stream.feed(first, stop=cut)
        state = {name: array.copy() for name, array in first.state().items()}
        stream.feed(first, start=cut, stop=min(cut + 50, 900))  # goes on; must not write into the state
        second = Learner.from_state(small(), PUBLIC, state)
        rest = stream.feed(second, start=cut)
        assert rest.value.tobytes() == forecasts.value[cut:].tobytes()
        assert states_differ(second.state(), whole.state()) == []
        assert second.keys == whole.keys
    assert whole.mlp.rounds > 5


def test_state_is_numbers_only_and_owns_its_memory() -> None:
    learner = Learner(small(), PUBLIC, 7)
    Stream(100, keys=2, seed=3).feed(learner)
    state = learner.state()
    assert all(array.dtype.kind in "iuf" for array in state.values())
    before = learner.metrics()
    for array in state.values():
        array[...] = 0
    assert learner.metrics() == before
    assert states_differ(learner.state(), learner.state()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("rls.weights"),
        lambda s: s.update({"learner.public": np.array([0.0, 300.0])}),
        lambda s: s.update({"mlp.weight0": np.zeros((3, 3), np.float32)}),
        lambda s: s.update({"windows.values": np.zeros((2, 5))}),
        lambda s: s.update({"recent.x": np.zeros((4, 4), np.float32)}),
        lambda s: s.update({"learner.counts": np.array([99, 0, 0, 0, 0])}),
    ],
)
def test_a_state_of_another_task_is_refused_with_a_remedy(spoil) -> None:  # type: ignore[no-untyped-def]
    learner = Learner(small(), PUBLIC, 7)
    Stream(60, keys=2, seed=3).feed(learner)
    state = learner.state()
    spoil(state)
    with pytest.raises(ConfigurationError, match="does not fit task 'small'"):
        Learner.from_state(small(), PUBLIC, state)


def test_labels_meet_only_the_forecast_for_their_own_slot() -> None:
    learner = Learner(small(), PUBLIC, 1)
    slots = np.array([100, 101, 103, 104, 104, 102, 105], np.int64)
    out = learner.step(["k"] * 7, slots, np.array([10.0, 11, 12, 13, 99, 99, 14]))
    assert out.scored.tolist() == [False, True, False, True, False, False, True]
    assert out.learned.tolist() == [True, True, True, True, False, False, True]
    assert out.target.tolist() == [101, 102, 104, 105, 105, 105, 106]
    assert out.issued_value[1] == out.value[0]
    assert out.issued_quantiles[6].tobytes() == out.quantiles[3].tobytes()
    assert np.isnan(out.issued_value[~out.scored]).all()
    assert learner.late == 2  # a repeated and an older slot; neither is learned
    assert out.value[4] == out.value[5] == out.value[3]
    assert learner.metrics()["count"] == 3


def test_values_that_are_no_numbers_are_left_out() -> None:
    clean, dirty = Learner(small(), PUBLIC, 1), Learner(small(), PUBLIC, 1)
    out = dirty.step(["k"], np.array([99]), np.array([np.nan]))
    assert np.isnan(out.value[0])
    assert out.target[0] == NEVER + 1
    slots, values = np.array([100, 101, 102]), np.array([5.0, 6.0, 7.0])
    clean.step(["k"] * 3, slots, values)
    dirty.step(["k"] * 3, slots, np.array([5.0, 6.0, np.inf]))
    again = dirty.step(["k"], np.array([102]), np.array([7.0]))
    assert again.scored[0]
    assert dirty.late == 2
    np.testing.assert_array_equal(clean.contexts()["values"], dirty.contexts()["values"])


def test_forecasts_stay_within_what_can_be_shared_and_quantiles_never_fall() -> None:
    public = Public(0.0, 40.0)
    learner = Learner(small(), public, 1)
    rng = np.random.default_rng(0)
    values = rng.choice([0.0, 40.0], 500)
    out = learner.step(["k"] * 500, np.arange(1000, 1500), values)
    assert (out.value >= 0).all()
    assert (out.value <= 40).all()
    assert (np.diff(out.quantiles, axis=1) >= 0).all()
    assert (out.quantiles >= 0).all()
    assert (out.quantiles <= 40).all()
    assert out.quantiles[:, 1].tobytes() == out.value.tobytes()


@pytest.mark.parametrize(("low", "high", "value"), [(0.0, 7.3, 7.3), (-40.0, 60.0, -40.0), (-1.1, 2.3, 2.3)])
def test_a_stream_that_sits_on_a_bound_gives_no_falling_quantiles(
    low: float, high: float, value: float
) -> None:
    learner = Learner(small(), Public(low, high), 1)
    out = learner.step(["k"] * 900, np.arange(405_000, 405_900), np.full(900, value))
    assert (np.diff(out.quantiles, axis=1) >= 0).all()
    assert ((out.value >= low) & (out.value <= high)).all()


def test_a_constant_stream_and_a_huge_jump_stay_finite() -> None:
    learner = Learner(small(), PUBLIC, 1)
    slots = np.arange(6200, 7000)
    out = learner.step(["k"] * 800, slots, np.full(800, 42.0))
    assert out.value[-1] == pytest.approx(42.0, abs=0.01)
    assert out.quantiles[-1, 2] - out.quantiles[-1, 0] < 1
    far = learner.step(["k"] * 3, np.array([7000, 2**61, 2**61 + 1]), np.array([256.0, 0.0, 256.0]))
    assert np.isfinite(far.quantiles).all()
    assert all(np.isfinite(learner.rls[name][:1]).all() for name in ("weights", "covariance"))


def test_metrics_are_the_errors_of_the_issued_forecasts() -> None:
    stream = Stream(300, keys=2, seed=4)
    learner = Learner(small(), PUBLIC, 1)
    assert learner.metrics()["count"] == 0
    assert np.isnan(learner.metrics()["mae"])
    out = stream.feed(learner)
    kept = np.flatnonzero(out.scored)[-50:]
    found = learner.metrics(50)
    assert found["count"] == 50
    errors = np.abs(out.issued_value[kept] - stream.values[kept])
    assert found["mae"] == pytest.approx(errors.mean(), rel=1e-5)
    for column, name in enumerate(EXPERTS):
        errors = np.abs(out.issued_experts[kept, column] - stream.values[kept])
        assert found[f"mae_{name}"] == pytest.approx(errors.mean(), rel=1e-5)
    inside = (stream.values[kept] >= out.issued_quantiles[kept, 0]) & (
        stream.values[kept] <= out.issued_quantiles[kept, 2]
    )
    assert found["coverage"] == pytest.approx(inside.mean(), abs=0.021)  # the ring keeps bounds as float32


def test_persistence_in_the_metrics_is_the_last_shared_value() -> None:
    learner = Learner(small(), PUBLIC, 1)
    learner.step(["k"] * 4, np.array([10, 11, 12, 14]), np.array([1.0, 4.0, 9.0, 100.0]))
    assert learner.metrics()["mae_persistence"] == pytest.approx((3 + 5) / 2)


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 keys, 1 slots, 1 values"):
        Learner(small(), PUBLIC, 1).step(["a", "b"], np.array([1]), np.array([1.0]))


def test_an_empty_batch_is_no_event() -> None:
    learner = Learner(small(), PUBLIC, 1)
    assert len(learner.step([], np.array([], np.int64), np.array([])).value) == 0
    assert learner.events == 0


def test_it_learns_what_there_is_to_learn() -> None:
    """A daily wave with little noise: far better than persistence and seasonal-naive, and no worse than
    its experts.
    """
    rng = np.random.default_rng(0)
    slots = np.arange(400_000, 401_500)
    wave = 120 + 80 * np.sin(2 * np.pi * slots / 24) + rng.normal(0, 5, 1500)
    learner = Learner(small(), PUBLIC, 1)
    learner.step(["k"] * 1500, slots, wave)
    found = learner.metrics(200)
    assert found["mae"] < 0.4 * found["mae_persistence"]
    assert found["mae"] < 0.9 * found["mae_seasonal_naive"]
    assert found["mae"] < 1.02 * min(found[f"mae_{name}"] for name in EXPERTS)
    assert 0.8 < found["coverage"] < 0.98
