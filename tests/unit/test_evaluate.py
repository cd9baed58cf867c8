"""The judge of the demo: which forecast meets which truth, and that the frozen model is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.contract import load as load_contract
from sluice import evaluate
from sluice.evaluate import Issued
from tests.unit.test_gate_labels import DAY, feed
from tests.unit.test_release_trainer import FIRST, SIGNER, SPEC, setting
from trainers.follower import Follower
from trainers.learner import Learner
from trainers.pins import Pin
from trainers.serving import Model
from trainers.spec import EXPERTS, Public
from trainers.trainer import Trainer


def test_a_forecast_meets_the_truth_of_its_own_slot() -> None:
    truth = {("a", slot): float(slot**2) for slot in (10, 11, 12, 14, 15)}
    issued = [Issued("a", slot, slot**2 + 0.5, 0.0, 150.0, (0.0, slot**2 + 2.0)) for slot in range(9, 18)]
    found = evaluate.score(issued, truth, ("zero", "two"), first_slot=12)
    assert found.count == 2  # 12 and 15: 14 has no slot before it, 16 has no truth
    assert found.mae == 0.5
    assert found.mae_persistence == ((144 - 121) + (225 - 196)) / 2
    assert found.mae_experts == {"zero": (144 + 225) / 2, "two": 2.0}
    assert found.coverage == 0.5


def test_nothing_to_score_is_no_figure() -> None:
    found = evaluate.score([], {}, EXPERTS, 0)
    assert found.count == 0
    assert np.isnan(found.mae)


def test_cells_that_are_no_number_are_no_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = load_contract("traffic.detector-counts")
    column = contract.event.fields["vehicles"].column
    cells: list[Any] = ["7", 8, None, "x", "nan", float("inf"), ""]
    rows = [(("d", slot), {column: cell}) for slot, cell in enumerate(cells)]
    monkeypatch.setattr(evaluate, "source_rows", lambda _: rows)
    assert evaluate.truth_of(contract, "vehicles") == {("d", 0): 7.0, ("d", 1): 8.0}


@pytest.fixture(scope="module")
def model() -> Model:
    candidates = feed(Trainer(setting()), 0, 4, ["busy", "quiet"])
    value, chunks = candidates[-1].value, candidates[-1].chunks
    assert value is not None
    follower = Follower("traffic", Pin(SIGNER.public, "argument"))
    return follower.take(follower.consider(value), dict(chunks))


def test_a_frozen_model_sees_the_past_of_each_slot_and_nothing_else(model: Model) -> None:
    """Against a plain loop that builds each context from earlier slots only."""
    rng, first = np.random.default_rng(1), FIRST + 4 * DAY
    shared = {
        (key, slot): float(rng.integers(0, 200))
        for key in model.keys
        for slot in range(first - 200, first + 150)
        if rng.random() > 0.1
    }
    truth = {place: value + rng.normal() for place, value in shared.items()}
    found = evaluate.score_frozen(model, shared, truth, SPEC.context, first)
    errors = []
    for (key, slot), label in truth.items():
        if slot < first or (key, slot - 1) not in truth:
            continue
        past = [shared.get((key, slot - 1 - age), np.nan) for age in range(SPEC.context)][::-1]
        row = np.array([model.keys.index(key)])
        context = np.array([past], np.float32)
        value, _, _ = model.graph.run({"row": row, "slot": np.array([slot - 1]), "values": context})
        errors.append(abs(float(value[0]) - label))
    assert found.count == len(errors)
    assert found.mae == pytest.approx(np.mean(errors), abs=1e-9)


def test_the_run_without_noise_is_the_same_learner(model: Model) -> None:
    rng = np.random.default_rng(2)
    truth = {("d", FIRST + i): float(np.clip(80 + rng.normal(0, 9), 0, 256)) for i in range(400)}
    found = evaluate.without_noise(SPEC, (0.0, 256.0), truth, 3, FIRST + 200)
    learner = Learner(SPEC, Public(0.0, 256.0), 3)
    slots = np.array([slot for _, slot in truth])
    out = learner.step(["d"] * 400, slots, np.array(list(truth.values())))
    labels = np.array(list(truth.values()))[200:]
    assert found.count == 200
    assert found.mae == pytest.approx(np.abs(out.issued_value[200:] - labels).mean(), abs=1e-12)
