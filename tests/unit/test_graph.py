"""The ONNX graph is the learner's forecast: every number of it, for every key, at any time."""

from __future__ import annotations

from datetime import UTC, datetime
from time import process_time

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.learner_streams import PUBLIC, Stream, small
from trainers.keyed import Array
from trainers.learner import Learner
from trainers.spec import Public, TaskSpec


def run(content: bytes, feed: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def assert_equal(learner: Learner, atol: float = 1e-9) -> None:
    found = run(learner.export_onnx(), learner.contexts())
    for name, column in learner.now().items():
        np.testing.assert_allclose(found[name], column, atol=atol, rtol=0, err_msg=name)


@pytest.mark.parametrize("keys", [1, 6])
def test_graph_equals_learner_on_many_steps(keys: int) -> None:
    stream, learner = Stream(900, keys, seed=9), Learner(small(), PUBLIC, 2)
    for start in [*range(30), *range(30, 900, 37)]:
        stop = start + 1 if start < 30 else min(start + 37, 900)
        stream.feed(learner, start=start, stop=stop)
        assert_equal(learner)
    assert learner.mlp.rounds > 2


@pytest.mark.parametrize(
    "change", [datetime(2016, 3, 13, 10, tzinfo=UTC), datetime(2016, 11, 6, 9, tzinfo=UTC)]
)
def test_graph_equals_learner_where_the_clocks_change(change: datetime) -> None:
    at = int(change.timestamp()) // 3600
    learner = Learner(small(), PUBLIC, 2)
    rng = np.random.default_rng(0)
    for slot in range(at - 200, at + 30):
        learner.step(["k"], np.array([slot]), rng.integers(0, 200, 1).astype(np.float64))
        if slot > at - 4:
            assert_equal(learner)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_graph_equals_learner_in_zones_without_changes(zone: str) -> None:
    stream, learner = Stream(200, 2, seed=1), Learner(small(zone=zone), PUBLIC, 2)
    stream.feed(learner)
    assert_equal(learner)


def test_graph_equals_learner_off_zero_and_off_integers() -> None:
    public = Public(-40.0, 60.0)
    learner, rng = Learner(small(), public, 2), np.random.default_rng(0)
    slots = np.arange(405_000, 405_600)
    values = 10 + 15 * np.sin(slots / 4) + rng.normal(0, 3, 600)
    learner.step(["k"] * 600, slots, values)
    assert_equal(learner, atol=1e-4)  # a context is float32


def test_quantiles_do_not_fall_where_a_key_sits_on_a_bound() -> None:
    learner = Learner(small(), Public(0.0, 7.5), 2)
    for count in range(1, 600):
        learner.step(["k"], np.array([405_000 + count]), np.array([7.5]))
        if count > 500:
            found = run(learner.export_onnx(), learner.contexts())
            assert (np.diff(found["quantiles"], axis=1) >= 0).all()


def test_the_real_task_agrees_and_exports_quickly() -> None:
    from pathlib import Path

    from trainers import spec

    task: TaskSpec = spec.load(Path(spec.__file__).parent / "tasks" / "traffic.yaml")
    learner, rng = Learner(task, PUBLIC, 2), np.random.default_rng(0)
    slots = np.arange(4_850_000, 4_850_900)
    wave = 90 + 70 * np.sin(2 * np.pi * slots / 288) + rng.normal(0, 9, 900)
    values = np.clip(wave, 0, 256).round().astype(np.float64)
    learner.step(["d-401190"] * 900, slots, values)
    assert_equal(learner)
    start = process_time()
    content = learner.export_onnx()
    assert process_time() - start < 0.3
    assert len(content) < 500_000


def test_a_release_goes_on_with_later_values() -> None:
    """The frozen graph with later contexts is the frozen learner, and contexts of the past can be run too."""
    stream, learner = Stream(700, 1, seed=9), Learner(small(), PUBLIC, 2)
    stream.feed(learner, stop=500)
    frozen, at = learner.export_onnx(), dict(learner.contexts())
    stream.feed(learner, start=500)
    now = run(frozen, learner.contexts())
    assert np.isfinite(now["quantiles"]).all()
    assert (np.diff(now["quantiles"], axis=1) >= 0).all()
    assert now["value"] != run(frozen, at)["value"]


def test_held_out_labels_are_scored_by_the_graph() -> None:
    stream, learner = Stream(700, 3, seed=9), Learner(small(), PUBLIC, 2)
    assert len(learner.held_out().samples["label"]) == 0
    issued = stream.feed(learner)
    feed, samples = learner.held_out()
    assert 0 < len(samples["label"]) <= 3 * learner.spec.held_out
    first: dict[tuple[str, int], float] = {}
    for key, slot, value in zip(stream.keys, stream.slots.tolist(), stream.values.tolist(), strict=True):
        first.setdefault((key, slot), value)  # a repeated slot is late
    scored = {
        (stream.keys[i], int(stream.slots[i])): issued.issued_value[i] for i in np.flatnonzero(issued.scored)
    }
    for i, (row, slot) in enumerate(zip(feed["row"], feed["slot"], strict=True)):
        place = learner.keys[row], int(slot) + 1
        assert first[place] == samples["label"][i]
        assert samples["forecasts"][i, 0] == np.float32(scored[place])
        past = [first.get((place[0], int(slot) - age), np.nan) for age in range(learner.spec.context)]
        np.testing.assert_array_equal(feed["values"][i], np.array(past[::-1], np.float32))
    found = run(learner.export_onnx(), feed)
    persistence = np.abs(feed["values"][:, -1] - samples["label"]).mean()
    assert np.abs(found["value"] - samples["label"]).mean() < persistence


def test_held_out_labels_are_bounded_by_the_memory_not_by_the_keys() -> None:
    learner = Learner(small(), PUBLIC, 2)
    keys = [f"k{i}" for i in range(100)]
    for slot in range(405_000, 405_012):
        learner.step(keys, np.full(100, slot), np.full(100, 50.0))
    assert len(learner.held_out().samples["label"]) == learner.spec.network.capacity == 256


def test_equal_states_give_equal_bytes_and_a_valid_model() -> None:
    stream, learner = Stream(300, 2, seed=9), Learner(small(), PUBLIC, 2)
    stream.feed(learner)
    content = learner.export_onnx()
    assert content == Learner.from_state(small(), PUBLIC, learner.state()).export_onnx()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} == {
        ""
    }  # no operator of our own: any runtime reads it


def test_the_forecast_of_now_is_the_one_just_issued() -> None:
    stream, learner = Stream(400, 1, seed=9), Learner(small(), PUBLIC, 2)
    issued = stream.feed(learner)
    for name, column in learner.now().items():
        assert column[0].tobytes() == getattr(issued, name)[-1].tobytes()
