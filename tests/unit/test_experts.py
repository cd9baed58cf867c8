"""RLS, seasonal-naive, mixture and intervals, each against what defines it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.learner_streams import small
from trainers.conformal import Conformal
from trainers.experts.rls import Rls
from trainers.experts.seasonal import SeasonalNaive
from trainers.mixture import Mixture
from trainers.seasons import Seasons
from trainers.spec import Autoregression
from trainers.spec import Mixture as MixtureSpec

ROW = np.array([0])


def test_rls_is_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    spec = Autoregression(forget=0.99, prior=50.0)
    rls = Rls(spec, 4)
    rls.grow(3)
    x, y = rng.normal(size=(80, 4)), rng.normal(size=80)
    for inputs, target in zip(x, y, strict=True):
        rls.learn(np.array([1]), inputs[None], np.array([target]))
    weight = 0.99 ** np.arange(79, -1, -1)
    normal = (x * weight[:, None]).T @ x + np.eye(4) * 0.99**80 / 50
    np.testing.assert_allclose(
        rls["weights"][1], np.linalg.solve(normal, (x * weight[:, None]).T @ y), rtol=1e-8
    )
    assert not rls["weights"][[0, 2]].any()  # the neighbours learned nothing
    assert (rls["covariance"][1] == rls["covariance"][1].T).all()


def test_rls_forgetting_does_not_blow_up_without_data() -> None:
    rls = Rls(Autoregression(forget=0.9, limit=1e4), 3)
    rls.grow(1)
    for _ in range(5000):  # one direction is never excited
        rls.learn(ROW, np.array([[1.0, 0.0, 0.0]]), np.array([1.0]))
    assert np.isfinite(rls["covariance"][0]).all()
    assert np.trace(rls["covariance"][0]) < 2e4


def test_seasonal_naive_takes_the_week_then_the_day_then_the_last_value() -> None:
    seasonal = SeasonalNaive(Seasons.of(small(zone="UTC")))
    seasonal.grow(1)

    def forecast(slot: int) -> float:
        return float(seasonal.predict(ROW, np.array([slot]), np.array([7.0]))[0])

    assert forecast(1000) == 7
    seasonal.learn(ROW, np.array([1000 - 168]), np.array([1.0]))
    assert forecast(1000) == 1
    assert forecast(1024) == 1
    seasonal.learn(ROW, np.array([1000]), np.array([2.0]))
    assert forecast(1024) == 2
    assert forecast(1168) == 2
    assert forecast(1001) == 7


def test_mixture_follows_the_better_expert_and_comes_back() -> None:
    mixture = Mixture(MixtureSpec(discount=0.98), 2)
    mixture.grow(1)
    np.testing.assert_allclose(mixture.weights(ROW), [[0.5, 0.5]])
    for _ in range(300):
        mixture.learn(ROW, np.array([[0.1, 1.0]]))
    assert mixture.weights(ROW)[0, 0] > 0.95
    for _ in range(300):
        mixture.learn(ROW, np.array([[1.0, 0.1]]))
    assert mixture.weights(ROW)[0, 1] > 0.95
    assert mixture.weights(ROW).sum() == pytest.approx(1)


def test_a_new_key_starts_with_the_average_weights() -> None:
    mixture = Mixture(MixtureSpec(), 2)
    mixture.grow(1)
    for _ in range(200):
        mixture.learn(ROW, np.array([[0.2, 0.4]]))
    mixture.settle(1)
    mixture.grow(2)
    new = mixture.weights(np.array([1]))
    np.testing.assert_allclose(new, [[256 / 257, 1 / 257]], rtol=1e-6)


def test_an_expert_that_is_never_wrong_gets_all() -> None:
    mixture = Mixture(MixtureSpec(prior=1e-9), 2)
    mixture.grow(1)
    for _ in range(10):
        mixture.learn(ROW, np.array([[0.0, 1.0]]))
    assert mixture.weights(ROW)[0, 0] == pytest.approx(1)
    assert np.isfinite(mixture.weights(ROW)).all()


@pytest.mark.parametrize("law", ["normal", "skewed", "drifting"])
def test_bounds_keep_their_levels_under_any_law(law: str) -> None:
    """The identity behind the promise: misses / steps = level - travel of the bound / (rate * steps)."""
    rng, steps = np.random.default_rng(0), 8000
    conformal = Conformal(small())
    conformal.grow(1)
    errors = rng.normal(size=steps)
    if law == "skewed":
        errors = np.exp(errors) - 1
    elif law == "drifting":
        errors *= np.linspace(0.5, 3, steps)
    start, rate = conformal["bounds"][0].copy(), small().intervals.rate
    missed = np.zeros((steps, 2))
    for step, error in enumerate(errors):
        missed[step] = error < conformal["bounds"][0]
        conformal.learn(ROW, np.array([error]))
    travel = conformal["bounds"][0] - start
    np.testing.assert_allclose(missed.mean(axis=0), [0.05, 0.95] - travel / (rate * steps), atol=1e-9)
    assert np.abs(travel).max() < 5
    if law != "drifting":
        np.testing.assert_allclose(missed[steps // 2 :].mean(axis=0), [0.05, 0.95], atol=0.01)


def test_quantiles_hold_the_point_and_the_bounds() -> None:
    conformal = Conformal(small())
    conformal.grow(1)
    conformal["bounds"][0] = [0.5, -0.5]  # wrong signs, as after a long one-sided stretch
    assert conformal.quantiles(ROW, np.array([5.0]), np.array([2.0]), 0, 10).tolist() == [[5, 5, 5]]
    conformal["bounds"][0] = [-4, 4]
    assert conformal.quantiles(ROW, np.array([5.0]), np.array([2.0]), 0, 10).tolist() == [[0, 5, 10]]
