"""Task files and the public numbers of a contract."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from schemas.contract import load as load_contract
from schemas.errors import ConfigurationError
from trainers import spec
from trainers.spec import Public, load, parse

ROOT = Path(spec.__file__).parents[1]
SHORT = "task: t\ncontracts: [a.b]\ntarget: x\nstep: 5min\n"


def test_the_traffic_task_fits_its_contract() -> None:
    task = load(ROOT / "trainers" / "tasks" / "traffic.yaml")
    contract = load_contract(ROOT / "schemas" / "examples" / "traffic.detector-counts.yaml")
    public = Public.of([contract.public()], task.target)
    assert task.contracts == (contract.contract,)
    assert (public.lower, public.upper, public.unit) == (0, 256, 16)
    assert task.step_ms == contract.public()["time"]["grid_ms"]
    assert task.season == (288, 2016)
    rng = np.random.default_rng(0)  # the stated variance is that of the law: epsilon 0.5 a record
    noise = rng.geometric(1 - math.exp(-0.5), 200_000) - rng.geometric(1 - math.exp(-0.5), 200_000)
    assert public.noise_variance == pytest.approx(noise.var(), rel=0.02)


def test_several_contracts_give_the_widest_bounds() -> None:
    def part(low: float, high: float, nano: int) -> dict[str, object]:
        law = {"nano_epsilon": nano, "sensitivity": 2, "step": "0.5"}
        return {
            "contract": "a",
            "fields": {"x": {"bounds": [low, high], "law": law}, "k": {"rule": "public"}},
        }

    public = Public.of([part(0, 10, 10**9), part(-5, 8, 2 * 10**9)], "x")
    assert (public.lower, public.upper) == (-5, 10)
    alpha = math.exp(-0.5)
    assert public.noise_variance == pytest.approx(2 * alpha / (1 - alpha) ** 2 / 4)
    with pytest.raises(ConfigurationError, match="no bounded number named 'k'"):
        Public.of([part(0, 1, 1)], "k")
    with pytest.raises(ConfigurationError, match="no contract"):
        Public.of([], "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHORT + "steps: 3\n", "steps"),
        (SHORT.replace("5min", "7min"), "whole number of steps"),
        (SHORT.replace("5min", "soon"), "not a duration"),
        (SHORT.replace("task: t", "task: T/../x"), "task"),
        (SHORT + "levels: [0.05, 0.4, 0.95]\n", "levels"),
        (SHORT + "horizon: 2\n", "horizon"),
        (SHORT + "held_out: 47\n", "held_out"),  # the gate would never have enough labels
        (SHORT + "autoregression: {lags: 200}\n", "more lags"),
        (SHORT.replace("5min", "1h"), "wider than a day"),
        ("task: t\n", "contracts"),
        ("[]", "task"),
    ],
)
def test_a_wrong_task_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(text)


def test_a_task_that_is_not_there_has_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_bounds_must_be_bounds() -> None:
    with pytest.raises(ConfigurationError, match="no finite bounds"):
        Public(0, math.inf)
